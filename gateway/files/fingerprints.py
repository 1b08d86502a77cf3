"""Identify files by their content, not by name and time, which two files may share.

Hashing gigabytes takes time, so checksums are stored in the cache. The lookup key is what a write always changes:
device, inode, size, modification time and change time, which no program can set. Only a process that has mapped the
file can write without changing the times, so nothing is stored for a file that is open for writing.
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

from ..errors import ConfigError
from . import ordinary
from .cache import cache_dir

SUMS = "sums-1"  # in the cache; use another number when the stored format or the key changes

SETTLED = 2.0  # seconds: a write within one clock tick of the last one would not change the times


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of the file's content, in hexadecimal. Raises `OSError` if it cannot be read."""
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
    """Return whether another process may be writing to the file: then the kernel refuses a lease. The lease is released
    at once.

    A process that opens the file meanwhile causes a signal to us: SIGURG, which is ignored by default.
    """
    try:
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:  # another user's file, or a file system without leases
        return error.errno == errno.EAGAIN
    return False


def _memory(stat: os.stat_result) -> Path | None:
    """Return where the checksum of a file is stored; None if there is no cache."""
    try:
        return cache_dir() / SUMS / _key(stat)
    except ConfigError:
        return None


def _key(stat: os.stat_result) -> str:
    what = f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    return hashlib.sha256(what.encode()).hexdigest()[:32]


def _remembered(memory: Path | None) -> str | None:
    """Return a stored checksum. After a power failure or on a full disk, the file may be empty or truncated."""
    if memory is None:
        return None
    try:
        found = ordinary.content(memory).decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return found if re.fullmatch("[0-9a-f]{64}", found) else None


def _remember(memory: Path | None, found: str) -> None:
    """Store a checksum atomically. If the cache is not writable, only time is lost at the next read."""
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
