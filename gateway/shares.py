"""What all models together may hold: calls in flight, and the bytes of bodies and messages that wait. Fair when it is
short.

Counters on the way of a call; only one too many looks at the models. The order of that decision:
1. the model that has most of what is short, the newcomer counted in, pays  2. if that is the newcomer's own, the
newcomer is refused  3. else the newest call that waits there is; models whose calls all run have nothing to give
4. again, until there is room: only then anybody is refused
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Protocol
from weakref import WeakKeyDictionary

from .errors import Overloaded
from .wording import counted

UNBOUNDED = 1 << 62


class Waiting(Protocol):
    """A call in a queue, or a request that waits for its model."""

    @property
    def body(self) -> bytes: ...

    def abandon(self, error: BaseException) -> None: ...


class Party(Protocol):
    """What holds a share: the calls of a model, or the requests that wait for it to be ready."""

    @property
    def in_flight(self) -> int: ...

    @property
    def queued_bytes(self) -> int: ...

    @property
    def line(self) -> int:
        """How many of them may be given up."""

    def newest_first(self) -> Iterator[Waiting]: ...

    def retry_after(self) -> float: ...


class Shares:
    """The calls of all models of one gateway; each party counts its own in and out."""

    __slots__ = ("_line", "bytes", "calls", "max_bytes", "max_calls", "messages", "parties")

    def __init__(self, max_calls: int = UNBOUNDED, max_bytes: int = UNBOUNDED) -> None:
        self.max_calls, self.max_bytes = max_calls, max_bytes
        self.calls = 0  # that wait or run
        self.bytes = 0  # of the bodies of those who wait
        self.messages = 0  # bytes of the messages of websockets that no model has taken yet; they are in `bytes` too
        self.parties: WeakKeyDictionary[Party, None] = WeakKeyDictionary()  # in the order in which they came
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def hold(self, size: int) -> None:
        """Count a message of a websocket in, when there is room for it: first come, first served.

        Messages have half of what bodies may have, so that they shut out no requests. Their clients are not read
        meanwhile, which tells them to send no more.
        """
        if not self._line and self._fits(size):
            self._add(size)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size, waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.let_go(size)
            else:
                self._serve()
            raise

    def let_go(self, size: int) -> None:
        """Messages of so many bytes were taken, or nobody will."""
        self._add(-size)
        self._serve()

    def _fits(self, size: int) -> bool:
        return not self.messages or self.messages + size <= self.max_bytes // 2

    def _add(self, size: int) -> None:
        self.messages += size
        self.bytes += size

    def _serve(self) -> None:
        while self._line and (self._line[0][1].done() or self._fits(self._line[0][0])):
            size, waiter = self._line.popleft()
            if not waiter.done():
                self._add(size)
                waiter.set_result(None)

    def make_room(self, of: Party, size: int) -> None:
        """Refuse somebody, for there is no room for one more call with so many bytes that have to wait.

        Raises:
            Overloaded: it is the newcomer, and nobody else has lost anything.
        """
        calls, waiting = self.calls + 1, self.bytes + size
        payers: list[tuple[Party, Waiting]] = []
        cause = ""
        lines: dict[Party, Iterator[Waiting]] = {}
        while calls > self.max_calls or waiting > self.max_bytes:
            if calls > self.max_calls:
                cause = "max_inflight"
                text = f"the gateway is overloaded: {counted(self.max_calls, 'call')} in flight already"
                shares = {party: party.in_flight + (party is of) for party in self.parties}
            else:
                cause = "max_queued_bytes"
                text = f"the gateway is overloaded: bodies of {counted(self.max_bytes, 'byte')} wait already"
                shares = {party: party.queued_bytes + size * (party is of) for party in self.parties}
            left = {party: party.line for party in self.parties}
            for party, call in payers:
                shares[party] -= 1 if calls > self.max_calls else len(call.body)
                left[party] -= 1
            payer = of
            for party, share in shares.items():
                if share > shares[payer] and left[party]:
                    payer = party
            if payer is of:
                raise Overloaded(text, retry_after=of.retry_after(), cause=cause)
            line = lines.setdefault(payer, payer.newest_first())
            payers.append((payer, next(line)))
            calls -= 1
            waiting -= len(payers[-1][1].body)
        for party, call in payers:
            call.abandon(Overloaded(text, retry_after=party.retry_after(), cause=cause))
