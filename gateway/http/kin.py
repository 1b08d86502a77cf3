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
from typing import TYPE_CHECKING

from ..errors import OwnGateway, WaitsForItself
from .exchange import Exchange, spawn

if TYPE_CHECKING:
    from ..call import Call
    from ..hosted import HostedModel
    from ..hub import Hub

SUSPICIOUS = 1.0  # seconds that a call has waited before anybody asks whose it is
SOLE = "model"  # the name that every Truss client sends

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
            what = f"port {between[1]} is that of the gateway itself, not of a server that model '{model.name}' started"
            if model.asked_us(replica, f"it asked {exchange.path[:128]} while it loaded, but {what}"):
                log.warning("%s asked %s while it loaded; %s", model.name, exchange.path[:128], what)
            raise OwnGateway(f"{what}; give that server a port of its own")


def look_at(exchange: Exchange, model: HostedModel, call: Call) -> None:
    """See to it that a call which has to wait does not wait for itself."""
    if model.limiter.slots == 1 and (between := ports(exchange)) is not None:
        spawn(_look_at(between, model, call))


async def _look_at(between: tuple[int, int], model: HostedModel, call: Call) -> None:
    await asyncio.sleep(SUSPICIOUS)
    for _, replica in model.ready_replicas():
        running = [other for other in replica.calls() if other.started and other.started <= call.arrived]
        if call.started or call.ended or not running or not await replica.owns(*between):
            continue
        if not call.started and not running[0].ended:
            call.abandon(
                WaitsForItself(
                    f"model '{model.name}' calls itself, and its only slot is held by the call that does so: it would "
                    "wait for itself. Raise predict_concurrency, or call the method and not the gateway"
                )
            )
