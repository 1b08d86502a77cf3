"""Protect the memory of a process: the gateway's contains keys, a worker's contains weights and prompts."""

from __future__ import annotations

import ctypes
import resource
import sys

PR_SET_DUMPABLE = 4
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT = 16 << 20  # bytes, for each of the C library's arenas, of which many threads share a few


def leave_no_core() -> None:
    """Disable core dumps for this process and its children."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def hide() -> None:
    """Prevent other processes of this user from reading or tracing ours.

    Some files in /proc become unreadable for us too.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def keep_freed() -> None:
    """Let the C library keep some freed memory for the next large body, instead of a mapping of its own for each.

    The system clears each page of a new mapping when it is first written, which takes longer than to copy a body there.
    Does nothing where the C library is not glibc.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if sys.platform == "linux" and tune is not None:
        tune(M_MMAP_THRESHOLD, KEPT // 2)
        tune(M_TRIM_THRESHOLD, KEPT)
