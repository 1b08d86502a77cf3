"""Remove a directory filled by untrusted code: it may be nested very deeply, contain links, or have very many files.

Processes of that code may still be running, so no path is followed that they could redirect. Removal may take long, so
it can run in the background, at a pace that leaves resources to others.
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
TURN, REST = 100, 0.01  # entries removed in the background before a pause, and its length in seconds
LAST = 1.0  # seconds that the process waits for removals at its end; the rest stays on disk
GONE = ".gone"  # suffix of a directory that was renamed to be removed

_running: dict[str, threading.Thread] = {}
_resting = threading.Lock()  # shared, so that all background removals have one pace together
_ending = threading.Event()  # set at exit: no more pauses


def clear_away(directory: Path | str, *, within: int | None = None, gently: bool = False) -> None:
    """Remove a directory as far as permissions allow, without raising errors. Links are removed but not followed.

    `within` is a file descriptor of its parent directory. `gently` makes pauses, see `TURN`.
    """
    step = _Pace() if gently else _go_on
    with contextlib.suppress(OSError):
        top = os.open(directory, DIRECTORY, dir_fd=within)
        try:
            while _empty(top, step):  # again, for directories that were moved up
                pass
        finally:
            os.close(top)
        os.rmdir(directory, dir_fd=within)


def clear_beside(directory: Path | str, then: Callable[[], None] = lambda: None) -> None:
    """Remove a directory in a background thread, gently. `then` is called afterwards."""
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
    except RuntimeError:  # no more threads: it is removed by a later cleanup
        del _running[name]
        then()


def put_away(directory: Path) -> None:
    """Free the directory's name at once by renaming it; the content is removed in the background."""
    aside = directory.with_name(f"{directory.name}.{secrets.token_hex(4)}{GONE}")
    with contextlib.suppress(OSError):
        directory.rename(aside)
        clear_beside(aside)


def clear_put_away(place: Path) -> None:
    """Remove directories that a process had put away before it ended."""
    for left in place.glob(f"*{GONE}"):
        clear_beside(left)


def wait(patience: float) -> bool:
    """Wait for all background removals, at most `patience` seconds; return whether all have finished."""
    deadline = time.monotonic() + patience
    for thread in tuple(_running.values()):
        thread.join(max(0.0, deadline - time.monotonic()))
    return not _running


@atexit.register
def _end() -> None:
    _ending.set()
    wait(LAST)


class _Pace:
    """Counts removed entries and pauses regularly."""

    def __init__(self) -> None:
        self._left = TURN

    def __call__(self) -> None:
        self._left -= 1
        if not self._left:
            self._left = TURN
            with _resting:
                _ending.wait(REST)


def _go_on() -> None:
    """No pause."""


def _empty(top: int, step: Callable[[], None]) -> bool:
    """Remove entries, and move directories of the second level up, so that depth never grows. False if nothing changed.

    Only one entry at a time is held in memory: there may be too many to list.
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
    """Remove the files of a directory in `top`, and move its directories to `top`; return whether there was one."""
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
