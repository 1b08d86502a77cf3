"""What a model or a build has let go: it becomes the gateway's child, and is told by that as long as the gateway lives.

Otherwise it would be nobody's, and pass for a command of the operator's. Once it has ended it has to be waited for, as
the first process of a container has to wait for all orphans. Waiting for any child would take the ends of others from
whoever asks for them, the code of plugins too: so it is looked whose a child was. Linux only.
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
LOOK = 1.0  # seconds between two looks at the children that have ended
PATIENCE = 60  # looks after which nobody will ask any more for the end of a child that may be a plugin's


def adopt() -> None:
    """From now on, for all that this process starts and what that starts."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getpid() == 1:  # to which the kernel hands no signal that it has no handler for
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))


async def take_away() -> None:
    """Wait for those that have ended, for ever."""
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
    """Takes away what has ended of them: nobody else waits for it."""

    def __init__(self) -> None:
        self._looks: dict[tuple[int, str], int] = {}  # how often each child was there that has ended, by its beginning

    def reap(self) -> None:
        """One look.

        1. a child of our session is of the code that started it  2. one of another session that it did not begin was
        never started by us  3. what led a session is a worker, a build, or was put aside by one: the loop waits for
        its own at once, so what is bound as they are and we are not was let go if it is there at a second look
        4. and whatever else may be a plugin's, after a minute
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
    """Whether it can gain no privileges: so is every worker and build, and what they start."""
    return "\nNoNewPrivs:\t1" in (PROC / process / "status").read_text("utf-8", "replace")


def _ended() -> Iterator[tuple[int, str]]:
    """Our children that have ended, with the times of their beginning."""
    us = str(os.getpid())
    for pid in _children() or (int(entry) for entry in os.listdir(PROC) if entry.isdigit()):
        with contextlib.suppress(OSError, IndexError):
            # After the name, which may hold anything: state, parent, …, and as the 22nd field when it began.
            stat = (PROC / str(pid) / "stat").read_bytes()
            state, parent, *rest = stat.rpartition(b")")[2].decode().split()
            if state == "Z" and parent == us:
                yield pid, rest[17]


def _children() -> list[int]:
    """All of ours; none where the kernel does not list them."""
    found: list[int] = []
    for thread in os.listdir(PROC / "self" / "task"):
        with contextlib.suppress(OSError):
            found += map(int, (PROC / "self" / "task" / thread / "children").read_text().split())
    return found
