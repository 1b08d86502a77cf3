"""Temporary directories of workers, and the removal of those that a killed gateway left behind.

Each is locked while its gateway lives: the kernel releases the lock however the process ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

from ..errors import ConfigError
from .clearing import DIRECTORY, clear_away, clear_beside

PREFIX = "gateway-replica-"


def root() -> Path:
    """Return the directory for temporary files as Python finds it: TMPDIR, /tmp and so on.

    Raises:
        ConfigError: none of them is writable.
    """
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        tried = str(error).rpartition("[")[2].rstrip("]").replace("'", "")
        raise ConfigError(
            f"there is no directory for temporary files, which every worker needs: none of {tried} can be written to; "
            "mount one at /tmp (a tmpfs, or an emptyDir), or set TMPDIR to one on a volume"
        ) from error


class Scratch:
    """A temporary directory that no other gateway removes while this process lives."""

    def __init__(self) -> None:
        place = root()
        while True:
            self.path = tempfile.mkdtemp(prefix=PREFIX, dir=place)
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                self._lock = _locked(self.path)
                if os.path.exists(self.path):
                    return
                os.close(self._lock)
            # A gateway that is just starting has removed it as a leftover before it was locked.

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    def give_up(self) -> None:
        """Remove it and its content in the background. If the process ends first, another gateway removes the rest."""
        clear_beside(self.path, lambda: os.close(self._lock))


def clear_leftovers() -> None:
    """Remove the directories of gateways that have ended, as far as possible."""
    with contextlib.suppress(OSError, ConfigError):
        for path in root().glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                if path.lstat().st_uid != os.getuid():
                    continue
                lock = _locked(path)
                try:
                    clear_away(path, gently=True)
                finally:
                    os.close(lock)


def _locked(path: Path | str) -> int:
    """Open and lock a directory. Raises `BlockingIOError` if a gateway holds the lock."""
    descriptor = os.open(path, DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
