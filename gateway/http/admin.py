"""What an operator may ask and order, over the admin socket; over HTTP only where the settings and the key allow it.

    GET   /admin/models               every model with its state, reason, replicas and calls
    POST  /admin/reload               look at the model roots again: what is new, mended or gone
    POST  /admin/keys/reload          read the file of keys again, and say which are in force; over the socket only
    POST  /admin/models/{id}/reload   read its directory again and serve that, without a gap
    POST  /admin/models/{id}/load     load a model that is not loaded, or could not be
    POST  /admin/models/{id}/unload   end its processes and give back its devices
    GET   /models/{id}/logs           the last lines of its output; ?lines=50, and with follow=true those that come
    GET   /admin/logs                 those of all models

A key without the scope is refused; without `admin_http` there are no such URLs. A key with patterns operates the models
that it sees, and no others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from ..audit import Outcome, audited
from ..errors import BadRequest, ConfigError, GatewayError, UnknownModel
from ..health_check import ask_health
from ..placement import NO_ROOM
from ..processes import Usage, usage_of
from ..reloading import ONLY_READ, NoRoom, reload
from ..replica import LoadError
from ..roots import find_again, look_again, where_it_would_be
from .actors import actor_of
from .exchange import UNBUFFERED, Exchange
from .orders import IS_READY, name_of, unload_for

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub
    from ..tails import Line

HEALTH_WAIT = 1.0  # seconds that a list waits for what models say of their health

Handler = Callable[[Exchange], Awaitable[None]]
ROOT = "/admin/models"
KEYS = "/admin/keys/reload"
_encode = msgspec.json.encode


class NotReloaded(GatewayError):
    """The new one is no good; what was there serves on, or the model's state says what became of it."""

    status = 422
    type = "invalid_request_error"
    code = "reload_failed"
    should_retry = False


class Admin:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._orders: dict[str, Handler] = {"reload": self._reload, "load": self._load, "unload": self._unload}

    def find(self, path: str, is_local: bool) -> tuple[str, Handler, str] | None:
        """Method, handler and model of a path; None for one that is not ours. `is_local`: over the admin socket."""
        if path == KEYS and is_local:
            return "POST", self._reload_keys, ""
        if path == ROOT:
            return "GET", self._list, ""
        if path == "/admin/logs":
            return "GET", self._all_logs, ""
        if path == "/admin/reload":
            return "POST", self._look, ""
        name, slash, order = path.removeprefix(f"{ROOT}/").rpartition("/")
        if path.startswith(f"{ROOT}/") and slash and order in self._orders:
            return "POST", self._orders[order], name
        return None

    async def logs(self, exchange: Exchange) -> None:
        name = self._model(exchange).name
        count, follows = _asked(exchange)
        wants = name.__eq__
        if follows:
            await self._follow(exchange, count, wants)
            return
        await exchange.reply(200, _encode({"model": name, "lines": [*map(_line, self._hub.tails.last(count, wants))]}))

    async def _all_logs(self, exchange: Exchange) -> None:
        count, follows = _asked(exchange)
        if follows:
            await self._follow(exchange, count, exchange.sees)
            return
        lines = self._hub.tails.last(count, exchange.sees)
        await exchange.reply(200, _encode({"lines": [*map(_line, lines)]}))

    async def _follow(self, exchange: Exchange, count: int, wants: Callable[[str], bool]) -> None:
        """An object a line, until the client leaves or the gateway ends."""
        tails = self._hub.tails
        with tails.follow(wants) as follower:
            lines = tails.last(count, wants)  # and what comes after these is the follower's
            exchange.watch(follower)
            await exchange.start(200, [(b"content-type", b"application/x-ndjson"), UNBUFFERED])
            await exchange.write(_json_lines(lines))  # at once, though it be nothing: the head goes with it
            while lines := await follower.lines():
                await exchange.write(_json_lines(lines))
        if follower.error is not None:
            exchange.break_off()
            raise follower.error
        if not exchange.client_is_gone:
            await exchange.write(b"", last=True)

    async def _list(self, exchange: Exchange) -> None:
        seen = self._hub.seen(exchange.sees)
        await ask_health(seen, HEALTH_WAIT)
        found: dict[str, Any] = {"models": await self._described(seen, exchange)}
        if exchange.is_local:  # others are told nothing of the directories of this machine
            found["roots"] = [str(root.expanduser().absolute()) for root in self._hub.settings.gateway.models]
        await exchange.reply(200, _encode(found))

    async def _look(self, exchange: Exchange) -> None:
        found = await look_again(self._hub, actor_of(exchange))
        broken = {name: reason for name, reason in found.broken.items() if exchange.sees(name)}
        new, gone = ([name for name in names if exchange.sees(name)] for names in (found.new, found.gone))
        await exchange.reply(200, _encode({"new": new, "failed": broken, "gone": gone}))

    async def _reload_keys(self, exchange: Exchange) -> None:
        keys = self._hub.keys
        if reason := await keys.reload(str(actor_of(exchange))):
            raise NotReloaded(f"the keys stay as they were: {reason}")
        await exchange.reply(200, _encode({"file": keys.place, "keys": keys.in_force}))

    async def _reload(self, exchange: Exchange) -> None:
        with audited(actor_of(exchange), "reload", name_of(self._hub, exchange)) as outcome:
            model, is_new = await self._found(exchange, "reloaded")
            if not is_new and not await self._read_again(exchange, model, "reloaded"):
                outcome.words = ONLY_READ
            await self._settled(exchange, model)
        await self._tell(exchange, model, outcome)

    async def _load(self, exchange: Exchange) -> None:
        with audited(actor_of(exchange), "load", name_of(self._hub, exchange)) as outcome:
            model, is_new = await self._found(exchange, "loaded")
            if not is_new and model.state in ("failed", "unloaded"):
                await self._read_again(exchange, model, "loaded")
            elif model.state == "ready":  # and is to be loaded all the same: its directory may be gone
                await look_again(self._hub, actor_of(exchange), ordered=model.name)
                outcome.words = IS_READY
            await self._hub.load(model)
            await self._settled(exchange, model)
        await self._tell(exchange, model, outcome)

    async def _read_again(self, exchange: Exchange, model: HostedModel, what: str) -> bool:
        """Whether it was loaded, too."""
        try:
            return await reload(self._hub, model)
        except (ConfigError, LoadError) as error:
            sees_all = len(self._hub.seen(exchange.sees)) == len(self._hub.models)
            reason = NO_ROOM if isinstance(error, NoRoom) and not sees_all else error
            raise NotReloaded(f"model '{model.name}' was not {what}: {reason}") from error

    async def _settled(self, exchange: Exchange, model: HostedModel) -> None:
        """Wait until it is ready, has failed, or loads at its first request."""
        if model.state == "loading":
            await model.settled()
        if model.state not in ("ready", "unloaded"):
            raise NotReloaded(f"model '{model.name}' was not loaded: {self._hub.reason(model, exchange.sees, True)}")

    async def _unload(self, exchange: Exchange) -> None:
        await self._tell(exchange, *await unload_for(self._hub, exchange, self._model))

    async def _found(self, exchange: Exchange, what: str) -> tuple[HostedModel, bool]:
        """The model, and whether it had to be looked for in the roots."""
        exchange.asked = name = exchange.model
        exchange.model = ""  # an order is no call of it
        known = list(self._hub.models.values())
        try:
            model = await find_again(self._hub, name, exchange.sees, actor_of(exchange))
        except LoadError as error:
            raise NotReloaded(f"model '{name}' was not {what}: {error}") from error
        except UnknownModel as error:
            if not exchange.is_local:  # others are told nothing of the directories of this machine
                raise
            error.message += f"; {await asyncio.to_thread(where_it_would_be, self._hub, name)}"
            raise
        return model, model not in known

    def _model(self, exchange: Exchange) -> HostedModel:
        model = self._hub.find(exchange.model, exchange.sees)
        exchange.model, exchange.asked = "", model.name  # an order is no call of it
        return model

    async def _tell(self, exchange: Exchange, model: HostedModel, outcome: Outcome) -> None:
        (found,) = await self._described([model], exchange)
        await exchange.reply(200, _encode({**found, "outcome": outcome.words}))

    async def _described(self, models: list[HostedModel], exchange: Exchange) -> list[dict[str, Any]]:
        # On a thread: it reads of all processes of the machine.
        usage = await asyncio.to_thread(usage_of, [pid for model in models for pid in model.pids().values()])
        return [self._describe(model, exchange, usage) for model in models]

    def _describe(self, model: HostedModel, exchange: Exchange, usage: dict[int, Usage]) -> dict[str, Any]:
        pids, last = model.pids(), model.limiter.last_call
        ago = asyncio.get_running_loop().time() - last
        used = {index: usage.get(pid) for index, pid in pids.items()}
        return {
            "id": model.name,
            "state": model.state,
            "healthy": model.health.is_good if model.has_health else None,
            "reason": "; ".join(filter(None, self._reasons(model, exchange))),
            "restarts": model.restarts,
            "load_seconds": model.load_seconds,
            "slots": model.limiter.slots,
            "running": model.limiter.running,
            "queued": model.queued,
            "devices": model.devices,
            "last_call_at": round(time.time() - ago, 3) if last else None,
            "memory_bytes": sum(found.memory for found in used.values() if found is not None),
            "replicas": [
                {"index": index, "state": state, "pid": pids.get(index), **_shown(used.get(index))}
                for index, state in model.phases().items()
            ],
        }

    def _reasons(self, model: HostedModel, exchange: Exchange) -> tuple[str, ...]:
        health = model.health.problem if model.has_health else ""
        single = model.ill_replicas() if model.state == "ready" else []
        return self._hub.reason(model, exchange.sees, True), *single, health, model.note


def _shown(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {"memory_bytes": None, "uptime_seconds": None}
    return {"memory_bytes": usage.memory, "uptime_seconds": round(usage.uptime, 1)}


def _asked(exchange: Exchange) -> tuple[int, bool]:
    """How many lines, and whether those that come are wanted too."""
    query = parse_qs(exchange.scope.get("query_string", b"").decode("latin-1"))
    count, follow = query.get("lines", ["200"])[0], query.get("follow", ["false"])[0]
    if not count.isdecimal() or len(count) > 9:
        raise BadRequest(f"'lines' must be a number, not '{count[:64]}'", param="lines")
    if follow not in ("true", "false"):
        raise BadRequest(f"'follow' must be true or false, not '{follow[:64]}'", param="follow")
    return int(count), follow == "true"


def _line(line: Line) -> dict[str, Any]:
    return {"time": round(line.at, 3), "model": line.model, "line": line.text}


def _json_lines(lines: list[Line]) -> bytes:
    return b"".join(_encode(_line(line)) + b"\n" for line in lines)
