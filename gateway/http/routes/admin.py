"""Queries and orders of operators, over the admin socket; over HTTP only if the settings and the key allow it.

These are the routes with a door in `route_table.py`. A key without the scope admin is refused. Without `admin_http` the
URLs do not exist. A key with model patterns operates only the models that it sees. Log routes take `?lines=50`, and
with `follow=true` they stream new lines.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from ...devices.placement import NO_ROOM
from ...errors import BadRequest, ConfigError, GatewayError, UnknownModel
from ...hosting.model_roots import find_again, look_again, where_it_would_be
from ...hosting.reload import ONLY_READ, NoRoom, reload
from ...runners.replica import LoadError
from ...system.processes import Usage, usage_of
from ...telemetry.audit import Outcome, audited
from ..answering import UNBUFFERED
from ..carried_out import carried_out
from ..exchange import Exchange
from .audit_actors import actor_of
from .audit_orders import IS_READY, name_of, unload_for
from .health import ask_health

if TYPE_CHECKING:
    from ...access.permits import KeyRing
    from ...hosting.hub import Hub
    from ...hosting.model import HostedModel
    from ...telemetry.log_tails import Line

AT_A_TIME = 100  # lines of a followed log that are written at once
HEALTH_WAIT = 1.0  # seconds that a list waits for health checks of models

_encode = msgspec.json.encode


class NotReloaded(GatewayError):
    """The new version cannot be used. The old one keeps serving, or the model's state says what happened to it."""

    status = 422
    type = "invalid_request_error"
    code = "reload_failed"
    should_retry = False


class Admin:
    def __init__(self, hub: Hub, keys: KeyRing) -> None:
        self._hub, self._catalog, self._keys = hub, hub.catalog, keys

    async def logs(self, exchange: Exchange) -> None:
        name = self._model(exchange).name
        count, follows = _asked(exchange)
        wants = name.__eq__
        if follows:
            await self._follow(exchange, count, wants)
            return
        await exchange.reply(200, _encode({"model": name, "lines": [*map(_line, self._hub.tails.last(count, wants))]}))

    async def all_logs(self, exchange: Exchange) -> None:
        count, follows = _asked(exchange)
        if follows:
            await self._follow(exchange, count, exchange.sees)
            return
        lines = self._hub.tails.last(count, exchange.sees)
        await exchange.reply(200, _encode({"lines": [*map(_line, lines)]}))

    async def _follow(self, exchange: Exchange, count: int, wants: Callable[[str], bool]) -> None:
        """Stream one JSON object for each line, until the client leaves or the gateway stops."""
        tails = self._hub.tails
        with tails.follow(wants) as follower:
            lines = tails.last(count, wants)  # later lines come from the follower
            exchange.watch(follower)
            if follower.error is not None:  # the caller has lost access already
                raise follower.error
            await exchange.start(200, [(b"content-type", b"application/x-ndjson"), UNBUFFERED])
            await exchange.write(b"")  # at once: it sends the head
            await _send(exchange, lines, wants)
            while lines := await follower.lines():
                await _send(exchange, lines, wants)
        if follower.error is not None:
            exchange.break_off()
            raise follower.error
        if not exchange.client_is_gone:
            await exchange.write(b"", last=True)

    async def models(self, exchange: Exchange) -> None:
        seen = self._catalog.seen(exchange.sees)
        await ask_health(seen, HEALTH_WAIT)
        found: dict[str, Any] = {"models": await self._described(seen, exchange)}
        if exchange.is_local:  # other callers get no paths of this machine
            found["roots"] = [str(root.expanduser().absolute()) for root in self._hub.settings.gateway.models]
        await exchange.reply(200, _encode(found))

    async def look(self, exchange: Exchange) -> None:
        found = await carried_out(look_again(self._hub, exchange.sees, actor_of(exchange)))
        await exchange.reply(200, _encode({"new": found.new, "failed": found.broken, "gone": found.gone}))

    async def reload_keys(self, exchange: Exchange) -> None:
        keys = self._keys
        if reason := await carried_out(keys.reload(str(actor_of(exchange)))):
            raise NotReloaded(f"the keys stay as they were: {reason}")
        await exchange.reply(200, _encode({"file": keys.place, "keys": keys.in_force}))

    async def reload(self, exchange: Exchange) -> None:
        await self._tell(exchange, *await carried_out(self._reload(exchange)))

    async def _reload(self, exchange: Exchange) -> tuple[HostedModel, Outcome]:
        with audited(actor_of(exchange), "reload", name_of(self._catalog, exchange)) as outcome:
            model, is_new = await self._found(exchange, "reloaded")
            if not is_new and not await self._read_again(exchange, model, "reloaded"):
                outcome.words = ONLY_READ
            await self._settled(exchange, model)
        return model, outcome

    async def load(self, exchange: Exchange) -> None:
        await self._tell(exchange, *await carried_out(self._load(exchange)))

    async def _load(self, exchange: Exchange) -> tuple[HostedModel, Outcome]:
        with audited(actor_of(exchange), "load", name_of(self._catalog, exchange)) as outcome:
            model, is_new = await self._found(exchange, "loaded")
            if not is_new and model.state in ("failed", "unloaded"):
                await self._read_again(exchange, model, "loaded")
            elif model.state == "ready":  # it is loaded anyway: its directory may be gone
                await look_again(self._hub, exchange.sees, actor_of(exchange), ordered=model.name)
                outcome.words = IS_READY
            await self._hub.load(model)
            await self._settled(exchange, model)
        return model, outcome

    async def _read_again(self, exchange: Exchange, model: HostedModel, what: str) -> bool:
        """Read the model again. Return whether that loaded it."""
        try:
            return await reload(self._hub, model)
        except (ConfigError, LoadError) as error:
            sees_all = len(self._catalog.seen(exchange.sees)) == len(self._catalog.models)
            reason = NO_ROOM if isinstance(error, NoRoom) and not sees_all else error
            raise NotReloaded(f"model '{model.name}' was not {what}: {reason}") from error

    async def _settled(self, exchange: Exchange, model: HostedModel) -> None:
        """Wait until the model is ready, has failed, or waits for its first request."""
        if model.state == "loading":
            await model.settled()
        if model.state not in ("ready", "unloaded"):
            reason = self._catalog.reason(model, exchange.sees, True)
            raise NotReloaded(f"model '{model.name}' was not loaded: {reason}")

    async def unload(self, exchange: Exchange) -> None:
        await self._tell(exchange, *await carried_out(unload_for(self._hub, exchange, self._model)))

    async def _found(self, exchange: Exchange, what: str) -> tuple[HostedModel, bool]:
        """Return the model, and whether it had to be searched in the model roots."""
        exchange.asked = name = exchange.named
        exchange.counted_for = ""  # an order is not a call of the model
        known = list(self._catalog.models.values())
        try:
            model = await find_again(self._hub, name, exchange.sees, actor_of(exchange))
        except LoadError as error:
            raise NotReloaded(f"model '{name}' was not {what}: {error}") from error
        except UnknownModel as error:
            if not exchange.is_local:  # other callers get no paths of this machine
                raise
            error.message += f"; {await asyncio.to_thread(where_it_would_be, self._hub, name)}"
            raise
        exchange.subject = model.name
        return model, model not in known

    def _model(self, exchange: Exchange) -> HostedModel:
        model = self._catalog.find(exchange.named, exchange.sees)
        exchange.ask_about(model.name)
        return model

    async def _tell(self, exchange: Exchange, model: HostedModel, outcome: Outcome) -> None:
        (found,) = await self._described([model], exchange)
        await exchange.reply(200, _encode({**found, "outcome": outcome.words}))

    async def _described(self, models: list[HostedModel], exchange: Exchange) -> list[dict[str, Any]]:
        # In a thread: it reads about all processes of the machine.
        usage = await asyncio.to_thread(usage_of, [pid for model in models for pid in model.replicas.pids().values()])
        return [self._describe(model, exchange, usage) for model in models]

    def _describe(self, model: HostedModel, exchange: Exchange, usage: dict[int, Usage]) -> dict[str, Any]:
        pids, last = model.replicas.pids(), model.limiter.last_call
        ago = asyncio.get_running_loop().time() - last
        used = {index: usage.get(pid) for index, pid in pids.items()}
        return {
            "id": model.name,
            "state": model.state,
            "healthy": model.health.is_good if model.has_health else None,
            "reason": "; ".join(filter(None, self._reasons(model, exchange))),
            "restarts": model.history.restarts,
            "load_seconds": model.history.last_load,
            "slots": model.limiter.slots,
            "running": model.limiter.running,
            "queued": model.queued,
            "devices": self._hub.ledger.devices_of(model.name),
            "last_call_at": round(time.time() - ago, 3) if last else None,
            "memory_bytes": sum(found.memory for found in used.values() if found is not None),
            "replicas": [
                {"index": index, "state": state, "pid": pids.get(index), **_shown(used.get(index))}
                for index, state in model.replicas.phases().items()
            ],
        }

    def _reasons(self, model: HostedModel, exchange: Exchange) -> tuple[str, ...]:
        health = model.health.problem if model.has_health else ""
        single = model.replicas.ill() if model.state == "ready" else []
        return (
            self._catalog.reason(model, exchange.sees, True),
            *single,
            health,
            self._catalog.note(model, exchange.sees),
        )


def _shown(usage: Usage | None) -> dict[str, Any]:
    if usage is None:
        return {"memory_bytes": None, "uptime_seconds": None}
    return {"memory_bytes": usage.memory, "uptime_seconds": round(usage.uptime, 1)}


def _asked(exchange: Exchange) -> tuple[int, bool]:
    """Return how many lines are requested, and whether to follow."""
    query = parse_qs(exchange.scope.get("query_string", b"").decode("latin-1"))
    count, follow = query.get("lines", ["200"])[0], query.get("follow", ["false"])[0]
    if not count.isdecimal() or len(count) > 9:
        raise BadRequest(f"'lines' must be a number, not '{count[:64]}'", param="lines")
    if follow not in ("true", "false"):
        raise BadRequest(f"'follow' must be true or false, not '{follow[:64]}'", param="follow")
    return int(count), follow == "true"


def _line(line: Line) -> dict[str, Any]:
    return {"time": round(line.at, 3), "model": line.model, "line": line.text}


async def _send(exchange: Exchange, lines: list[Line], wants: Callable[[str], bool]) -> None:
    """Send lines, a few at a time: until its client has read the earlier ones, the caller may have lost a model."""
    for start in range(0, len(lines), AT_A_TIME):
        few = [line for line in lines[start : start + AT_A_TIME] if not line.model or wants(line.model)]
        if few:
            await exchange.write(_json_lines(few))


def _json_lines(lines: list[Line]) -> bytes:
    return b"".join(_encode(_line(line)) + b"\n" for line in lines)
