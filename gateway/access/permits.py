"""The active keys, and the concurrency and rate limits of each caller, checked before the queue of a model.

The row of a route in `http/route_table.py` decides which scope a request needs, and whether it counts against these
limits.

A token bucket of `rpm` calls refills continuously, so a caller that was idle may start with a burst of one minute's
calls. The running requests of a caller end when its key is revoked or expires.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from ..errors import GatewayError, PermissionDenied, RateLimited, Unauthorized
from ..telemetry import audit
from ..wording import counted
from . import keys
from .callers import SCOPES, Caller, Scope
from .keys import Key

log = logging.getLogger("gateway.access")
NEVER = datetime.datetime.max.replace(tzinfo=datetime.UTC)
LOOK = 30.0  # maximum seconds between two checks for expired callers
MAX_REVOKED = 1000
FEW_GUESTS = 1024  # permits of a plugin's callers that are kept before unused ones are dropped


class Lease(Protocol):
    """A running request of a caller: a call, a query, an order, a stream or a websocket."""

    caller: Caller | None

    @property
    def needs(self) -> Scope:
        """The scope of its route."""

    @property
    def about(self) -> str:
        """The model that it uses, queries or controls; "" for several models or while it is unknown."""

    def end(self, error: GatewayError) -> None: ...


class Permits:
    """The limits and running requests of one caller. Times are monotonic seconds, passed in."""

    __slots__ = ("_alarm", "_due", "_filled", "_leases", "_tokens", "caller", "running")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.running = 0
        self._tokens, self._filled = float(caller.rpm or 0), 0.0
        self._leases: set[Lease] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._due = NEVER

    def begin(self, lease: Lease, now: float) -> tuple[tuple[bytes, bytes], ...]:
        """Count a call as `take` does, and `hold` it."""
        headers = self.take(now)
        self.hold(lease)
        return headers

    def hold(self, lease: Lease) -> None:
        """End the request if its caller loses its key or scope, until `release`. It need not count against limits."""
        self._leases.add(lease)
        if lease.caller is not None and lease.caller.expires is not None and lease.caller.expires < self._due:
            self._watch(lease.caller.expires)

    def release(self, lease: Lease) -> None:
        self._leases.discard(lease)

    def take(self, now: float) -> tuple[tuple[bytes, bytes], ...]:
        """Count a call, and return the rate limit headers of its answer. Call `give_back` when it has ended.

        Raises:
            RateLimited: over the limit.
        """
        key = self.caller
        if key.max_inflight is not None and self.running >= key.max_inflight:
            raise RateLimited(
                f"this key may have {counted(key.max_inflight, 'call')} at once, and has reached that limit",
                retry_after=1,
                cause="max_inflight",
            )
        headers = () if key.rpm is None else self.draw(now)
        self.running += 1
        return headers

    def draw(self, now: float) -> tuple[tuple[bytes, bytes], ...]:
        """Count one call against the rate only, such as a websocket message. Return headers with the rest.

        Raises:
            RateLimited: over the limit.
        """
        rpm = self.caller.rpm
        if rpm is None:
            return ()
        self._tokens = min(float(rpm), self._tokens + (now - self._filled) * rpm / 60)
        self._filled = now
        if self._tokens < 1:
            wait = (1 - self._tokens) * 60 / rpm
            shown = {name.decode(): value.decode() for name, value in self._headers(rpm)}
            say = f"this key may make {counted(rpm, 'call')} a minute"
            raise RateLimited(say, retry_after=wait, headers=shown, cause="rpm")
        self._tokens -= 1
        return self._headers(rpm)

    def give_back(self) -> None:
        self.running -= 1

    def renew(self, caller: Caller) -> None:
        """Continue with the caller's current limits."""
        if caller.rpm is not None and self.caller.rpm is None:
            self._tokens = float(caller.rpm)
        self.caller = caller

    def rekey(self, key: Key) -> None:
        """Continue with the key's new permissions.

        Running requests that the key may no longer make are ended. The others continue with the new permissions.
        """
        self.renew(key)
        for lease in tuple(self._leases):
            if (lost := _lost(key, lease)) is None:
                lease.caller = key
            else:  # it keeps its old caller, so that it still counts for its model
                lease.end(PermissionDenied(lost, cause="key_changed"))
        self._expire()

    def revoke(self) -> None:
        """End all running requests, because the key was removed."""
        for lease in tuple(self._leases):
            text = "Incorrect API key provided: it was revoked while this ran."
            lease.end(Unauthorized(text, cause="key_revoked"))

    def _watch(self, expires: datetime.datetime) -> None:
        """Schedule a check at the next expiry. Check at least every LOOK seconds, because the clock may be set."""
        if self._alarm is not None:
            self._alarm.cancel()
        left = (expires - datetime.datetime.now(datetime.UTC)).total_seconds()
        self._due = expires
        self._alarm = asyncio.get_running_loop().call_later(min(max(0.0, left), LOOK), self._expire)

    def _expire(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        now, self._due = datetime.datetime.now(datetime.UTC), NEVER
        for lease in tuple(self._leases):
            if lease.caller is None or lease.caller.expires is None:
                continue
            if lease.caller.has_expired(now):
                text = "Incorrect API key provided: it expired while this ran."
                lease.end(Unauthorized(text, cause="key_expired"))
            elif lease.caller.expires < self._due:
                self._watch(lease.caller.expires)

    def is_fresh(self, now: float) -> bool:
        """Whether it equals the permits of a caller that never made a call."""
        rpm = self.caller.rpm
        return not self.running and (rpm is None or self._tokens + (now - self._filled) * rpm / 60 >= rpm)

    def _headers(self, rpm: int) -> tuple[tuple[bytes, bytes], ...]:
        """Return headers with OpenAI's names. `reset` is the time until the bucket is full."""
        reset = (rpm - self._tokens) * 60 / rpm
        return (
            (b"x-ratelimit-limit-requests", str(rpm).encode()),
            (b"x-ratelimit-remaining-requests", str(int(self._tokens)).encode()),
            (b"x-ratelimit-reset-requests", f"{reset:.3f}s".encode()),
        )


def _lost(key: Key, lease: Lease) -> str | None:
    """Return why the key may no longer make a running request, or None."""
    if not key.may(lease.needs):
        return f"this key does not have the scope '{lease.needs}' any more, which this request needs"
    if lease.about and not key.sees(lease.about):
        return f"this key may not use model '{lease.about}' any more"
    return None


class Guests:
    """Permits of callers from plugins, by name. They are dropped once they equal new ones."""

    def __init__(self) -> None:
        self._permits: dict[str, Permits] = {}
        self._many = FEW_GUESTS

    def permits(self, caller: Caller, now: float) -> Permits:
        """Return the permits for the caller's name, with its current limits."""
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


AT_ONCE = "Write it again, or send SIGHUP to the gateway, which then drops them"  # advice for a missing file


class KeyRing:
    """The key from the environment, and the keys of a file, which may change at run time.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, api_key: str | None, file: Path) -> None:
        self.place = os.path.realpath(file)  # compared with the key file of other processes
        self._file, self._seen, self._is_gone = file, _stamp(file), False
        self._looking = asyncio.Lock()  # one check at a time: an older state must not replace a newer one
        self._refused = ""  # why the current file is not used
        self._own: tuple[Key, ...] = ()
        if api_key is not None:
            digest = keys.digest_of(api_key.encode())
            self._own = (Key(id=keys.ENV, name="GATEWAY_API_KEY", digest=digest, scopes=SCOPES),)
        self._keys: tuple[Key, ...] = ()
        self._revoked: dict[str, Key] = {}  # recently revoked keys by digest, to name them when they are used
        self._permits: dict[str, Permits] = {}
        # Whether requests need a key. They do if the file exists, even if all its keys were revoked.
        self.is_required = False
        self._use(keys.read(file))

    @property
    def count(self) -> int:
        """The number of active keys."""
        return len(self._permits)

    def __str__(self) -> str:
        """Whether keys are needed, and where they come from, as a sentence."""
        if not self.is_required:
            return f"No request needs a key: there is no {self._file}"
        filed = len(self._permits) - len(self._own)
        which = [f"{filed} in {self._file}"] if self._seen is not None else []
        which += [f"the one of {key.name}" for key in self._own]
        return f"Every request needs a key: {' or '.join(which)}"

    def find(self, given: bytes, now: datetime.datetime) -> Permits | None:
        """Return the permits of a key, or None for a wrong or expired key."""
        key = keys.find(self._keys, given)
        return None if key is None or key.has_expired(now) else self._permits[key.id]

    def refused(self, given: bytes) -> tuple[Key | None, str]:
        """Return the owner of a key that `find` refused, if known, and the cause, for operators only.

        Only the whole key is compared, not the id in it, so a guessed id never names its owner.
        """
        if (key := keys.find(self._keys, given)) is not None:
            return key, "key_expired"
        key = self._revoked.get(keys.digest_of(given))
        return key, "key_unknown" if key is None else "key_revoked"

    @property
    def in_force(self) -> list[str]:
        """The ids of the active keys, without the one from the environment."""
        return [identity for identity in self._permits if identity != keys.ENV]

    async def reload(self, told_by: str = "") -> str:
        """Read the file again. Return what is wrong with it, or "". A broken file changes nothing and is logged.

        `told_by` names the actor that announced the change, for the audit log.
        """
        async with self._looking:
            return await self._read(asked=True, told_by=told_by)

    async def reload_if_changed(self) -> None:
        async with self._looking:
            stamp = await asyncio.to_thread(_stamp, self._file)
            if stamp is None and self._seen is not None and not self._is_gone:
                log.warning("%s is gone: the keys that it last had stay in force. %s", self._file, AT_ONCE)
            self._is_gone = stamp is None
            if stamp not in (self._seen, None):
                await self._read(asked=False)

    async def _read(self, *, asked: bool, told_by: str = "") -> str:
        """Read the file. Unless `asked` for, a problem is reported only once."""
        told = f", told of by {told_by}" if told_by else ""
        try:
            stamp, owner, found = await asyncio.to_thread(_read, self._file)  # the file may be on a network
        except Exception as error:
            if (reason := str(error)) != self._refused or asked:
                audit.refused(f"a new {self._file}{told}", "change of keys", f"they stay as they were: {reason}")
            self._refused = reason
            return reason
        self._seen = stamp or self._seen
        self._refused = ""
        before = self._keys
        self._use(found)
        if changes := keys.changes(before, self._keys):
            audit.record(f"a new {self._file} (of {owner}){told}", "change of keys", outcome=changes)
        log.info("%s in force", counted(len(self._permits), "key"))
        return ""

    def _use(self, found: Iterable[Key]) -> None:
        """Use these keys. A key that stays keeps its running calls. A key replaced under the same id is revoked."""
        found = tuple(found)
        if shared := list(keys.namesakes(found)):
            log.warning(
                "%s: several keys have one name, and logs and metrics mix them up: %s", self._file, ", ".join(shared)
            )
        before, was = {(key.id, key.digest) for key in self._keys}, self._keys
        self._keys = (*self._own, *found)
        now = {key.digest for key in self._keys}
        self._revoked |= {key.digest: key for key in was if key.digest not in now}
        while len(self._revoked) > MAX_REVOKED:
            del self._revoked[next(iter(self._revoked))]
        stays = {key.id for key in self._keys if (key.id, key.digest) in before}
        permits = {key.id: Permits(key) for key in self._keys}
        for identity, known in self._permits.items():
            if identity in stays:
                permits[identity] = known
            else:
                known.revoke()
        self._permits = permits
        self.is_required = bool(permits) or self._seen is not None
        for key in self._keys:
            permits[key.id].rekey(key)


def _read(file: Path) -> tuple[tuple[int, int, int] | None, str, tuple[Key, ...]]:
    """Return the stamp of the file, its owner, and its keys."""
    stamp = _stamp(file)  # taken before reading: a later write is noticed at the next check
    return stamp, _owner(file), keys.read(file)


def _owner(file: Path) -> str:
    """Return the user that owns the file, if known."""
    try:
        return audit.user(file.stat().st_uid)
    except OSError:
        return "somebody"


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """Return a value that changes with the file, or None if it does not exist."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
