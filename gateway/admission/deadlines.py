"""Time limits of one model's calls and internal questions: for the queue, for answers, and for cancelled code.

One timer serves all of them while there are any, instead of one for each request. It fires ten times a second, and when
the next deadline has passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from ..errors import GatewayError, QueueTimeout, Timeout
from ..runners.call import CLIENTS, Call, Patience
from ..runners.pending import NEVER, Pending
from ..runners.replica import Replica
from ..system.frozen_workers import SUSPECT, Stillness
from .queue import Limiter

SWEEP = 0.1  # seconds between two sweeps
LATE = 0.005  # seconds; how late a deadline may be noticed, so that several are handled together
SILENT = 15.0  # seconds without a heartbeat: such a worker cannot receive a cancel, and gets no grace period
STOPPED = 1.0  # seconds; if a sweep is later than that, this process itself was stopped


class Deadlines:
    """`kill` ends a replica whose cancelled code keeps running beyond all limits, or that is frozen."""

    def __init__(
        self,
        name: str,
        limiter: Limiter,
        replicas: Callable[[], Iterable[Replica]],
        kill: Callable[[Replica, str, str], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._name, self._limiter, self._replicas, self._kill, self._loop = name, limiter, replicas, kill, loop
        self.watching = False  # a timer is set
        self.due = 0.0  # time of the next sweep
        self._timer: asyncio.TimerHandle | None = None
        self._woke = 0.0  # when this process last resumed after it was stopped
        self._still: dict[int, Stillness] = {}  # for replicas without heartbeats

    def watch(self, deadline: float = NEVER) -> None:
        """Start the timer for a call with this deadline. It runs until no call is left."""
        now = self._loop.time()
        due = now + SWEEP if not self.watching else self.due
        if deadline < due:
            due = max(deadline, now) + LATE
        if self.watching and due >= self.due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self.watching, self.due = True, due
        self._timer = self._loop.call_at(due, self._sweep)

    def _sweep(self) -> None:
        now = self._loop.time()
        self.watching = False
        if now > self.due + STOPPED:  # first handle what the workers sent meanwhile
            self._woke = now
            self.watch()
            return
        has_calls, soonest = False, NEVER
        for call in self._limiter.waiting():
            has_calls = True
            if call.deadline < now:
                call.abandon(self._never_began(call, now))
            elif call.deadline < soonest:
                soonest = call.deadline
        for replica in tuple(self._replicas()):
            heard = max(replica.last_ping, self._woke)
            silence = now - heard
            if silence > SUSPECT and self._stands_still(replica, heard, now):
                continue
            for pending in replica.pending():
                has_calls = True
                if isinstance(pending, Call) and pending.is_ahead and pending.deadline < now:
                    pending.abandon(self._never_began(pending, now))
                elif pending.cancelled_at == NEVER:
                    if pending.deadline < now:
                        pending.abandon(self._timeout(pending, now))
                    elif pending.deadline < soonest:
                        soonest = pending.deadline
                elif pending.is_ahead:
                    pass  # none of its code runs
                elif (until := pending.may_run_until) < now:
                    since = now - pending.cancelled_at
                    self._kill(
                        replica,
                        f"a call that was cancelled {since:.0f} s ago, beyond its time limit, is still running",
                        "cancel",
                    )
                    break
                elif silence > SILENT and until - pending.limits.cancel_grace < now:
                    self._kill(
                        replica, f"it was silent for {silence:.0f} s, and a call is beyond its time limit", "cancel"
                    )
                    break
        self._limiter.spread(now)
        if has_calls:
            self.watch(soonest)
        elif self._still and not self.watching:
            self._still.clear()

    def _stands_still(self, replica: Replica, heard: float, now: float) -> bool:
        """Check whether a silent replica is frozen. If so, end its calls and kill it. Return whether it was."""
        pending = tuple(replica.pending())
        if not pending or replica.pid is None:
            return False
        still = self._still.setdefault(id(replica), Stillness())
        reason = still.look(replica.pid, heard, pending[0].limits.worker_silence, now)
        if not reason:
            return False
        del self._still[id(replica)]
        for each in pending:
            if not each.is_ahead:  # otherwise it is given back when the replica is lost
                each.abandon(Timeout(f"model '{self._name}' stands still: {reason}", cause="frozen"))
        self._kill(replica, f"it stands still: {reason}", "frozen")
        return True

    def end_if_late(self, call: Call) -> bool:
        """End a waiting call whose deadline has passed before a sweep noticed it. Return whether it was ended."""
        now = self._loop.time()
        if now <= call.deadline or (now <= call.until and now > self.due + STOPPED):
            return False
        call.abandon(self._never_began(call, now))
        return True

    def too_late(self, waited: float, cause: str) -> QueueTimeout:
        """Return the error of a call that never began in `waited` seconds. `cause` names the limit, for operators."""
        text = f"waited {waited:.1f} s for a slot of model '{self._name}'"
        return QueueTimeout(text, retry_after=self._limiter.retry_after(), cause=cause)

    def _never_began(self, call: Call, now: float) -> QueueTimeout:
        cause = CLIENTS if call.until < now else "queue_timeout"
        return self.too_late(now - call.arrived, cause)

    def _timeout(self, pending: Pending, now: float) -> GatewayError:
        if not isinstance(pending, Call):
            return self._no_answer(pending, "request_timeout")
        call = pending
        if call.until < now:
            if call.waits_since != NEVER:
                return self.too_late(call.waited, CLIENTS)
            left = call.patience
            given = left.given if isinstance(left, Patience) else left
            text = f"model '{self._name}' was not done within the {given:g} s that the request gave it"
            return Timeout(text, cause=CLIENTS)
        if call.head is not None and call.bound < now:
            limit = f"{call.limits.request_timeout:g} s; a longer one can be streamed"
            return Timeout(f"model '{self._name}' did not finish its answer within {limit}", cause="request_timeout")
        if call.head is not None:
            cause = "gap_timeout" if call.taken else "first_item_timeout"
            return Timeout(f"model '{self._name}' sent no item of its stream in time", cause=cause)
        return self._no_answer(call, "first_item_timeout" if call.req.stream else "request_timeout")

    def _no_answer(self, pending: Pending, limit: str) -> Timeout:
        text = f"model '{self._name}' did not answer within {getattr(pending.limits, limit):g} s"
        return Timeout(text, cause=limit)
