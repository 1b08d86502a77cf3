"""Locks between processes, for which nobody waits without end.

A lock (`flock`) belongs to whoever may open its file, and goes when its holder ends. A model can hold one for as long
as it lives. So each wait has an end, and an error that names the lock and its holder; and lock files of ours may be
written and not read, which a `strict` model cannot open: it reads what we may read, and writes to none of our files.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import ConfigError
from ..telemetry.printable import one_line

MODE = 0o200  # its owner writes; nobody reads
LOOK_AGAIN = 0.05  # seconds between two tries
TOLD = 2.0  # seconds without the lock after which the wait is told
WORK = 3600.0  # seconds for what others do under a lock: to download, convert or build something large


@contextmanager
def locked(
    path: Path, patience: float = WORK, tell: Callable[[str], None] = lambda text: None, *, why: str = ""
) -> Iterator[None]:
    """Hold the lock file at `path` in the block. `tell` hears what is waited for when that takes a while.

    Raises:
        ConfigError: somebody holds it for longer than `patience`; `why` is what cannot be done then.
        OSError: the file cannot be made.
    """
    descriptor = opened(path)
    try:
        take(descriptor, path, patience, tell, why=why)
        yield
    finally:
        os.close(descriptor)


def opened(path: Path) -> int:
    """Return an open lock file, made now if it is not there."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
    with suppress(OSError):  # one from before, or of another user
        os.fchmod(descriptor, MODE)
    return descriptor


def take(
    descriptor: int,
    path: Path,
    patience: float = WORK,
    tell: Callable[[str], None] = lambda text: None,
    *,
    why: str = "",
    given_up: threading.Event | None = None,
) -> None:
    """Take the lock of an open file or directory; a file system without locks, or who has `given_up`, goes without.

    Raises:
        ConfigError: see `locked`.
    """
    begun, is_told = time.monotonic(), False
    while given_up is None or not given_up.is_set():
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            waited = time.monotonic() - begun
        except OSError:
            return
        if waited >= patience:
            what, holder = f"{why}: " if why else "", _holder(descriptor)
            raise ConfigError(
                f"{what}{one_line(str(path))} has been locked by {holder} for more than {patience:g} s; end that"
                " process, or try again later"
            )
        if waited >= TOLD and not is_told:
            is_told = True
            tell(f"waiting for {one_line(str(path))}, which is locked by {_holder(descriptor)}")
        time.sleep(LOOK_AGAIN)


def _holder(descriptor: int) -> str:
    """Return who holds the lock, as far as the system tells: `process 123 (python)`."""
    what = os.fstat(descriptor)
    file = f"{os.major(what.st_dev):02x}:{os.minor(what.st_dev):02x}:{what.st_ino}"
    with suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == file and int(fields[4]) > 0:
                with suppress(OSError, ValueError):
                    return f"process {fields[4]} ({one_line(Path(f'/proc/{fields[4]}/comm').read_text().strip())})"
                return f"process {fields[4]}"
    return "another process"
