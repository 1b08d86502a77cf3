"""Requests of a worker to its own gateway that would wait for the worker: recognised, and refused with the reason.

1. While a model loads: a question that names no other model. What asks is the health check of a server that the model
   has started; if that could not have its port, because it is the gateway's, the gateway would answer in its place.
2. A call of a model to itself, while its only slot is held by the call that makes it.

All else passes: a model may call others. Whose a connection is, the kernel's tables say, looked at beside the loop, one
look at a time. Where they do not, for a worker hides its files from who is not as privileged as root, the worker is
asked: not for health checks, not when somebody else is seen to hold the connection, and not when it owes an answer. All
of it only for connections from this machine, while a model loads or when a call has to wait, and never on the way of a
call that starts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..errors import OwnGateway, WaitsForItself
from ..family import STRANGER, Address, Holder, who_holds
from .exchange import Exchange, spawn
from .guards import HEALTH

if TYPE_CHECKING:
    from ..call import Call
    from ..hosted import HostedModel
    from ..hub import Hub
    from ..replica import Replica

SUSPICIOUS = 1.0  # seconds that a call has waited before anybody asks whose it is
SOLE = "model"  # the name that every Truss client sends

LOOK_TIMEOUT = 0.5  # seconds; what is not found by then is a stranger's

Between = tuple[Address, Address]
Line = deque[tuple["Call", Between]]

_lines: dict[HostedModel, Line] = {}  # the calls from this machine that wait, of models with one slot
_looker = ThreadPoolExecutor(1, "whose")  # of its own: health checks must not wait for what else is done on threads

log = logging.getLogger("gateway.http")


def ends(exchange: Exchange) -> Between | None:
    """The client's and ours, of a connection that never left this machine."""
    client, server = exchange.scope.get("client"), exchange.scope.get("server")
    if not client or not server or client[0] != server[0]:
        return None
    return (client[0], client[1]), (server[0], server[1])


async def owner_of(between: Between, replicas: Sequence[Replica], *, may_ask: bool = True) -> Replica | None:
    """Which of these has, itself or by what it started, the client's end of a connection."""
    by_pid = {replica.pid: replica for replica in replicas if replica.pid is not None}
    found = await _look(between, tuple(by_pid))
    if found.process is not None:
        return by_pid[found.process]
    if not may_ask or not found.hidden:
        return None
    hidden = [by_pid[pid] for pid in found.hidden]
    said = await asyncio.gather(*(replica.owns(between[0][1], between[1][1]) for replica in hidden))
    return next((replica for replica, is_its in zip(hidden, said, strict=True) if is_its), None)


async def _look(between: Between, pids: tuple[int, ...]) -> Holder:
    try:
        look = asyncio.wrap_future(_looker.submit(who_holds, *between, pids, time.monotonic() + LOOK_TIMEOUT))
    except RuntimeError:  # no more threads: models may have taken all
        return STRANGER
    await asyncio.wait([look], timeout=LOOK_TIMEOUT)
    if look.done():
        return look.result()
    look.cancel()
    return STRANGER


async def check_question(exchange: Exchange, hub: Hub) -> None:
    """Refuse what a model that loads asks as if this were a server of its own.

    Raises:
        OwnGateway: that is whom it asks.
    """
    loading = {replica: model for model in hub.models.values() for replica in model.loading_replicas()}
    if not loading or exchange.model not in ("", SOLE) or (between := ends(exchange)) is None:
        return
    replica = await owner_of(between, tuple(loading), may_ask=exchange.path not in HEALTH)
    if replica is None:
        return
    model, port = loading[replica], between[1][1]
    who = f"model '{model.name}'" if exchange.sees(model.name) else "a model"  # which says itself that it asks
    what = f"port {port} is that of the gateway itself, not of a server that {who} started"
    if model.asked_us(replica, f"it asked {exchange.path[:128]} while it loaded, but {what}"):
        log.warning("%s asked %s while it loaded; %s", model.name, exchange.path[:128], what)
    raise OwnGateway(f"{what}; give that server another port")


def look_at(exchange: Exchange, model: HostedModel, call: Call) -> None:
    """See to it that a call which has to wait does not wait for itself."""
    if model.limiter.slots != 1 or (between := ends(exchange)) is None:
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


async def _ask(between: Between, model: HostedModel, call: Call) -> None:
    for _, replica in model.ready_replicas():
        running = [other for other in replica.calls() if other.has_slot and other.started <= call.arrived]
        if call.has_slot or call.ended or not running or await owner_of(between, [replica]) is None:
            continue
        if not call.has_slot and not running[0].ended:
            call.abandon(
                WaitsForItself(
                    f"model '{model.name}' calls itself, and its only slot is held by the call that does so: it would "
                    "wait for itself. Raise predict_concurrency, or call the method and not the gateway"
                )
            )
