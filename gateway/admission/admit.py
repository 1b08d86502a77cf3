"""Admission of calls to one model: slots, the queue, and calls that need no slot.

admit ──> a slot is free: sent to its replica ──> ended: the slot goes to the next call
  │  └──> waits ──> gets a slot │ is given up │ is too late
  └─────> needs no slot: sent at once, one after the other
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Sequence

from ..errors import BadRequest, Crashed, GatewayError, Overloaded
from ..runners.call import CLIENTS, Call
from ..runners.pending import NEVER
from ..runners.replica import Replica
from ..spec import Limits
from ..wire.frames import Req
from ..wording import counted
from .deadlines import Deadlines
from .queue import Limiter, Seat
from .shares import Shares

log = logging.getLogger("gateway.models")

ASIDE = 64  # calls without a slot, which the worker runs one after the other; more are refused


class Admission:
    """Admits the calls of one model.

    `ready` returns the replicas that accept calls, `running` all replicas with calls. `kill` ends a replica whose code
    does not stop. `notify`, if set, is called for every call that ended or was given up. `slotless` are the methods
    that need no slot.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        shares: Shares | None,
        *,
        replicas: int = 1,
        ready: Callable[[], Sequence[Replica]],
        running: Callable[[], Iterable[Replica]],
        kill: Callable[[Replica, str, str], None],
    ) -> None:
        self.limits, self._replicas = limits, replicas
        self.limiter = Limiter(limits.max_queue, self._start, name, self._is_late, shares)
        self.slotless: frozenset[str] = frozenset()
        self.aside = 0  # running calls of these methods
        self.notify: Callable[[], None] | None = None
        self._name, self._ready = name, ready
        self._loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(name, self.limiter, running, kill, self._loop)

    def use(self, limits: Limits, replicas: int) -> None:
        """Use new limits. Existing calls keep theirs."""
        self.limits, self._replicas = limits, replicas
        self.limiter.max_queue = limits.max_queue

    @property
    def most(self) -> int:
        """The maximum number of calls, running and waiting, if all replicas are ready."""
        return self.limits.slots * self._replicas + self.limits.max_queue

    def note_call(self) -> None:
        """Record the time of a call that may never be admitted."""
        self.limiter.last_call = self._loop.time()

    def admit(self, req: Req, body: bytes, patience: float = NEVER) -> Call:
        """Start a call or queue it.

        Raises:
            Overloaded: slots and queue are full.
            QueueTimeout: the client's time limit has passed.
        """
        if patience <= 0:
            self.note_call()
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
        """Check that several calls of one request can all be admitted, before the first is.

        Raises:
            BadRequest: that many never fit, so a retry would not help.
            Overloaded: there are fewer free slots and places in the queue now.
        """
        if calls > self.most:
            what = f"this request is {calls} calls of model '{self._name}', which takes {self.most} at once"
            raise BadRequest(f"{what}; ask for fewer choices or prompts", param="n")
        self.note_call()
        room = self.limiter.room
        if room < calls:
            raise Overloaded(
                f"model '{self._name}' is overloaded: {counted(calls, 'call')} at once, room for {room}",
                retry_after=self.limiter.retry_after(),
                cause="max_queue",
            )

    def lost(self) -> Crashed:
        text = f"the worker of model '{self._name}' was lost before this call began; see `gateway logs {self._name}`"
        return Crashed(text, should_retry=True)

    # ── methods that a waiting call uses of its owner ────────────────────────────────────────────────────────────────

    def cancel(self, call: Call) -> None:
        """Remove a waiting call that was given up."""
        call.on_end()
        self.limiter.leave(call)
        if self.notify is not None:
            self.notify()

    def grant(self, call: Call) -> None:
        """Do nothing: a waiting call sends no items that need credit."""

    def message(self, call: Call, payload: bytes) -> None:
        """Do nothing: a websocket is connected only after its call has begun."""

    # ── replicas ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, call: Call, seat: Seat) -> None:
        call.seat = seat
        if seat.inside:
            call.got_slot = False  # until the worker reports it
        try:
            seat.owner.open(call, self._ended)
        except Exception as error:
            self._not_opened(call, seat, error)

    def _not_opened(self, call: Call, seat: Seat, error: Exception) -> None:
        """Handle a replica that did not accept a call. The call ends and its slot is released."""
        call.started = 0.0
        call.got_slot = True
        call.owner = self
        if not isinstance(error, ConnectionError):
            log.error("%s: a call could not be sent", self._name, exc_info=error)
            call.on_error(GatewayError("the call could not be sent to the model"))
            if call.is_ahead:
                self.limiter.leave_ahead(call, seat)
            else:
                self.limiter.give_back(seat, None)
        elif not self.limiter.refused(call, seat):
            call.on_error(self.lost())

    def _is_late(self, call: Call) -> bool:
        return self.deadlines.end_if_late(call)

    def _ended(self, call: Call) -> None:
        seat: Seat = call.seat
        if call.is_ahead:
            if not call.ended:
                call.owner = self
                self.limiter.take_back(call, seat)
                return
            self.limiter.leave_ahead(call, seat)
        else:
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
        """Send a call that needs no slot, so that it does not wait behind calls that do."""
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
