"""Remove a directory that code of others has filled: it may be deeper than anybody recurses, and hold links.

Processes of that code may be there still, so nothing is reached by a path that they could turn elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def clear_away(directory: Path | str) -> None:
    """As far as our rights go, and without an error. Links are removed, and not what they lead to."""
    with contextlib.suppress(OSError):
        top = os.open(directory, DIRECTORY)
        try:
            _empty(top)
        finally:
            os.close(top)
        os.rmdir(directory)


def _empty(top: int) -> None:
    """What is found below is moved up first, so that nothing is ever deeper than one."""
    waiting = _flatten(top, top)
    while waiting:
        name = waiting.pop()
        with contextlib.suppress(OSError):
            inner = os.open(name, DIRECTORY, dir_fd=top)
            try:
                waiting += _flatten(inner, top)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)


def _flatten(place: int, top: int) -> list[str]:
    """Remove the files of a directory and move its directories to `top`; their new names."""
    moved = []
    with os.scandir(place) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        with contextlib.suppress(OSError):
            if is_directory:
                new = secrets.token_hex(8)
                os.rename(name, new, src_dir_fd=place, dst_dir_fd=top)
                moved.append(new)
            else:
                os.unlink(name, dir_fd=place)
    return moved
