"""Keep what is in a process's memory to itself: the gateway's holds keys, a worker's weights and prompts."""

from __future__ import annotations

import ctypes
import resource
import sys

PR_SET_DUMPABLE = 4


def leave_no_core() -> None:
    """A crash writes no memory to disk, here and in what is started from here."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def hide() -> None:
    """Other processes of this user cannot read our memory, nor trace us. It closes files of /proc to us, too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
