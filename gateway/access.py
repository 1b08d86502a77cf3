"""The keys in force, and what each caller may do at once and in a minute, which is tested before a model's queue.

A token bucket of `rpm` calls refills all the time, so a key that was silent may start with a burst of a minute's worth.
What a caller has under way ends with its key.
"""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from . import keys
from .callers import SCOPES, Caller
from .errors import RateLimited
from .keys import Key

log = logging.getLogger("gateway.access")
FEW_GUESTS = 1024  # permits of a plugin's callers that are kept without a look at who needs them


class Permits:
    """The calls of one caller. Times are monotonic seconds, and come in."""

    __slots__ = ("_filled", "_tokens", "caller", "running")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.running = 0
        self._tokens, self._filled = float(caller.rpm or 0), 0.0

    def take(self, now: float) -> tuple[tuple[bytes, bytes], ...]:
        """Count a call in; return what its answer says of the limits. `give_back` when it has ended.

        Raises:
            RateLimited: it is one too many.
        """
        key = self.caller
        if key.max_inflight is not None and self.running >= key.max_inflight:
            raise RateLimited(f"this key may have {key.max_inflight} calls at once, and has", retry_after=1)
        headers: tuple[tuple[bytes, bytes], ...] = ()
        if key.rpm is not None:
            self._tokens = min(float(key.rpm), self._tokens + (now - self._filled) * key.rpm / 60)
            self._filled = now
            if self._tokens < 1:
                wait = (1 - self._tokens) * 60 / key.rpm
                shown = {name.decode(): value.decode() for name, value in self._headers(key.rpm)}
                raise RateLimited(f"this key may make {key.rpm} calls a minute", retry_after=wait, headers=shown)
            self._tokens -= 1
            headers = self._headers(key.rpm)
        self.running += 1
        return headers

    def give_back(self) -> None:
        self.running -= 1

    def renew(self, caller: Caller) -> None:
        """Go on with the limits as they are now."""
        if caller.rpm is not None and self.caller.rpm is None:
            self._tokens = float(caller.rpm)
        self.caller = caller

    def is_fresh(self, now: float) -> bool:
        """Whether it is as if nobody had ever called."""
        rpm = self.caller.rpm
        return not self.running and (rpm is None or self._tokens + (now - self._filled) * rpm / 60 >= rpm)

    def _headers(self, rpm: int) -> tuple[tuple[bytes, bytes], ...]:
        """OpenAI's names; `reset` is when the bucket is full again."""
        reset = (rpm - self._tokens) * 60 / rpm
        return (
            (b"x-ratelimit-limit-requests", str(rpm).encode()),
            (b"x-ratelimit-remaining-requests", str(int(self._tokens)).encode()),
            (b"x-ratelimit-reset-requests", f"{reset:.3f}s".encode()),
        )


class Guests:
    """The permits of those whom plugins let in, by name, for as long as they differ from those of a newcomer."""

    def __init__(self) -> None:
        self._permits: dict[str, Permits] = {}
        self._many = FEW_GUESTS

    def permits(self, caller: Caller, now: float) -> Permits:
        """The permits of the caller's name, with the limits that it has now."""
        found = self._permits.get(caller.name)
        if found is None:
            if len(self._permits) >= self._many:
                self._forget(now)
            found = self._permits[caller.name] = Permits(caller)
        elif found.caller != caller:
            found.renew(caller)
        return found

    def _forget(self, now: float) -> None:
        self._permits = {name: one for name, one in self._permits.items() if not one.is_fresh(now)}
        self._many = max(FEW_GUESTS, 2 * len(self._permits))


class KeyRing:
    """The one key of the environment, and those of a file, which may change while the gateway runs.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, api_key: str | None, file: Path) -> None:
        self._file, self._seen = file, _stamp(file)
        self._own: tuple[Key, ...] = ()
        if api_key is not None:
            digest = keys.digest_of(api_key.encode())
            self._own = (Key(id="env", name="GATEWAY_API_KEY", digest=digest, scopes=SCOPES),)
        self._keys: tuple[Key, ...] = ()
        self._permits: dict[str, Permits] = {}
        self._use(keys.read(file))

    @property
    def is_required(self) -> bool:
        """Whether a request needs a key. A file of keys asks for one though all of them were revoked."""
        return bool(self._permits) or self._seen is not None

    def __str__(self) -> str:
        """Whether keys are needed and which there are, in a sentence."""
        if not self.is_required:
            return f"No request needs a key: there is no {self._file}"
        filed = len(self._permits) - len(self._own)
        which = [f"{filed} in {self._file}"] if self._seen is not None else []
        which += [f"the one of {key.name}" for key in self._own]
        return f"Every request needs a key: {' or '.join(which)}"

    def find(self, given: bytes, now: datetime.datetime) -> Permits | None:
        """Whose key it is, and what calls it has under way; None for a wrong one and for one that has expired."""
        key = keys.find(self._keys, given)
        return None if key is None or key.has_expired(now) else self._permits[key.id]

    def reload(self) -> None:
        """Read the file again; a broken one changes nothing, and the log says why."""
        try:
            found = keys.read(self._file)
        except Exception as error:
            log.error("the keys stay as they were: %s", error)
            return
        self._seen = _stamp(self._file) or self._seen
        self._use(found)
        log.info("%d keys in force", len(self._permits))

    def reload_if_changed(self) -> None:
        if _stamp(self._file) not in (self._seen, None):
            self.reload()

    def _use(self, found: Iterable[Key]) -> None:
        """Calls under way keep counting for a key that stays."""
        self._keys = (*self._own, *found)
        permits = {key.id: Permits(key) for key in self._keys}
        for identity, known in self._permits.items():
            if identity in permits:
                known.renew(permits[identity].caller)
                permits[identity] = known
        self._permits = permits


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """What tells one state of the file from the next; None when there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
