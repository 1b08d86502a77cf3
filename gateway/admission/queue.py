"""Admission to one model: slots on its replicas, and a bounded queue.

It knows no processes and no clocks: times are passed in, and `is_late` decides whether a call is too late to start, and
ends it. The order of decisions:
1. A replica has room and no call waits: the call may start, on the replica with the most free slots.
2. The queue has room: the call may wait.
3. Otherwise: Overloaded.
4. The gateway has room for one more call, or can make room: the call is admitted.
5. Otherwise: Overloaded.

A slot belongs to its call from `enter`, or from the `give_back` that passes it on, until the call's own `give_back`.
Waiting calls are served first in, first out. If calls are short, the first ones that wait are sent `ahead`: they wait
in the worker instead, which then has the next call at hand when one ends. They still count as queued, with their
bodies, and begin in the order in which they were sent. The longer calls take, the fewer are sent ahead. One that could
begin on another replica, because the calls before it take longer than usual, is recalled.

Models with preprocess or postprocess run these outside the slot, so their
calls wait for it `inside` the worker, in the worker's own FIFO. They count as queued from the worker's report that they
wait until its report that they got the slot.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import Overloaded
from ..wording import counted
from .shares import Shares

if TYPE_CHECKING:
    from ..runners.call import Call

MAX_RETRY_AFTER = 60  # seconds; above 120 the OpenAI SDK does not retry
SMOOTHING = 0.1  # weight of the newest service time in the moving average
AHEAD = 0.002  # seconds of work that are sent ahead
MOST_AHEAD = 64  # calls for each slot
LARGE = 64 * 1024  # bytes; a larger body is not sent ahead
STUCK = 0.05  # seconds that a call may wait in a worker while it could begin in another


class Seat:
    """The capacity of one replica: `slots` calls at once, and `inside` more calls that may queue in it."""

    __slots__ = ("ahead", "inside", "is_stuck", "limiter", "owner", "room", "slots", "takes_ahead", "used", "waiting")

    limiter: Limiter

    def __init__(self, owner: Any, slots: int, inside: int = 0, *, takes_ahead: bool = False) -> None:
        self.owner, self.slots, self.inside, self.takes_ahead = owner, slots, inside, takes_ahead
        self.room = slots + inside
        self.is_stuck = False  # its calls take so long that others were recalled from it
        self.ahead: deque[Call] = deque()  # calls that were sent and have no slot yet, in the order of their slots
        self.used = 0  # calls that were sent and have not ended
        self.waiting = 0  # those of them that wait for a slot inside the worker

    @property
    def free(self) -> int:
        return self.room - self.used


class Limiter:
    """Admits the calls of one model. It calls `start` for every call that gets a place on a replica."""

    def __init__(
        self,
        max_queue: int,
        start: Callable[[Call, Seat], None],
        name: str = "",
        is_late: Callable[[Call], bool] = lambda call: False,
        shares: Shares | None = None,
    ) -> None:
        self.max_queue, self.name = max_queue, name
        self.seats: list[Seat] = []
        self.last_call = 0.0  # time of the last call by the loop's clock; 0 before the first
        self.mean_service = 0.0  # seconds that a call holds its slot, moving average
        self._start, self._is_late = start, is_late
        self._waiting: deque[Call] = deque()
        self.queued_bytes = 0  # bytes of the bodies of waiting calls
        self._shares = shares or Shares()
        self._shares.parties[self] = None
        self._left = 0  # abandoned calls that are still in the deque

    @property
    def queued(self) -> int:
        return len(self._waiting) - self._left + sum(seat.waiting + len(seat.ahead) for seat in self.seats)

    @property
    def running(self) -> int:
        return sum(seat.used - seat.waiting for seat in self.seats)

    @property
    def slots(self) -> int:
        return sum(seat.slots for seat in self.seats)

    @property
    def in_flight(self) -> int:
        """The number of calls that wait or run."""
        return len(self._waiting) - self._left + sum(seat.used + len(seat.ahead) for seat in self.seats)

    @property
    def room(self) -> int:
        """How many more calls would be admitted now."""
        return max(0, self.slots + self.max_queue - self.in_flight)

    def enter(self, call: Call) -> None:
        """Start the call or queue it.

        Raises:
            Overloaded: slots and queue are full, or the gateway is; nothing was started.
        """
        shares = self._shares
        seat = None if self._waiting else self._freest()
        if seat is None and not self.room:
            raise Overloaded(
                f"model '{self.name}' is overloaded: {counted(self.running, 'call')} in progress, "
                f"{self.queued} waiting, the queue holds {self.max_queue}",
                retry_after=self.retry_after(),
                cause="max_queue",
            )
        size = len(call.body) if seat is None else 0
        if shares.calls >= shares.max_calls or shares.bytes + size > shares.max_bytes:
            shares.make_room(self, size)
        if seat is not None:
            seat.used += 1
            shares.calls += 1
            self._start(call, seat)
            return
        self._waiting.append(call)
        shares.calls += 1
        self._count_body(len(call.body))
        if self.mean_service < AHEAD:
            self._send_ahead()

    def _count_body(self, size: int) -> None:
        self.queued_bytes += size
        self._shares.bytes += size

    @property
    def line(self) -> int:
        """The number of calls that wait here, without those inside a worker."""
        return len(self._waiting) - self._left

    def newest_first(self) -> Iterator[Call]:
        """Return the calls that wait here, newest first."""
        return (call for call in reversed(self._waiting) if call.error is None)

    def refused(self, call: Call, seat: Seat) -> bool:
        """Move a call whose replica was gone before it arrived to another replica. Return False if there is none."""
        self.remove(seat)
        if call.is_ahead:
            self.take_back(call, seat)
            return True
        seat.used -= 1
        if not self.seats:
            self._shares.calls -= 1
            return False
        self._waiting.appendleft(call)
        self._count_body(len(call.body))
        self._hand_out()
        return bool(self.seats)

    # ── calls that were sent ahead ───────────────────────────────────────────────────────────────────────────────

    def begin(self, call: Call) -> None:
        """A call that was sent ahead has got its slot."""
        seat: Seat = call.seat
        seat.ahead.remove(call)
        seat.used += 1
        self._count_body(-len(call.body))
        call.body, call.is_ahead = b"", False
        call.opened(seat.owner, call.id)

    def take_back(self, call: Call, seat: Seat) -> None:
        """Queue a call again that was sent ahead and has not begun."""
        seat.ahead.remove(call)
        call.is_ahead = call.is_recalled = False
        later: deque[Call] = deque()
        while self._waiting and self._waiting[0].arrived < call.arrived:
            later.appendleft(self._waiting.popleft())
        self._waiting.appendleft(call)
        self._waiting.extendleft(later)
        self._hand_out()

    def leave_ahead(self, call: Call, seat: Seat) -> None:
        """Forget a call that was sent ahead and has ended in its worker, without a slot."""
        seat.ahead.remove(call)
        self._count_body(-len(call.body))
        call.body, call.is_ahead = b"", False
        self._shares.calls -= 1
        self._hand_out()

    def spread(self, now: float) -> None:
        """Recall the calls that wait in a worker although they could begin in another."""
        if len(self.seats) < 2 or self._freest() is None:
            return
        for seat in self.seats:
            if seat.ahead and seat.used >= seat.slots and seat.ahead[0].arrived < now - STUCK:
                seat.is_stuck = True
                _recall(seat)

    def _send_ahead(self) -> None:
        """Send waiting calls to the replicas that have the shortest lines."""
        mean = self.mean_service
        most = min(MOST_AHEAD, int(AHEAD / mean)) if mean else 0
        while most and self._waiting:
            call = self._waiting[0]
            if call.error is not None:
                self._waiting.popleft()
                self._left -= 1
                continue
            seat = self._shortest(most)
            if seat is None or len(call.body) > LARGE:
                return
            if self._is_late(call):
                continue
            self._waiting.popleft()
            seat.ahead.append(call)
            call.is_ahead = True
            self._start(call, seat)

    def _shortest(self, most: int) -> Seat | None:
        """Return the replica with the shortest line for each slot, of those that take one more."""
        seats = [
            seat
            for seat in self.seats
            if seat.takes_ahead
            and seat.used >= seat.slots
            and len(seat.ahead) < most * seat.slots
            and not seat.is_stuck
        ]
        if len(seats) < 2:
            return seats[0] if seats else None
        return min(seats, key=lambda seat: len(seat.ahead) / seat.slots)

    # ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────

    def give_back(self, seat: Seat, held: float | None) -> None:
        """Release a slot after `held` seconds, None if it was never used, and pass it to the next call in the queue."""
        seat.used -= 1
        seat.is_stuck = False
        self._shares.calls -= 1
        if held is not None:
            self.mean_service += (held - self.mean_service) * (SMOOTHING if self.mean_service else 1.0)
        if seat.ahead and seat.used < seat.slots:
            following = next((call for call in seat.ahead if call.is_wanted and not call.is_recalled), None)
            if following is not None:
                self.begin(following)
        if self._waiting:
            self._hand_out()

    def add(self, seat: Seat) -> None:
        """Add a ready replica. Its slots go to waiting calls."""
        seat.limiter = self
        self.seats.append(seat)
        self._hand_out()

    def remove(self, seat: Seat) -> None:
        """Remove a replica that is gone or draining. Its calls keep their slots; those sent ahead are recalled."""
        if seat in self.seats:
            self.seats.remove(seat)
            _recall(seat)

    def leave(self, call: Call) -> None:
        """Remove an abandoned call from the counts. It is dropped from the queue at the next cleanup."""
        self._count_body(-len(call.body))
        call.body = b""
        self._shares.calls -= 1
        self._left += 1
        if self._left > self.max_queue:  # an occasional cleanup, not one for every disconnect
            self._waiting = deque(self.waiting())
            self._left = 0

    def waiting(self) -> Iterator[Call]:
        """Return the waiting calls, oldest first."""
        return (call for call in tuple(self._waiting) if call.error is None)

    def retry_after(self) -> int:
        """Estimate the seconds until all current calls are done, from the mean service time, with some jitter."""
        wait = self.in_flight * self.mean_service / max(self.slots, 1) * random.uniform(0.8, 1.2)
        return max(1, min(MAX_RETRY_AFTER, math.ceil(wait)))

    def _freest(self) -> Seat | None:
        seats = self.seats
        if len(seats) == 1:
            seat = seats[0]
            return seat if seat.used < seat.room else None
        best = max(seats, key=lambda seat: seat.slots - seat.used, default=None)
        if best is None or best.used >= best.room:
            return None
        # Several replicas share one queue, although each of them could hold all of it.
        return None if best.inside and best.used >= best.slots and not self.room else best

    def _hand_out(self) -> None:
        while self._waiting:
            if self._waiting[0].error is not None:
                self._waiting.popleft()
                self._left -= 1
                continue
            seat = self._freest()
            if seat is None:
                self._send_ahead()
                return
            if self._is_late(self._waiting[0]):
                continue
            seat.used += 1
            call = self._waiting.popleft()
            self._count_body(-len(call.body))
            self._start(call, seat)


def _recall(seat: Seat) -> None:
    for call in seat.ahead:
        if call.is_wanted and not call.is_recalled:
            call.is_recalled = True
            seat.owner.recall(call)
