"""Tell a frozen worker from a busy one by what the kernel reports about its process.

stopped   the whole process is stopped, as after SIGSTOP
stuck     it waits for a disk or a device that does not answer
silent    its loop has not run for `worker_silence`, and it uses no CPU: a deadlock, or a blocking call

Pure, except `observe`. A process that is traced by a debugger is left alone, and so is one that uses CPU: time limits
handle those.
"""

from __future__ import annotations

import os
from typing import NamedTuple

SUSPECT = 2.0  # seconds without a heartbeat (one a second) after which the process is checked
LOOK = 0.5  # seconds between two checks
STOPPED, STUCK = 1.5, 10.0  # seconds for which every check must agree: a page may come from a slow disk
BUSY = 0.05  # share of a core between two checks


class Seen(NamedTuple):
    state: str  # the kernel's letter
    cpu: float  # CPU seconds of all its threads


def observe(pid: int) -> Seen | None:
    """Return the state of a process, or None if it cannot be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *rest = file.read().rpartition(b")")[2].split()  # the name may contain anything
        return Seen(state.decode(), (int(rest[10]) + int(rest[11])) / os.sysconf("SC_CLK_TCK"))
    except (OSError, IndexError, ValueError):
        return None


class Stillness:
    """The results of the checks of one replica since its last heartbeat."""

    def __init__(self) -> None:
        self._heard = self._looked = 0.0
        self._seen = Seen("", 0.0)
        self._like_this = self._idle = 0.0  # since when it is in this state; since when it uses no CPU

    def look(self, pid: int, heard: float, limit: float, now: float) -> str:
        """Return why the worker will not answer, or "" while it may.

        `heard` is the time of its last heartbeat, `limit` its `worker_silence`.
        """
        if now - self._looked < LOOK or (seen := observe(pid)) is None:
            return ""
        before, self._seen = self._seen, seen
        spent = now - self._looked
        is_new = heard != self._heard or spent > 4 * LOOK  # a new silence, or no check for a while
        if is_new or seen.cpu - before.cpu > BUSY * spent:
            self._like_this = self._idle = now
        elif seen.state != before.state:
            self._like_this = now
        self._heard, self._looked = heard, now
        if seen.state == "T" and now - self._like_this >= STOPPED:
            return "its process is stopped, as by SIGSTOP"
        if seen.state == "D" and now - self._like_this >= STUCK:
            return "its process waits for a disk or a device that does not answer"
        if now - self._idle >= limit:
            what = "a deadlock, or an async method that blocks its loop"
            return f"its loop has not run for {limit:g} s, and it uses no CPU: {what}"
        return ""
