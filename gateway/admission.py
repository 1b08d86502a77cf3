"""The calls of one model on their way in and out: slots, the queue before them, those that need no slot.

admit ──> a slot is free: sent to its replica ──> ended: the slot goes to the next
  │  └──> waits ──> gets a slot │ is given up │ is too late
  └─────> needs no slot: sent at once, one after the other
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence

from .call import CLIENTS, NEVER, Call
from .deadlines import Deadlines
from .errors import Crashed, GatewayError, Overloaded
from .limiter import Limiter, Seat
from .replica import Replica
from .shares import Shares
from .spec import Limits
from .wire import Req
from .wording import counted

log = logging.getLogger("gateway.models")

ASIDE = 64  # calls without a slot, one after the other in the worker; one more is refused


class Admission:
    """`ready` are the replicas that take calls, `running` all that have some; `kill` ends one whose code does not stop.

    `notify`, when it is set, hears of every call that has ended or was given up. `slotless` are the methods that hold
    no slot.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        shares: Shares | None,
        *,
        ready: Callable[[], Sequence[Replica]],
        running: Callable[[], Iterable[Replica]],
        kill: Callable[[Replica, str, str], None],
    ) -> None:
        self.limits = limits
        self.limiter = Limiter(limits.max_queue, self._start, name, self._is_late, shares)
        self.slotless: frozenset[str] = frozenset()
        self.aside = 0  # calls of these
        self.notify: Callable[[], None] | None = None
        self._name, self._ready = name, ready
        self._loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(name, self.limiter, running, kill, self._loop)

    def use(self, limits: Limits) -> None:
        """Go on with other limits; calls that are there keep theirs."""
        self.limits, self.limiter.max_queue = limits, limits.max_queue

    def admit(self, req: Req, body: bytes, patience: float = NEVER) -> Call:
        """Start a call or have it wait.

        Raises:
            Overloaded: slots and queue are full.
            QueueTimeout: its client's time is over already.
        """
        if patience <= 0:
            self.limiter.last_call = self._loop.time()
            raise self.deadlines.too_late(0.0, cause=CLIENTS)
        call = Call(req, body, self.limits, self._loop, patience)
        call.owner = self
        if req.method in self.slotless:
            self._open_aside(call)
        else:
            self.limiter.last_call = call.arrived
            self.limiter.enter(call)
            if not call.started:
                call.waits_since = call.arrived
        deadlines = self.deadlines
        if not deadlines.watching or call.deadline < deadlines.due:
            deadlines.watch(call.deadline)
        return call

    def check_room(self, calls: int) -> None:
        """Refuse before the first of several calls that belong together, if they cannot all be admitted.

        Raises:
            Overloaded: fewer slots and places in the queue are free now.
        """
        room = self.limiter.room
        if room < calls:
            raise Overloaded(
                f"model '{self._name}' is overloaded: {counted(calls, 'call')} at once, room for {room}",
                retry_after=self.limiter.retry_after(),
                cause="max_queue",
            )

    def lost(self) -> Crashed:
        text = (
            f"the worker of model '{self._name}' was lost before this call began; `gateway logs {self._name}` says how"
        )
        return Crashed(text, should_retry=True)

    # ── what a call that waits asks of its owner ─────────────────────────────────────────────────────────────────

    def cancel(self, call: Call) -> None:
        """It was given up."""
        call.on_end()
        self.limiter.leave(call)
        if self.notify is not None:
            self.notify()

    def grant(self, call: Call) -> None:
        """Nothing to grant while it waits."""

    def message(self, call: Call, payload: bytes) -> None:
        """A websocket is bridged when its call has begun, so there is none yet."""

    # ── replicas ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, call: Call, seat: Seat) -> None:
        call.seat = seat
        if seat.inside:
            call.got_slot = False  # until the worker says so
        try:
            seat.owner.open(call, self._ended)
        except Exception as error:
            self._not_opened(call, seat, error)

    def _not_opened(self, call: Call, seat: Seat, error: Exception) -> None:
        """Whatever a replica does instead of taking a call, the call ends and its slot is free again."""
        call.started = 0.0
        call.got_slot = True
        if not isinstance(error, ConnectionError):
            log.error("%s: a call could not be sent", self._name, exc_info=error)
            call.on_error(GatewayError("the call could not be sent to the model"))
            self.limiter.give_back(seat, None)
        elif not self.limiter.refused(call, seat):
            call.on_error(self.lost())

    def _is_late(self, call: Call) -> bool:
        return self.deadlines.end_if_late(call)

    def _ended(self, call: Call) -> None:
        seat: Seat = call.seat
        held: float | None = self._loop.time() - call.started
        if not call.got_slot:
            held = None
            call.waits_no_more()
        self.limiter.give_back(seat, held)
        if call.then is not None:
            call.let_go()
        if self.notify is not None:
            self.notify()

    def _open_aside(self, call: Call) -> None:
        """Send a call that needs no slot, so that it waits behind none that has one."""
        if self.aside >= ASIDE:
            text = f"model '{self._name}' is overloaded: {ASIDE} calls count tokens"
            raise Overloaded(text, retry_after=1, cause="counting")
        try:
            random.choice(self._ready()).open(call, self._aside_ended)
        except ConnectionError:
            raise self.lost() from None
        self.aside += 1

    def _aside_ended(self, call: Call) -> None:
        self.aside -= 1
        call.let_go()
        if self.notify is not None:
            self.notify()
