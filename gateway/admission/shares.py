"""Shared limits of all models: calls in flight, and bytes of waiting bodies and messages. They are divided fairly.

Calls only update counters. Only a call above a limit looks at the models. The order of that decision:
1. The model that holds most of the scarce resource pays, counting the new call for its model.
2. If that is the new call's own model, the new call is refused.
3. Otherwise the newest waiting call of that model is refused. Models without waiting calls have nothing to give.
4. Repeat until there is room. Only then are the chosen calls refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol
from weakref import WeakKeyDictionary

from ..errors import Overloaded
from ..wording import counted
from .conversations import Conversations
from .messages import Messages

UNBOUNDED = 1 << 62


class Waiting(Protocol):
    """A call in a queue, or a request that waits for its model."""

    @property
    def body(self) -> bytes: ...

    def abandon(self, error: BaseException) -> None: ...


class Party(Protocol):
    """A holder of a share: the calls of a model, or the requests that wait for it to be ready."""

    @property
    def in_flight(self) -> int: ...

    @property
    def queued_bytes(self) -> int: ...

    @property
    def line(self) -> int:
        """How many of them wait and can be refused."""

    def newest_first(self) -> Iterator[Waiting]: ...

    def retry_after(self) -> float: ...


class Shares:
    """The shared counters of one gateway. Each party counts its own calls in and out."""

    __slots__ = ("bytes", "calls", "conversations", "max_bytes", "max_calls", "messages", "parties")

    def __init__(self, max_calls: int = UNBOUNDED, max_bytes: int = UNBOUNDED) -> None:
        self.max_calls, self.max_bytes = max_calls, max_bytes
        self.calls = 0  # calls that wait or run
        self.bytes = 0  # bytes of waiting bodies and messages
        self.conversations = Conversations(self)  # stored ones that requests continue
        self.messages = Messages(self)  # websocket messages that no model has taken yet
        self.parties: WeakKeyDictionary[Party, None] = WeakKeyDictionary()  # in the order of their registration

    def make_room(self, of: Party, size: int) -> None:
        """Refuse calls until there is room for one more call of `of`, with `size` bytes that wait.

        Raises:
            Overloaded: the new call itself is refused, and no other call is.
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
