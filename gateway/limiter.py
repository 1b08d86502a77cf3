"""Admission to one model: slots on its replicas, and a bounded queue before them.

Pure of processes and clocks: times come in, calls go out; whether a call is too late to start, `is_late` says, and ends
it. The order of a decision:
1. a replica has room and nobody waits → it may go, to the freest  2. the queue has room → it may wait  3. → Overloaded
4. the gateway has room for one more, or makes some → so be it  5. → Overloaded

A slot belongs to its call from `enter` (or from `give_back`, which hands it on) until `give_back`. FIFO among those
who still wait. Models with preprocess or postprocess run these outside the slot, so their calls wait for it `inside`
the worker, in its own FIFO; they count as queued from when the worker says that they wait until it says that they got
it.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .errors import Overloaded
from .shares import Shares
from .wording import counted

if TYPE_CHECKING:
    from .call import Call

MAX_RETRY_AFTER = 60  # seconds; above 120 the OpenAI SDK gives up at once
SMOOTHING = 0.1  # weight of the newest service time in the moving average


class Seat:
    """What one replica takes: `slots` calls at once, and with `inside` as many more as may queue."""

    __slots__ = ("inside", "owner", "room", "slots", "used", "waiting")

    def __init__(self, owner: Any, slots: int, inside: int = 0) -> None:
        self.owner, self.slots, self.inside = owner, slots, inside
        self.room = slots + inside
        self.used = 0  # calls that were sent and have not ended
        self.waiting = 0  # those of them that wait for their slot inside the worker

    @property
    def free(self) -> int:
        return self.room - self.used


class Limiter:
    """Lets calls of one model in. `start` is called for every call that gets its place on a replica."""

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
        self.last_call = 0.0  # when one came, by the loop's clock; 0 before the first
        self.mean_service = 0.0  # seconds a call holds its slot, moving average
        self._start, self._is_late = start, is_late
        self._waiting: deque[Call] = deque()
        self.queued_bytes = 0  # of the bodies of those who wait here
        self._shares = shares or Shares()
        self._shares.parties[self] = None
        self._left = 0  # calls in the deque that nobody waits for any more

    @property
    def queued(self) -> int:
        return len(self._waiting) - self._left + sum(seat.waiting for seat in self.seats)

    @property
    def running(self) -> int:
        return sum(seat.used - seat.waiting for seat in self.seats)

    @property
    def slots(self) -> int:
        return sum(seat.slots for seat in self.seats)

    @property
    def in_flight(self) -> int:
        """Calls that wait or run."""
        return len(self._waiting) - self._left + sum(seat.used for seat in self.seats)

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

    def _count_body(self, size: int) -> None:
        self.queued_bytes += size
        self._shares.bytes += size

    @property
    def line(self) -> int:
        """How many wait here, and not inside a worker."""
        return len(self._waiting) - self._left

    def newest_first(self) -> Iterator[Call]:
        """Those who wait here, from the end of the line on."""
        return (call for call in reversed(self._waiting) if call.error is None)

    def refused(self, call: Call, seat: Seat) -> bool:
        """The seat's replica was gone before the call got there: another one takes it, or it is False."""
        self.remove(seat)
        seat.used -= 1
        if not self.seats:
            self._shares.calls -= 1
            return False
        self._waiting.appendleft(call)
        self._count_body(len(call.body))
        self._hand_out()
        return bool(self.seats)

    def give_back(self, seat: Seat, held: float | None) -> None:
        """Take a slot back after `held` seconds, None if it was never used, and hand it to the next in line."""
        seat.used -= 1
        self._shares.calls -= 1
        if held is not None:
            self.mean_service += (held - self.mean_service) * (SMOOTHING if self.mean_service else 1.0)
        if self._waiting:
            self._hand_out()

    def add(self, seat: Seat) -> None:
        """A replica is ready: its slots go to those who wait."""
        self.seats.append(seat)
        self._hand_out()

    def remove(self, seat: Seat) -> None:
        """A replica is gone or draining; calls on it keep what they hold."""
        if seat in self.seats:
            self.seats.remove(seat)

    def leave(self, call: Call) -> None:
        """A call that waits has been abandoned: it counts no more, and goes when the line is next tidied."""
        self._count_body(-len(call.body))
        call.body = b""
        self._shares.calls -= 1
        self._left += 1
        if self._left > self.max_queue:  # a walk now and then, not one for every client that hangs up
            self._waiting = deque(self.waiting())
            self._left = 0

    def waiting(self) -> Iterator[Call]:
        """Those who wait, oldest first."""
        return (call for call in tuple(self._waiting) if call.error is None)

    def retry_after(self) -> int:
        """Seconds until all that run and wait are through, by the measured service time; jittered to spread clients."""
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
        # Several replicas share one queue, though each of them could hold all of it.
        return None if best.inside and best.used >= best.slots and not self.room else best

    def _hand_out(self) -> None:
        while self._waiting:
            if self._waiting[0].error is not None:
                self._waiting.popleft()
                self._left -= 1
                continue
            seat = self._freest()
            if seat is None:
                return
            if self._is_late(self._waiting[0]):
                continue
            seat.used += 1
            call = self._waiting.popleft()
            self._count_body(-len(call.body))
            self._start(call, seat)
