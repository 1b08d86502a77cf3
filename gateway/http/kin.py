"""Requests of a worker to its own gateway that would wait for the worker: recognised, and refused with the reason.

1. While a model loads: a question that names no other model. What asks is the health check of a server that the model
   has started; if that could not have its port, because it is the gateway's, the gateway would answer in its place.
2. A call of a model to itself, while its only slot is held by the call that makes it.

All else passes: a model may call others. The worker says whether a connection is its own; it is asked only for
connections from this machine, only while a model loads or when a call has to wait, and never on the way of a call that
starts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from ..errors import OwnGateway, WaitsForItself
from .exchange import Exchange, spawn

if TYPE_CHECKING:
    from ..call import Call
    from ..hosted import HostedModel
    from ..hub import Hub

SUSPICIOUS = 1.0  # seconds that a call has waited before anybody asks whose it is
SOLE = "model"  # the name that every Truss client sends

Line = deque[tuple["Call", tuple[int, int]]]

_lines: dict[HostedModel, Line] = {}  # the calls from this machine that wait, of models with one slot

log = logging.getLogger("gateway.http")


def ports(exchange: Exchange) -> tuple[int, int] | None:
    """The client's and ours, of a connection that never left this machine."""
    client, server = exchange.scope.get("client"), exchange.scope.get("server")
    if not client or not server or client[0] != server[0]:
        return None
    return client[1], server[1]


async def check_question(exchange: Exchange, hub: Hub) -> None:
    """Refuse what a model that loads asks as if this were a server of its own.

    Raises:
        OwnGateway: that is whom it asks.
    """
    loading = [(model, replica) for model in hub.models.values() for replica in model.loading_replicas()]
    if not loading or exchange.model not in ("", SOLE) or (between := ports(exchange)) is None:
        return
    theirs = await asyncio.gather(*(replica.owns(*between) for _, replica in loading))
    for (model, replica), is_theirs in zip(loading, theirs, strict=True):
        if is_theirs:
            who = f"model '{model.name}'" if exchange.sees(model.name) else "a model"  # which says itself that it asks
            what = f"port {between[1]} is that of the gateway itself, not of a server that {who} started"
            if model.asked_us(replica, f"it asked {exchange.path[:128]} while it loaded, but {what}"):
                log.warning("%s asked %s while it loaded; %s", model.name, exchange.path[:128], what)
            raise OwnGateway(f"{what}; give that server another port")


def look_at(exchange: Exchange, model: HostedModel, call: Call) -> None:
    """See to it that a call which has to wait does not wait for itself."""
    if model.limiter.slots != 1 or (between := ports(exchange)) is None:
        return
    line = _lines.get(model)
    if line is None:
        line = _lines[model] = deque()
        spawn(_watch(model, line))
    _tidy(line)
    line.append((call, between))


def _tidy(line: Line) -> bool:
    """Forget those at the head of the line that wait no more; False when nobody is left."""
    while line and (line[0][0].has_slot or line[0][0].ended or line[0][0].error is not None):
        line.popleft()
    return bool(line)


async def _watch(model: HostedModel, line: Line) -> None:
    """One task for all calls of a model that wait: most of them do for milliseconds, and there may be many."""
    now = asyncio.get_running_loop().time
    try:
        while _tidy(line):
            if (rest := line[0][0].arrived + SUSPICIOUS - now()) > 0:
                await asyncio.sleep(rest)
            else:
                call, between = line.popleft()
                spawn(_ask(between, model, call))
    finally:
        del _lines[model]


async def _ask(between: tuple[int, int], model: HostedModel, call: Call) -> None:
    for _, replica in model.ready_replicas():
        running = [other for other in replica.calls() if other.has_slot and other.started <= call.arrived]
        if call.has_slot or call.ended or not running or not await replica.owns(*between):
            continue
        if not call.has_slot and not running[0].ended:
            call.abandon(
                WaitsForItself(
                    f"model '{model.name}' calls itself, and its only slot is held by the call that does so: it would "
                    "wait for itself. Raise predict_concurrency, or call the method and not the gateway"
                )
            )
