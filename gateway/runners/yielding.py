"""Let workers wait for a pause of the gateway while its event loop has none.

On a machine whose cores are all busy, the kernel lets a process that it wakes preempt the one that woke it. A worker
that is woken by each call then preempts the gateway in the middle of its turn, answers this one call, and sleeps again:
both processes pay for a wake-up and an answer of its own for each call, instead of one for many. Under `SCHED_BATCH` a
woken thread preempts nobody, but runs at once on a core that is idle. It applies to the thread of the worker's event
loop, which gets the calls, and only while it helps: a worker beside a gateway that sleeps between calls preempts
whoever computes, so that a light model answers beside a heavy one.
"""

from __future__ import annotations

import contextlib
import os
import resource

LOOK = 1024  # calls between two looks; a look costs about one microsecond
LEAST = 100  # calls between two looks that tell anything
SHARE = 0.25  # pauses a call: a client that waits for each answer makes two, a crowd a fiftieth


class Yielding:
    """The scheduling policy of one worker's event loop. `look` is called on the gateway's event loop."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid if pid is not None and _is_usual(pid) else None
        self._calls = 0
        self._pauses = _pauses()
        self.is_on = False

    def look(self, calls: int) -> None:
        """Decide again. `calls` is the number of calls that were sent to the worker so far."""
        if self._pid is None:
            return
        now = _pauses()
        made, pauses = calls - self._calls, now - self._pauses
        self._calls, self._pauses = calls, now
        is_on = made >= LEAST and pauses < made * SHARE
        if is_on != self.is_on:
            self.is_on = is_on
            with contextlib.suppress(OSError):  # it has ended, or this process may not
                os.sched_setscheduler(self._pid, os.SCHED_BATCH if is_on else os.SCHED_OTHER, os.sched_param(0))


def _pauses() -> int:
    """Return how often this thread has slept so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _is_usual(pid: int) -> bool:
    """Whether a process has the usual policy; another was chosen by the operator, and stays."""
    try:
        return os.sched_getscheduler(pid) == os.SCHED_OTHER
    except OSError:  # it has ended
        return False
