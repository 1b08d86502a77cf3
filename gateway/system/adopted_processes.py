"""Adopt orphaned descendants: a process whose parent has ended becomes the gateway's child, and is reaped when it ends.

An orphan adopted by init would look like a command of the operator; as the gateway's child it is recognized while the
gateway lives. Like the first process of a container, the gateway must wait for adopted children. Waiting for any child
would steal the exit status of children that other code waits for, such as the code of plugins. So each child's origin
is checked first. Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
PROC = Path("/proc")
LOOK = 1.0  # seconds between two checks for children that have ended
PATIENCE = 60  # checks after which a child that may be a plugin's is reaped anyway


def adopt() -> None:
    """Make this process adopt all orphaned descendants from now on."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getpid() == 1:  # the kernel ignores signals to process 1 that have no handler
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))


async def take_away() -> None:
    """Reap adopted processes that have ended, forever."""
    adopted = Adopted()
    while sys.platform == "linux":
        await asyncio.sleep(LOOK)
        if _has_ended():
            await asyncio.to_thread(adopted.reap)


def _has_ended() -> bool:
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False


class Adopted:
    """Reap children that have ended and that no other code waits for."""

    def __init__(self) -> None:
        self._looks: dict[tuple[int, str], int] = {}  # how often each ended child was seen, by pid and start time

    def reap(self) -> None:
        """Check once.

        1. a child in our session belongs to the code that started it and is left alone
        2. a child in a session that it does not lead was never started by us, and is reaped at once
        3. a session leader is a worker, a build, or an orphan of one. The event loop waits for its own at once, so
           a leader that has NoNewPrivs, which we lack, is an orphan if a second check still sees it
        4. anything else may be a plugin's, and is reaped after a minute
        """
        ours, are_we_bound = os.getsid(0), _is_bound("self")
        looks = {}
        for pid, begun in _ended():
            with contextlib.suppress(OSError, KeyError):
                session = os.getsid(pid)
                looks[pid, begun] = seen = self._looks.get((pid, begun), 0) + 1
                is_let_go = seen > (1 if _is_bound(str(pid)) and not are_we_bound else PATIENCE)
                if session != ours and (session != pid or is_let_go):
                    os.waitpid(pid, os.WNOHANG)
        self._looks = looks


def _is_bound(process: str) -> bool:
    """Return whether the process has NoNewPrivs, like every worker and build and their descendants."""
    return "\nNoNewPrivs:\t1" in (PROC / process / "status").read_text("utf-8", "replace")


def _ended() -> Iterator[tuple[int, str]]:
    """Yield our children that have ended, with their start times."""
    us = str(os.getpid())
    for pid in _children() or (int(entry) for entry in os.listdir(PROC) if entry.isdigit()):
        with contextlib.suppress(OSError, IndexError):
            # The fields after the name, which may contain anything: state, parent, …; field 22 is the start time.
            stat = (PROC / str(pid) / "stat").read_bytes()
            state, parent, *rest = stat.rpartition(b")")[2].decode().split()
            if state == "Z" and parent == us:
                yield pid, rest[17]


def _children() -> list[int]:
    """Return the pids of all our children; an empty list if the kernel does not list them."""
    found: list[int] = []
    for thread in os.listdir(PROC / "self" / "task"):
        with contextlib.suppress(OSError):
            found += map(int, (PROC / "self" / "task" / thread / "children").read_text().split())
    return found
