"""Locate the cache for everything that can be downloaded or built again."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ..errors import ConfigError

ELSEWHERE = "set cache_dir in gateway.toml, or GATEWAY_CACHE_DIR, to a writable directory"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def advice_on(error: BaseException) -> str:
    """Return advice if the cache has no space left; "" for other errors."""
    return f"free some space, or {ELSEWHERE}" if isinstance(error, OSError) and error.errno in _FULL else ""


def cache_dir() -> Path:
    """Return GATEWAY_CACHE_DIR, or our directory in the user's cache. It may not exist yet.

    If other users may write to it, each user has a separate subdirectory: the cache contains code and weights, which
    users must not be able to replace for each other. A read-only directory is used as it is.

    Raises:
        ConfigError: our subdirectory belongs to another user, or there is no home directory.
    """
    given = _given()
    if not _is_shared(given):
        return given
    own = given / f"user-{os.getuid()}"
    if own.exists() and own.stat().st_uid != os.getuid():
        raise ConfigError(f"{own} belongs to another user; remove it, or set another cache_dir")
    return own


def make(directory: Path) -> None:
    """Create a directory in the cache if it does not exist.

    Raises:
        ConfigError: it cannot be created.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be created: {error.strerror}; {ELSEWHERE}") from error


def _given() -> Path:
    if ours := os.environ.get("GATEWAY_CACHE_DIR"):
        return Path(ours).expanduser().absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "model-gateway"
    except RuntimeError as error:  # a user without an entry in /etc/passwd, as in many containers
        raise ConfigError(f"there is no home directory for a cache; {ELSEWHERE}") from error


def _is_shared(place: Path) -> bool:
    try:
        about = place.stat()
    except OSError:
        return False
    by_group = about.st_mode & 0o020 and about.st_gid != os.getgid()
    by_others = about.st_mode & 0o002 or by_group or about.st_uid != os.getuid()
    return bool(by_others) and os.access(place, os.W_OK)


def use(directory: Path | None) -> None:
    """Use `directory` as `cache_dir` in this process and its child processes; None changes nothing."""
    if directory is not None:
        os.environ["GATEWAY_CACHE_DIR"] = str(directory.expanduser().absolute())
