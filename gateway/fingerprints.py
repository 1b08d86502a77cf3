"""What a file is known by: its content, not its name and times, which two files may share.

Reading gigabytes takes a while, so a sum is remembered beside everything else that can be made again. It is looked up
by what no writer can keep: device, inode, size, the time of the last write and that of the last change, which nobody
can set. Only who has mapped it writes again without a new time, so of a file that somebody writes to nothing is known.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import signal
import time
from io import BufferedReader
from pathlib import Path

from . import ordinary
from .cache import cache_dir
from .errors import ConfigError

SUMS = "sums-1"  # in the cache; another number when what is written there, or under which name, means something else

SETTLED = 2.0  # seconds: a write within the clock's tick of the last one would leave all times as they are


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of the file's content, in hexadecimal. Raises `OSError` when it cannot be read."""
    with ordinary.opened(path) as file:
        before = os.fstat(file.fileno())
        memory = None if _is_written_to(file) else _memory(before)
        if known := _remembered(memory):
            return known
        found = hashlib.file_digest(file, "sha256").hexdigest()
        after = os.fstat(file.fileno())
    if _key(after) == _key(before) and time.time() - after.st_ctime > SETTLED:
        _remember(memory, found)
    return found


def _is_written_to(file: BufferedReader) -> bool:
    """Whether somebody may write to it now, as far as the system says: then it grants no lease, which we do not keep.

    Who opens it in between has a signal sent to us: one that ends no process, unlike that of leases.
    """
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:  # another user's file, too, or a place without leases
        return error.errno == errno.EAGAIN
    return False


def _memory(stat: os.stat_result) -> Path | None:
    """Where the sum of such a file is kept; None where there is no cache."""
    try:
        return cache_dir() / SUMS / _key(stat)
    except ConfigError:
        return None


def _key(stat: os.stat_result) -> str:
    what = f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    return hashlib.sha256(what.encode()).hexdigest()[:32]


def _remembered(memory: Path | None) -> str | None:
    """A power cut or a full disk leaves an empty file, in whose name two contents would be one."""
    if memory is None:
        return None
    try:
        found = ordinary.content(memory).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return found if re.fullmatch("[0-9a-f]{64}", found) else None


def _remember(memory: Path | None, found: str) -> None:
    """In one step. A cache that cannot be written to costs the next reader time and nothing else."""
    if memory is None:
        return
    part = memory.with_name(f"{memory.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(found, "ascii")
            part.replace(memory)
        except OSError:
            part.unlink()
