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
        lines: dict[Party, Iterator[Waiting]] = {}
        left = {party: most for party in self.parties if (most := party.line)}  # the others have nothing to give
        counts = {party: party.in_flight + (party is of) for party in (*left, of)}
        sizes = {party: party.queued_bytes + size * (party is of) for party in (*left, of)}
        while (is_full := calls > self.max_calls) or waiting > self.max_bytes:
            shares, payer = counts if is_full else sizes, of
            for party in left:
                if shares[party] > shares[payer] and left[party]:
                    payer = party
            if payer is of:
                raise self._overloaded(of, is_full)
            if payer not in lines:
                lines[payer] = payer.newest_first()
            call = next(lines[payer])
            payers.append((payer, call))
            # Counted on, not again from the beginning: one large call may cost thousands of small ones.
            calls, counts[payer], left[payer] = calls - 1, counts[payer] - 1, left[payer] - 1
            waiting, sizes[payer] = waiting - len(call.body), sizes[payer] - len(call.body)
            was_full = is_full
        for party, call in payers:
            call.abandon(self._overloaded(party, was_full))

    def _overloaded(self, party: Party, is_full: bool) -> Overloaded:
        if is_full:
            cause, what = "max_inflight", f"{counted(self.max_calls, 'call')} in flight already"
        else:
            cause, what = "max_queued_bytes", f"bodies of {counted(self.max_bytes, 'byte')} wait already"
        return Overloaded(f"the gateway is overloaded: {what}", retry_after=party.retry_after(), cause=cause)
