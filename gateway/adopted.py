"""What a model or a build has let go: it becomes the gateway's child, and is told by that as long as the gateway lives.

Otherwise it would be nobody's, and pass for a command of the operator's. Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PROC = Path("/proc")


def adopt() -> None:
    """From now on, for all that this process starts and what that starts."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Adopted:
    """Takes away what has ended of them: nobody else waits for it."""

    def __init__(self) -> None:
        self._ended: set[tuple[int, str]] = set()

    def reap(self) -> None:
        """What has been there since the last call: whoever starts a process himself waits for it sooner."""
        ended = set(_ended()) if sys.platform == "linux" else set()
        for pid, _ in ended & self._ended:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._ended = ended


def _ended() -> list[tuple[int, str]]:
    """Our children that have ended, with the times of their beginning."""
    us, found = str(os.getpid()), []
    for entry in os.listdir(PROC):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                # After the name, which may hold anything: state, parent, …, and as the 22nd field when it began.
                state, parent, *rest = (PROC / entry / "stat").read_bytes().rpartition(b")")[2].decode().split()
                if state == "Z" and parent == us:
                    found.append((int(entry), rest[17]))
    return found
