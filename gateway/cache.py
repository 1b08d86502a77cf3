"""Where everything that can be fetched or made again is kept."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from .errors import ConfigError

ELSEWHERE = "set cache_dir in gateway.toml, or GATEWAY_CACHE_DIR, to a directory that can be written to"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def advice_on(error: BaseException) -> str:
    """What to do when something could not be written here for want of room; nothing for other errors."""
    return f"make room for it, or {ELSEWHERE}" if isinstance(error, OSError) and error.errno in _FULL else ""


def cache_dir() -> Path:
    """GATEWAY_CACHE_DIR, or a directory of ours in the user's cache; not made yet.

    In one that other users of the machine may write to, each has a directory of its own: what is kept here is code and
    weights, and nobody's may stand for somebody else's. One that can only be read was filled for us.

    Raises:
        ConfigError: our directory in it belongs to another user, or there is no place for one.
    """
    given = _given()
    if not _is_shared(given):
        return given
    own = given / f"user-{os.getuid()}"
    if own.exists() and own.stat().st_uid != os.getuid():
        raise ConfigError(f"{own} belongs to another user; remove it, or set another cache_dir")
    return own


def make(directory: Path) -> None:
    """See that a directory in the cache is there.

    Raises:
        ConfigError: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be made: {error.strerror}; {ELSEWHERE}") from error


def _given() -> Path:
    if ours := os.environ.get("GATEWAY_CACHE_DIR"):
        return Path(ours).expanduser().absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "model-gateway"
    except RuntimeError as error:  # a user whom no file of users knows, as in many a container
        raise ConfigError(f"there is no home directory to keep a cache in; {ELSEWHERE}") from error


def _is_shared(place: Path) -> bool:
    try:
        about = place.stat()
    except OSError:
        return False
    by_group = about.st_mode & 0o020 and about.st_gid != os.getgid()
    by_others = about.st_mode & 0o002 or by_group or about.st_uid != os.getuid()
    return bool(by_others) and os.access(place, os.W_OK)


def use(directory: Path | None) -> None:
    """Make it the `cache_dir` of this process and of those that it starts; None leaves it as it is."""
    if directory is not None:
        os.environ["GATEWAY_CACHE_DIR"] = str(directory.expanduser().absolute())
