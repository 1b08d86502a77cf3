"""Protect the memory of a process: the gateway's contains keys, a worker's contains weights and prompts."""

from __future__ import annotations

import ctypes
import resource
import sys

PR_SET_DUMPABLE = 4


def leave_no_core() -> None:
    """Disable core dumps for this process and its children."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def hide() -> None:
    """Prevent other processes of this user from reading or tracing ours.

    Some files in /proc become unreadable for us too.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
