"""The keys in force, and what each caller may do at once and in a minute, which is tested before a model's queue.

A token bucket of `rpm` calls refills all the time, so a key that was silent may start with a burst of a minute's worth.
What a caller has under way ends with its key.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from . import audit, keys
from .callers import SCOPES, Caller
from .errors import GatewayError, PermissionDenied, RateLimited, Unauthorized
from .keys import Key
from .wording import counted

log = logging.getLogger("gateway.access")
NEVER = datetime.datetime.max.replace(tzinfo=datetime.UTC)
LOOK = 30.0  # seconds at most between two looks at who has expired
MAX_REVOKED = 1000
FEW_GUESTS = 1024  # permits of a plugin's callers that are kept without a look at who needs them


class Lease(Protocol):
    """Something under way for a caller, by the model that runs it, if one does yet."""

    caller: Caller | None
    model: str

    def end(self, error: GatewayError) -> None: ...


class Permits:
    """The calls of one caller. Times are monotonic seconds, and come in."""

    __slots__ = ("_alarm", "_due", "_filled", "_leases", "_tokens", "caller", "running")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.running = 0
        self._tokens, self._filled = float(caller.rpm or 0), 0.0
        self._leases: set[Lease] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._due = NEVER

    def begin(self, lease: Lease, now: float) -> tuple[tuple[bytes, bytes], ...]:
        """Count a call in, as `take` does, and `hold` it."""
        headers = self.take(now)
        self.hold(lease)
        return headers

    def hold(self, lease: Lease) -> None:
        """End it when its caller may not call any more, though it counts for no limit; until `release`."""
        self._leases.add(lease)
        if lease.caller is not None and lease.caller.expires is not None and lease.caller.expires < self._due:
            self._watch(lease.caller.expires)

    def release(self, lease: Lease) -> None:
        self._leases.discard(lease)

    def take(self, now: float) -> tuple[tuple[bytes, bytes], ...]:
        """Count a call in; return what its answer says of the limits. `give_back` when it has ended.

        Raises:
            RateLimited: it is one too many.
        """
        key = self.caller
        if key.max_inflight is not None and self.running >= key.max_inflight:
            raise RateLimited(
                f"this key may have {counted(key.max_inflight, 'call')} at once, and has",
                retry_after=1,
                cause="max_inflight",
            )
        headers = () if key.rpm is None else self.draw(now)
        self.running += 1
        return headers

    def draw(self, now: float) -> tuple[tuple[bytes, bytes], ...]:
        """Count one for the rate alone, such as a message of a websocket; what is left, as headers.

        Raises:
            RateLimited: it is one too many.
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
        """Go on with the limits as they are now."""
        if caller.rpm is not None and self.caller.rpm is None:
            self._tokens = float(caller.rpm)
        self.caller = caller

    def rekey(self, key: Key) -> None:
        """Go on with what the key may do now, which what is under way may be no part of any more."""
        self.renew(key)
        for lease in tuple(self._leases):
            if not lease.model or (key.may("infer") and key.sees(lease.model)):
                lease.caller = key
            else:  # it goes on to see its model, for which it counts
                text = f"this key may not use model '{lease.model}' any more"
                lease.end(PermissionDenied(text, cause="key_changed"))
        self._expire()

    def revoke(self) -> None:
        """End what is under way: there is no such key any more."""
        for lease in tuple(self._leases):
            text = "Incorrect API key provided: it was revoked while this ran."
            lease.end(Unauthorized(text, cause="key_revoked"))

    def _watch(self, expires: datetime.datetime) -> None:
        """Look again when somebody expires, and now and then before: the clock on the wall may be set."""
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


AT_ONCE = "Write it again, or send SIGHUP to the gateway, after which it knows none of them"  # of a file that is gone


class KeyRing:
    """The one key of the environment, and those of a file, which may change while the gateway runs.

    Raises:
        ConfigError: the file cannot be used.
    """

    def __init__(self, api_key: str | None, file: Path) -> None:
        self.place = os.path.realpath(file)  # what others compare with theirs
        self._file, self._seen, self._is_gone = file, _stamp(file), False
        self._looking = asyncio.Lock()  # one look after the other: an older state of the file replaces no newer one
        self._refused = ""  # why the file that is there now is not used
        self._own: tuple[Key, ...] = ()
        if api_key is not None:
            digest = keys.digest_of(api_key.encode())
            self._own = (Key(id=keys.ENV, name="GATEWAY_API_KEY", digest=digest, scopes=SCOPES),)
        self._keys: tuple[Key, ...] = ()
        self._revoked: dict[str, Key] = {}  # the latest since the start, by digest: who goes on using one is named
        self._permits: dict[str, Permits] = {}
        # Whether a request needs a key. A file of keys asks for one though all of them were revoked.
        self.is_required = False
        self._use(keys.read(file))

    @property
    def count(self) -> int:
        """How many keys are in force."""
        return len(self._permits)

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

    def refused(self, given: bytes) -> tuple[Key | None, str]:
        """Whose key it is or was that `find` has refused, if it is known, and the cause, for operators alone.

        The whole key counts, and not the id in it: nobody is named for a guess of somebody else.
        """
        if (key := keys.find(self._keys, given)) is not None:
            return key, "key_expired"
        key = self._revoked.get(keys.digest_of(given))
        return key, "key_unknown" if key is None else "key_revoked"

    @property
    def in_force(self) -> list[str]:
        """The ids of the keys, without that of the environment."""
        return [identity for identity in self._permits if identity != keys.ENV]

    async def reload(self, told_by: str = "") -> str:
        """Read the file again; what is wrong with it, or "". A broken one changes nothing, and the log says why.

        `told_by` is who has said that there is a new one, for the audit log.
        """
        async with self._looking:
            return await self._read(asked=True, told_by=told_by)

    async def reload_if_changed(self) -> None:
        async with self._looking:
            stamp = await asyncio.to_thread(_stamp, self._file)
            if stamp is None and self._seen is not None and not self._is_gone:
                log.warning("%s is gone: the keys that it had at the last look stay in force. %s", self._file, AT_ONCE)
            self._is_gone = stamp is None
            if stamp not in (self._seen, None):
                await self._read(asked=False)

    async def _read(self, *, asked: bool, told_by: str = "") -> str:
        """Where nobody `asked`, what is wrong is told once."""
        told = f", told of by {told_by}" if told_by else ""
        try:
            stamp, owner, found = await asyncio.to_thread(_read, self._file)  # it may be on a network
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
        """Calls under way keep counting for a key that stays. One that was replaced under its id has gone."""
        found = tuple(found)
        if shared := list(keys.namesakes(found)):
            log.warning(
                "%s: several keys have one name, which no log or metric tells apart: %s", self._file, ", ".join(shared)
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
    """What tells this state of the file, whose it is, and its keys."""
    stamp = _stamp(file)  # before it is read: what is written meanwhile is seen at the next look
    return stamp, _owner(file), keys.read(file)


def _owner(file: Path) -> str:
    """Who has written the file, as far as it says."""
    try:
        return audit.user(file.stat().st_uid)
    except OSError:
        return "somebody"


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """What tells one state of the file from the next; None when there is none."""
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
