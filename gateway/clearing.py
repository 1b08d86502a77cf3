"""Remove a directory that code of others has filled: deeper than anybody recurses, with links, with very much in it.

Processes of that code may be there still, so nothing is reached by a path that they could turn elsewhere. How long it
takes is up to that code: who has others waiting has it done beside, at a pace that leaves the machine to them.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
TURN, REST = 100, 0.01  # entries that are removed beside others before the next rest, and its seconds
LAST = 1.0  # seconds that the end of the process waits for what is being removed; the rest stays
GONE = ".gone"  # the end of a name that was freed

_running: dict[str, threading.Thread] = {}
_resting = threading.Lock()  # so that all that are beside have one pace together
_ending = threading.Event()  # nobody rests any more


def clear_away(directory: Path | str, *, gently: bool = False) -> None:
    """As far as our rights go, and without an error. Links are removed, and not what they lead to.

    `gently` is for who has time: see `TURN`.
    """
    step = _Pace() if gently else _go_on
    with contextlib.suppress(OSError):
        top = os.open(directory, DIRECTORY)
        try:
            while _empty(top, step):  # again, for what it has moved up meanwhile
                pass
        finally:
            os.close(top)
        os.rmdir(directory)


def clear_beside(directory: Path | str, then: Callable[[], None] = lambda: None) -> None:
    """Clear it away on a thread of its own, gently; nobody waits for that. `then` comes after it."""
    name = os.fspath(directory)
    if name in _running:
        return

    def run() -> None:
        try:
            clear_away(name, gently=True)
        finally:
            then()
            del _running[name]

    _running[name] = thread = threading.Thread(target=run, name="clearing", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # there are no more threads: it is left to whoever looks for what is left
        del _running[name]
        then()


def put_away(directory: Path) -> None:
    """Free its name at once; what was there is cleared beside."""
    aside = directory.with_name(f"{directory.name}.{secrets.token_hex(4)}{GONE}")
    with contextlib.suppress(OSError):
        directory.rename(aside)
        clear_beside(aside)


def clear_put_away(place: Path) -> None:
    """What a process that has ended since did not come to the end of."""
    for left in place.glob(f"*{GONE}"):
        clear_beside(left)


def wait(patience: float) -> bool:
    """Whether all that is cleared beside is gone, after so many seconds at most."""
    deadline = time.monotonic() + patience
    for thread in tuple(_running.values()):
        thread.join(max(0.0, deadline - time.monotonic()))
    return not _running


@atexit.register
def _end() -> None:
    _ending.set()
    wait(LAST)


class _Pace:
    """Called for each entry."""

    def __init__(self) -> None:
        self._left = TURN

    def __call__(self) -> None:
        self._left -= 1
        if not self._left:
            self._left = TURN
            with _resting:
                _ending.wait(REST)


def _go_on() -> None:
    """Without a rest."""


def _empty(top: int, step: Callable[[], None]) -> bool:
    """Remove what is found, and move up what is two deep, so that nothing is ever deeper. False when nothing went.

    No more than an entry at a time is known of: there may be more of them than memory for their names.
    """
    has_gone = False
    with os.scandir(top) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    has_gone |= _flatten(entry.name, top, step)
                    os.rmdir(entry.name, dir_fd=top)
                else:
                    os.unlink(entry.name, dir_fd=top)
                has_gone = True
            step()
    return has_gone


def _flatten(name: str, top: int, step: Callable[[], None]) -> bool:
    """Remove the files of a directory in `top`, and move its directories there; whether there was one."""
    has_moved = False
    place = os.open(name, DIRECTORY, dir_fd=top)
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        os.rename(entry.name, secrets.token_hex(8), src_dir_fd=place, dst_dir_fd=top)
                        has_moved = True
                    else:
                        os.unlink(entry.name, dir_fd=place)
                step()
    finally:
        os.close(place)
    return has_moved
