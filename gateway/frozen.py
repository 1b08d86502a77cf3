"""Tell a worker that stands still from one whose code is busy, by what the system says of its process.

stopped   none of it runs, as after SIGSTOP
stuck     it waits for a disk or a device that does not answer
silent    its loop has not turned for `worker_silence`, and it computes nothing: a deadlock, or a call that blocks

Pure but for `observe`. A process that a debugger holds is let alone, and so is what computes: time limits are for that.
"""

from __future__ import annotations

import os
from typing import NamedTuple

SUSPECT = 2.0  # seconds without a heartbeat, of which there is one a second, after which it is looked at
LOOK = 0.5  # seconds between two looks
STOPPED, STUCK = 1.5, 10.0  # seconds in which each look has to find it so: a page may come from a slow disk
BUSY = 0.05  # of a core, in the time from look to look


class Seen(NamedTuple):
    state: str  # the kernel's letter
    cpu: float  # seconds that all its threads have computed


def observe(pid: int) -> Seen | None:
    """None where nothing can be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *rest = file.read().rpartition(b")")[2].split()  # the name before may hold anything
        return Seen(state.decode(), (int(rest[10]) + int(rest[11])) / os.sysconf("SC_CLK_TCK"))
    except (OSError, IndexError, ValueError):
        return None


class Stillness:
    """What the looks at one replica have found since it was heard last."""

    def __init__(self) -> None:
        self._heard = self._looked = 0.0
        self._seen = Seen("", 0.0)
        self._like_this = self._idle = 0.0  # since when it is in this state, and computes nothing

    def look(self, pid: int, heard: float, limit: float, now: float) -> str:
        """Why it will not answer; nothing while it may. `heard` is when it last did, `limit` its `worker_silence`."""
        if now - self._looked < LOOK or (seen := observe(pid)) is None:
            return ""
        before, self._seen = self._seen, seen
        spent = now - self._looked
        is_new = heard != self._heard or spent > 4 * LOOK  # another silence, or nobody looked for a while
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
            return f"its loop has not turned for {limit:g} s, and it computes nothing: {what}"
        return ""
