"""API keys: a file of hashes, and who a request's key belongs to.

A key is `gw_<id>_<43 characters>`, 256 random bits, shown once. The file keeps its SHA-256: such keys need no slow
hash. It is refused when others than its owner may read it. Every look-up compares with every entry, in constant time.
"""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import hmac
import os
import re
import secrets
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from . import ordinary
from .callers import SCOPES, Caller
from .errors import ConfigError
from .printable import one_line, quoted

_FIELDS = ("name", "sha256", "scopes", "models", "rpm", "max_inflight", "expires", "created", "follows")
_DIGEST = re.compile(r"[0-9a-f]{64}").fullmatch
_ID = re.compile(r"[0-9a-z]{1,16}").fullmatch
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+ -]{0,63}").fullmatch  # in a log or a metric nobody takes it for more
_RESERVED = ("other",)  # what metrics call the keys beyond those that they count by name
_LIMITS = ("name", "scopes", "models", "rpm", "max_inflight", "expires")  # what a change of a key is told by
ENV = "env"  # the id of the one key that is in no file


@dataclass(frozen=True, slots=True)
class Key(Caller):
    """Whoever has the key. Two keys of one name are two callers."""

    _: KW_ONLY
    id: str
    digest: str  # hexadecimal SHA-256 of the key
    created: datetime.datetime | None = None
    follows: str | None = None  # the id of the first key that it came in the place of, whose things are its own

    @property
    def owner(self) -> str:
        return f"key:{self.follows or self.id}"


def digest_of(given: bytes) -> str:
    return hashlib.sha256(given).hexdigest()


def find(keys: Iterable[Key], given: bytes) -> Key | None:
    """Whose key it is. Takes as long for a wrong one as for a good one."""
    digest, found = digest_of(given), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def create(name: str, among: Iterable[Key] = (), **limits: Any) -> tuple[Key, str]:
    """A new key, and the text that is shown once. `among` are those that there are.

    Raises:
        ConfigError: it cannot have that name.
    """
    if taken := [key.id for key in among if key.name == name]:
        raise ConfigError(
            f"there is a key {quoted(name)} ({', '.join(taken)}), and no log or metric would tell the two apart: choose"
            " another name, or put a new key in its place with `gateway keys rotate`"
        )
    if not _NAME(name) or name in _RESERVED:
        form = "1 to 64 letters, digits, '_', and behind the first '.', '-', '@', '+' and blanks"
        raise ConfigError(f"{quoted(name)} is no name for a key: {form}; and not {', '.join(_RESERVED)}")
    return _made(name, **limits)


def successor(old: Key) -> tuple[Key, str]:
    """A key that may do what the old one may, has its name and its things, and the text that is shown once."""
    limits = {name: getattr(old, name) for name in ("scopes", "models", "rpm", "max_inflight", "expires")}
    return _made(old.name, follows=old.follows or old.id, **limits)


def _made(name: str, **limits: Any) -> tuple[Key, str]:
    identity = secrets.token_hex(4)
    text = f"gw_{identity}_{secrets.token_urlsafe(32)}"
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return Key(id=identity, name=name, digest=digest_of(text.encode()), created=now, **limits), text


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def read(file: Path) -> tuple[Key, ...]:
    """The keys of a file; none when it is not there.

    Raises:
        ConfigError: others may read it, or it is no key file; a line for everything wrong.
    """
    try:
        with ordinary.opened(file) as opened:
            mode = os.fstat(opened.fileno()).st_mode
            text = ordinary.rest(opened).decode("utf-8-sig")
    except FileNotFoundError:
        if file.is_symlink():
            raise ConfigError(f"{file}: leads to {file.readlink()}, which is not there") from None
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    if mode & 0o077:
        raise ConfigError(f"{file}: others than its owner may read it; run: chmod 600 {file}")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}") from error
    problems: list[str] = [f"{name}: unknown key" for name in tables if name != "keys"]
    found: list[Key] = []
    of: dict[str, str] = {}  # ids by sum: one key under two would still be good when one of them is revoked
    for identity, table in (tables.get("keys") or {}).items():
        try:
            key = _key(identity, table)
            if (other := of.setdefault(key.digest, identity)) != identity:
                raise ValueError(f"has the sha256 of [keys.{other}]: it is the same key; remove one of them")
            found.append(key)
        except ValueError as error:
            problems.append(f"[keys.{identity}] {error}")
    if problems:
        raise ConfigError("\n".join(f"{file}: {problem}" for problem in problems))
    return tuple(found)


def write(file: Path, keys: Iterable[Key]) -> None:
    """Replace the file in one step; only its owner may read it.

    Raises:
        ConfigError: its directory cannot be written to, or the disk is full.
    """
    text = "# API keys of the gateway; `gateway keys` writes this file.\n" + "".join(map(_table, keys))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # 0600 by mkstemp
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}; keys_file says where it is") from error
    try:
        with os.fdopen(descriptor, "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, file)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ConfigError(f"{file}: cannot be written, and is as it was: {error.strerror}") from error
        raise


@contextmanager
def changing(file: Path) -> Iterator[None]:
    """Nobody else changes the file meanwhile: who had read it before would bring a key back that was revoked."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}; keys_file says where it is") from error
    place = os.open(file.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def those(keys: Iterable[Key], which: str) -> tuple[Key, ...]:
    """The key of that id, or all of that name.

    Raises:
        ConfigError: there is none.
    """
    keys = tuple(keys)
    found = tuple(key for key in keys if which in (key.id, key.name))
    if not found:
        have = ", ".join(f"{key.id} ({key.name})" for key in keys) or "none"
        raise ConfigError(f"no key '{which}' (have: {have})")
    return found


def without(keys: Iterable[Key], which: str) -> tuple[Key, ...]:
    """The keys but those.

    Raises:
        ConfigError: there is none.
    """
    keys = tuple(keys)
    gone = those(keys, which)
    return tuple(key for key in keys if key not in gone)


def namesakes(keys: Iterable[Key]) -> Iterator[str]:
    """Names that several callers have, with the ids of their keys. A key and those that came in its place are one."""
    found: dict[str, list[Key]] = {}
    for key in keys:
        found.setdefault(key.name, []).append(key)
    for name, those_of_it in found.items():
        if len({key.owner for key in those_of_it}) > 1:
            yield f"{quoted(name)} ({', '.join(key.id for key in those_of_it)})"


def changes(before: Iterable[Key], after: Iterable[Key]) -> str:
    """What has been done to keys between two states, in words and without their sums; "" for nothing."""
    old, new = ({key.id: key for key in some} for some in (before, after))
    found = [f"added {_named(key)}: {_told(key)}" for key in new.values() if key.id not in old]
    found += [f"revoked {_named(key)}" for key in old.values() if key.id not in new]
    found += [
        f"changed {_named(key)}: {_changed(old[key.id], key)}"
        for key in new.values()
        if key.id in old and old[key.id] != key
    ]
    return "; ".join(found)


def _told(key: Key) -> str:
    follows = f", in the place of {key.follows}" if key.follows else ""
    return ", ".join(f"{name} {_shown(getattr(key, name))}" for name in _LIMITS[1:] if getattr(key, name)) + follows


def _changed(old: Key, new: Key) -> str:
    told = [
        f"{name} from {_shown(was)} to {_shown(now)}"
        for name in _LIMITS
        if (was := getattr(old, name)) != (now := getattr(new, name))
    ]
    return ", ".join(told) or "its secret"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(one_line, value)) or "none"
    return "none" if value is None else one_line(str(value))


def _named(key: Key) -> str:
    return f"{quoted(key.name)} ({key.id})"


def _key(identity: str, table: Any) -> Key:
    if not _ID(identity):
        raise ValueError("an id is 1 to 16 small letters and digits")
    if identity == ENV:
        raise ValueError("is the id of GATEWAY_API_KEY; choose another")
    if not isinstance(table, Mapping):
        raise ValueError("is no table")
    if unknown := [name for name in table if name not in _FIELDS]:
        raise ValueError(f"unknown: {', '.join(unknown)} (have: {', '.join(_FIELDS)})")
    digest = table.get("sha256")
    if not isinstance(digest, str) or not _DIGEST(digest):
        raise ValueError("sha256 must be 64 hexadecimal digits")
    key = Key(id=identity, name=str(table.get("name", identity)), digest=digest)
    if "scopes" in table:
        key = replace(key, scopes=_texts("scopes", table["scopes"], SCOPES))
    if "models" in table:
        key = replace(key, models=_texts("models", table["models"]))
    for name in ("rpm", "max_inflight"):
        value = table.get(name)
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"{name} must be a whole number from 1 on")
    for name in ("expires", "created"):
        value = table.get(name)
        if value is not None and (not isinstance(value, datetime.datetime) or value.tzinfo is None):
            raise ValueError(f"{name} must be a time with an offset, as in 2027-01-31T00:00:00Z")
    follows = table.get("follows")
    if follows is not None and (not isinstance(follows, str) or not _ID(follows)):
        raise ValueError("follows must be the id of a key")
    return replace(
        key,
        follows=follows,
        rpm=table.get("rpm"),
        max_inflight=table.get("max_inflight"),
        expires=table.get("expires"),
        created=table.get("created"),
    )


def _texts(name: str, value: Any, allowed: tuple[str, ...] = ()) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} must be a list of texts")
    if allowed and (wrong := [item for item in value if item not in allowed]):
        raise ValueError(f"{name} may hold {', '.join(allowed)}, not {', '.join(wrong)}")
    return tuple(value)


def _table(key: Key) -> str:
    lines = [f"\n[keys.{key.id}]", f"name = {_quoted(key.name)}"]
    lines += [f"{name} = [{', '.join(map(_quoted, getattr(key, name)))}]" for name in ("scopes", "models")]
    if key.follows is not None:
        lines.append(f"follows = {_quoted(key.follows)}")
    for name in ("rpm", "max_inflight", "expires", "created"):
        value = getattr(key, name)
        if isinstance(value, datetime.datetime):
            value = value.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
        if value is not None:
            lines.append(f"{name} = {value}")
    # Last: a file that was cut off in the middle of being written has no key without what restricts it.
    lines.append(f"sha256 = {_quoted(key.digest)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's escapes are among its own."""
    import json

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
