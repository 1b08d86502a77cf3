"""The time limits of one model's calls: who waited too long, who got no answer in time, whose code does not stop.

One timer for all of them while there are any, none a request: it looks ten times a second, and when the next of their
deadlines is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from .call import CLIENTS, NEVER, Call, Patience
from .errors import GatewayError, QueueTimeout, Timeout
from .frozen import SUSPECT, Stillness
from .limiter import Limiter
from .replica import Replica

SWEEP = 0.1  # seconds between two looks
LATE = 0.005  # seconds; how late a deadline may be noticed, so that many are looked at together
SILENT = 15.0  # seconds without a heartbeat: such a worker hears no cancel, and is given no grace
STOPPED = 1.0  # seconds that a sweep may be late; beyond that this process itself stood still


class Deadlines:
    """`kill` is asked to end a replica on which cancelled code runs on beyond all limits, or that stands still."""

    def __init__(
        self,
        name: str,
        limiter: Limiter,
        replicas: Callable[[], Iterable[Replica]],
        kill: Callable[[Replica, str, str], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._name, self._limiter, self._replicas, self._kill, self._loop = name, limiter, replicas, kill, loop
        self.watching = False  # there is a timer
        self.due = 0.0  # when it looks next
        self._timer: asyncio.TimerHandle | None = None
        self._woke = 0.0  # when this process last went on after it had stood still
        self._still: dict[int, Stillness] = {}  # of replicas that are not heard

    def watch(self, deadline: float = NEVER) -> None:
        """There is a call, whose time may be over then: look after it until none is left."""
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
        if now > self.due + STOPPED:  # what the workers sent meanwhile is heard first
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
            for call in replica.calls():
                has_calls = True
                if call.cancelled_at == NEVER:
                    if call.deadline < now:
                        call.abandon(self._timeout(call, now))
                    elif call.deadline < soonest:
                        soonest = call.deadline
                elif call.overdue < now:
                    since = now - call.cancelled_at
                    self._kill(
                        replica,
                        f"a call that was cancelled {since:.0f} s ago, beyond its time limit, runs on",
                        "cancel",
                    )
                    break
                elif silence > SILENT and call.overdue - call.limits.cancel_grace < now:
                    self._kill(
                        replica, f"it was silent for {silence:.0f} s, and a call is beyond its time limit", "cancel"
                    )
                    break
        if has_calls:
            self.watch(soonest)
        elif self._still and not self.watching:
            self._still.clear()

    def _stands_still(self, replica: Replica, heard: float, now: float) -> bool:
        """Look whether one that is not heard will answer at all; if not, its callers are told, and it is ended."""
        calls = tuple(replica.calls())
        if not calls or replica.pid is None:
            return False
        still = self._still.setdefault(id(replica), Stillness())
        reason = still.look(replica.pid, heard, calls[0].limits.worker_silence, now)
        if not reason:
            return False
        del self._still[id(replica)]
        for call in calls:
            call.abandon(Timeout(f"model '{self._name}' stands still: {reason}", cause="frozen"))
        self._kill(replica, f"it stands still: {reason}", "frozen")
        return True

    def end_if_late(self, call: Call) -> bool:
        """Whether the time of a call that waits is over, though no sweep has seen it yet; it has been ended then."""
        now = self._loop.time()
        if now <= call.deadline or (now <= call.until and now > self.due + STOPPED):
            return False
        call.abandon(self._never_began(call, now))
        return True

    def too_late(self, waited: float, cause: str) -> QueueTimeout:
        """Why a call never began, `waited` seconds after it had come; `cause` is the limit, for operators."""
        text = f"waited {waited:.1f} s for a slot of model '{self._name}'"
        return QueueTimeout(text, retry_after=self._limiter.retry_after(), cause=cause)

    def _never_began(self, call: Call, now: float) -> QueueTimeout:
        cause = CLIENTS if call.until < now else "queue_timeout"
        return self.too_late(now - call.arrived, cause)

    def _timeout(self, call: Call, now: float) -> GatewayError:
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
            return Timeout(f"model '{self._name}' sent nothing of its stream in time", cause=cause)
        cause = "first_item_timeout" if call.req.stream else "request_timeout"
        return Timeout(f"model '{self._name}' did not answer within {getattr(call.limits, cause):g} s", cause=cause)
