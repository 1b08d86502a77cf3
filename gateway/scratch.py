"""Temporary directories of workers, and how those that a killed gateway left behind are found.

Each is locked as long as its gateway lives: the system lets go of the lock whichever way it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

from .clearing import DIRECTORY, clear_away, clear_beside
from .errors import ConfigError

PREFIX = "gateway-replica-"


def root() -> Path:
    """Where temporary files are, as Python finds it: TMPDIR, /tmp and so on.

    Raises:
        ConfigError: nothing of that can be written to.
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
    """One of them, which nobody else may remove while this process is there."""

    def __init__(self) -> None:
        place = root()
        while True:
            self.path = tempfile.mkdtemp(prefix=PREFIX, dir=place)
            with contextlib.suppress(FileNotFoundError, BlockingIOError):
                self._lock = _locked(self.path)
                if os.path.exists(self.path):
                    return
                os.close(self._lock)
            # A gateway that begins at this moment has taken it for a left one, before it was locked.

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    def give_up(self) -> None:
        """Have it removed with all that is in it. Nobody waits for that; what is left when we end, others find."""
        clear_beside(self.path, lambda: os.close(self._lock))


def clear_leftovers() -> None:
    """Remove those of gateways that are gone. What cannot be removed stays."""
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
    """Raises `BlockingIOError` when a gateway has it."""
    descriptor = os.open(path, DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
