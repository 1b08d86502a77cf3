"""What all models together may hold: calls in flight, and the bytes of bodies that wait. Fair when it is short.

Counters on the way of a call; only one too many looks at the models. The order of that decision:
1. the model that has most of what is short, the newcomer counted in, pays  2. if that is the newcomer's own, the
newcomer is refused  3. else the newest call that waits there is; models whose calls all run have nothing to give
4. again, until there is room
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakSet

from .errors import Overloaded

if TYPE_CHECKING:
    from .limiter import Limiter

UNBOUNDED = 1 << 62


class Shares:
    """The calls of all models of one gateway; each limiter counts its own in and out."""

    __slots__ = ("bytes", "calls", "limiters", "max_bytes", "max_calls")

    def __init__(self, max_calls: int = UNBOUNDED, max_bytes: int = UNBOUNDED) -> None:
        self.max_calls, self.max_bytes = max_calls, max_bytes
        self.calls = 0  # that wait or run
        self.bytes = 0  # of the bodies of those who wait
        self.limiters: WeakSet[Limiter] = WeakSet()

    def make_room_for_call(self, of: Limiter) -> None:
        """Refuse somebody, if one more call is too many.

        Raises:
            Overloaded: it is the newcomer.
        """
        self._make_room(
            of,
            lambda: self.calls < self.max_calls,
            lambda limiter: limiter.in_flight + (limiter is of),
            f"the gateway is overloaded: {self.max_calls} calls are in flight",
        )

    def make_room_for_body(self, of: Limiter, size: int) -> None:
        """The same for a body of so many bytes that has to wait."""
        self._make_room(
            of,
            lambda: self.bytes + size <= self.max_bytes,
            lambda limiter: limiter.queued_bytes + (size if limiter is of else 0),
            f"the gateway is overloaded: bodies of {self.max_bytes} bytes wait already",
        )

    def _make_room(
        self, of: Limiter, is_there: Callable[[], bool], share_of: Callable[[Limiter], int], text: str
    ) -> None:
        while not is_there():
            most, payer = share_of(of), of
            for limiter in self.limiters:
                if share_of(limiter) > most and limiter.newest is not None:
                    most, payer = share_of(limiter), limiter
            error = Overloaded(text, retry_after=payer.retry_after())
            if payer is of or (newest := payer.newest) is None:
                raise error
            newest.abandon(error)
