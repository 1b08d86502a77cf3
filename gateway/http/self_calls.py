"""Detect and refuse requests that a worker makes to its own gateway and that would wait for that worker.

1. While a model loads: a request that names no other model. It is typically the health check of a server that the model
   starts. If that server could not get its port because the gateway uses it, the gateway would answer in its place.
2. A call of a model to itself, while the call that makes it holds the model's only slot.

All other requests pass: a model may call others. The kernel's tables tell which process a connection belongs to. They
are read off the loop, one lookup at a time. If they cannot tell, because a worker's files are hidden from less
privileged processes, the worker is asked. It is not asked for health checks, if another process is known to hold the
connection, or while it owes an answer. All of this happens only for connections from this machine, while a model loads
or when a call has to wait. It never delays a call that can start.
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
from ..hosting.catalog import SOLE
from ..system.process_family import STRANGER, Address, Holder, who_holds
from ..telemetry.redaction import cut
from .exchange import Exchange, spawn
from .route_table import HEALTH

if TYPE_CHECKING:
    from ..hosting.catalog import Catalog
    from ..hosting.model import HostedModel
    from ..runners.call import Call
    from ..runners.replica import Replica

SUSPICIOUS = 1.0  # seconds that a call waits before its origin is looked up
LOOK_TIMEOUT = 0.5  # seconds; after that the process counts as unknown

Between = tuple[Address, Address]
Line = deque[tuple["Call", Between]]

_lines: dict[HostedModel, Line] = {}  # waiting calls from this machine, of models with one slot
_looker = ThreadPoolExecutor(1, "whose")  # its own thread: health checks must not wait for other work

log = logging.getLogger("gateway.http")


def ends(exchange: Exchange) -> Between | None:
    """Return the client's and the server's address of a connection within this machine, else None."""
    client, server = exchange.scope.get("client"), exchange.scope.get("server")
    if not client or not server or client[0] != server[0]:
        return None
    return (client[0], client[1]), (server[0], server[1])


async def owner_of(between: Between, replicas: Sequence[Replica], *, may_ask: bool = True) -> Replica | None:
    """Return which replica, by itself or by a process that it started, holds the client's end of a connection."""
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
    except RuntimeError:  # no more threads: models may use all of them
        return STRANGER
    await asyncio.wait([look], timeout=LOOK_TIMEOUT)
    if look.done():
        return look.result()
    look.cancel()
    return STRANGER


async def check_question(exchange: Exchange, catalog: Catalog) -> None:
    """Refuse a request of a loading model that takes the gateway for a server of its own.

    Raises:
        OwnGateway: it is such a request.
    """
    loading = {replica: model for model in catalog.models.values() for replica in model.replicas.loading()}
    if not loading or exchange.named not in ("", SOLE) or (between := ends(exchange)) is None:
        return
    replica = await owner_of(between, tuple(loading), may_ask=exchange.path not in HEALTH)
    if replica is None:
        return
    model, port = loading[replica], between[1][1]
    who = f"model '{model.name}'" if exchange.sees(model.name) else "a model"  # callers may not learn of hidden models
    what = f"port {port} is that of the gateway itself, not of a server that {who} started"
    if model.replicas.hint(replica, f"it asked {cut(exchange.path, 128)} while it loaded, but {what}"):
        log.warning("%s asked %s while it loaded; %s", model.name, cut(exchange.path, 128), what)
    raise OwnGateway(f"{what}; give that server another port")


def look_at(exchange: Exchange, model: HostedModel, call: Call) -> None:
    """Watch a call that has to wait, so that it does not wait for itself."""
    if model.limiter.slots != 1 or (between := ends(exchange)) is None:
        return
    line = _lines.get(model)
    if line is None:
        line = _lines[model] = deque()
        spawn(_watch(model, line))
    _tidy(line)
    line.append((call, between))


def _tidy(line: Line) -> bool:
    """Drop calls at the head of the line that no longer wait. Return False if the line is empty."""
    while line and (line[0][0].has_slot or line[0][0].ended or line[0][0].error is not None):
        line.popleft()
    return bool(line)


async def _watch(model: HostedModel, line: Line) -> None:
    """Watch all waiting calls of a model in one task: most wait for milliseconds, and there may be many."""
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
    for replica in model.replicas.ready():
        running = [other for other in replica.calls() if other.has_slot and other.started <= call.arrived]
        if call.has_slot or call.ended or not running or await owner_of(between, [replica]) is None:
            continue
        if not call.has_slot and not running[0].ended:
            call.abandon(
                WaitsForItself(
                    f"model '{model.name}' calls itself while that call holds its only slot, so it would wait for "
                    "itself. Raise predict_concurrency, or call the method directly instead of the gateway"
                )
            )
