"""API keys: a file with their hashes, and the lookup of a request's key.

A key is `gw_<id>_<43 characters>` with 256 random bits, and is shown only once. The file stores its SHA-256; keys with
that many random bits need no slow hash. A file that is readable by other users is refused. Every lookup compares with
every entry, in constant time.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import os
import re
import secrets
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import locks, ordinary
from ..telemetry.printable import one_line, quoted
from .callers import SCOPES, Caller

_FIELDS = ("name", "sha256", "scopes", "models", "rpm", "max_inflight", "expires", "created", "follows", "first_sha256")
_DIGEST = re.compile(r"[0-9a-f]{64}").fullmatch
_ID = re.compile(r"[0-9a-z]{1,16}").fullmatch
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+ -]{0,63}").fullmatch  # safe in logs and metrics
_RESERVED = ("other",)  # the name in metrics for keys beyond those counted by name
_LIMITS = ("name", "scopes", "models", "rpm", "max_inflight", "expires")  # fields listed when a key changes
PATIENCE = 10.0  # seconds; another command is done in a moment
ENV = "env"  # the id of the key from the environment


@dataclass(frozen=True, slots=True)
class Key(Caller):
    """A key and its holder. Two keys with the same name are two callers."""

    _: KW_ONLY
    id: str
    digest: str  # hexadecimal SHA-256 of the key
    created: datetime.datetime | None = None
    follows: str | None = None  # the id of the first key that it replaces, whose stored items it owns
    first_digest: str | None = None  # the digest of that key

    @property
    def owner(self) -> str:
        """The owner of stored items. Another key under the same id is another owner."""
        if self.follows is None:
            return f"key:{self.id}:{self.digest}"
        return f"key:{self.follows}:{self.first_digest or ''}"


def digest_of(given: bytes) -> str:
    return hashlib.sha256(given).hexdigest()


def find(keys: Iterable[Key], given: bytes) -> Key | None:
    """Return the entry of a key. A wrong key takes as long as a valid one."""
    digest, found = digest_of(given), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def create(name: str, among: Iterable[Key] = (), **limits: Any) -> tuple[Key, str]:
    """Return a new key and its text, which is shown once. `among` are the existing keys.

    Raises:
        ConfigError: the name is taken or invalid.
    """
    if taken := [key.id for key in among if key.name == name]:
        raise ConfigError(
            f"there is already a key {quoted(name)} ({', '.join(taken)}), and logs and metrics could not tell the two"
            " apart: choose another name, or replace that key with `gateway keys rotate`"
        )
    if not _NAME(name) or name in _RESERVED:
        form = "1 to 64 letters, digits and '_', after the first also '.', '-', '@', '+' and spaces"
        raise ConfigError(f"{quoted(name)} is not a valid name for a key: {form}; but not {', '.join(_RESERVED)}")
    return _made(name, **limits)


def successor(old: Key) -> tuple[Key, str]:
    """Return a key with the name, permissions and stored items of the old one, and its text, which is shown once."""
    limits = {name: getattr(old, name) for name in ("scopes", "models", "rpm", "max_inflight", "expires")}
    if old.follows is None:
        return _made(old.name, follows=old.id, first_digest=old.digest, **limits)
    return _made(old.name, follows=old.follows, first_digest=old.first_digest, **limits)


def _made(name: str, **limits: Any) -> tuple[Key, str]:
    identity = secrets.token_hex(4)
    text = f"gw_{identity}_{secrets.token_urlsafe(32)}"
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return Key(id=identity, name=name, digest=digest_of(text.encode()), created=now, **limits), text


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def read(file: Path) -> tuple[Key, ...]:
    """Return the keys of a file, or none if the file does not exist.

    Raises:
        ConfigError: it is readable by other users or invalid; the message has a line for each problem.
    """
    try:
        with ordinary.opened(file) as opened:
            mode = os.fstat(opened.fileno()).st_mode
            text = ordinary.rest(opened).decode("utf-8-sig")
    except FileNotFoundError:
        if file.is_symlink():
            raise ConfigError(f"{file}: links to {file.readlink()}, which does not exist") from None
        return ()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    if mode & 0o077:
        raise ConfigError(f"{file}: is readable by other users; run: chmod 600 {file}")
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}") from error
    problems: list[str] = [f"{name}: unknown key" for name in tables if name != "keys"]
    found: list[Key] = []
    of: dict[str, str] = {}  # ids by hash: a key listed twice would stay valid if one entry is revoked
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
    """Replace the file atomically. Only its owner may read it.

    Raises:
        ConfigError: its directory is not writable, or the disk is full.
    """
    text = "# API keys of the gateway; `gateway keys` writes this file.\n" + "".join(map(_table, keys))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mkstemp sets mode 0600
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
            raise ConfigError(f"{file}: cannot be written, and is unchanged: {error.strerror}") from error
        raise


@contextmanager
def changing(file: Path) -> Iterator[None]:
    """Lock the file against other writers: a concurrent change could restore a revoked key."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}; keys_file says where it is") from error
    # A file of its own: what a model can read it can lock too, as it can the directory and the keys themselves.
    lock = file.with_name(f".{file.name}.lock")
    try:
        held = locks.opened(lock)
    except OSError as error:
        raise ConfigError(f"{lock}: cannot be written: {error.strerror}; keys_file says where it is") from error
    try:
        locks.take(held, lock, PATIENCE, why=f"{file} cannot be changed now")
        yield
    finally:
        os.close(held)


def those(keys: Iterable[Key], which: str) -> tuple[Key, ...]:
    """Return the key with that id, or all with that name.

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
    """Return the keys without the ones with that id or name.

    Raises:
        ConfigError: there is none.
    """
    keys = tuple(keys)
    gone = those(keys, which)
    return tuple(key for key in keys if key not in gone)


def namesakes(keys: Iterable[Key]) -> Iterator[str]:
    """Yield names shared by several callers, with the ids of their keys. A key and its successors are one caller."""
    found: dict[str, list[Key]] = {}
    for key in keys:
        found.setdefault(key.name, []).append(key)
    for name, those_of_it in found.items():
        if len({key.owner for key in those_of_it}) > 1:
            yield f"{quoted(name)} ({', '.join(key.id for key in those_of_it)})"


def changes(before: Iterable[Key], after: Iterable[Key]) -> str:
    """Describe the changes between two states of the keys, without their hashes; "" if nothing changed."""
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
        raise ValueError("an id must be 1 to 16 lower-case letters and digits")
    if identity == ENV:
        raise ValueError("is the id of GATEWAY_API_KEY; choose another")
    if not isinstance(table, Mapping):
        raise ValueError("is not a table")
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
    first = table.get("first_sha256")
    if first is not None and (follows is None or not isinstance(first, str) or not _DIGEST(first)):
        raise ValueError("first_sha256 must be 64 hexadecimal digits, beside follows")
    return replace(
        key,
        follows=follows,
        first_digest=first,
        rpm=table.get("rpm"),
        max_inflight=table.get("max_inflight"),
        expires=table.get("expires"),
        created=table.get("created"),
    )


def _texts(name: str, value: Any, allowed: tuple[str, ...] = ()) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{name} must be a list of strings")
    if allowed and (wrong := [item for item in value if item not in allowed]):
        raise ValueError(f"{name} may hold {', '.join(allowed)}, not {', '.join(wrong)}")
    return tuple(value)


def _table(key: Key) -> str:
    lines = [f"\n[keys.{key.id}]", f"name = {_quoted(key.name)}"]
    lines += [f"{name} = [{', '.join(map(_quoted, getattr(key, name)))}]" for name in ("scopes", "models")]
    if key.follows is not None:
        lines.append(f"follows = {_quoted(key.follows)}")
    if key.first_digest is not None:
        lines.append(f"first_sha256 = {_quoted(key.first_digest)}")
    for name in ("rpm", "max_inflight", "expires", "created"):
        value = getattr(key, name)
        if isinstance(value, datetime.datetime):
            value = value.astimezone(datetime.UTC).isoformat().replace("+00:00", "Z")
        if value is not None:
            lines.append(f"{name} = {value}")
    # Last: if the file is cut off while being written, no key is left without its restrictions.
    lines.append(f"sha256 = {_quoted(key.digest)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Return a basic string of TOML, whose escapes include JSON's."""
    import json

    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
