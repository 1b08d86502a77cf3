"""Metrics of models in a scrape: states, loads and memory, and metrics that the models register themselves."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ...spec import State
from ..routes.health import ask_health
from .series import merge

if TYPE_CHECKING:
    from ...hosting.catalog import Catalog, Sees
    from ...hosting.model import HostedModel
    from ...runners.replica import Replica

log = logging.getLogger("gateway.http")
SCRAPE_TIMEOUT = 2.0  # seconds for all models together; a model that does not answer is left out of the scrape


def families(catalog: Catalog, sees: Sees) -> Iterator[Any]:
    """Yield the gateway's own metrics about models."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    running = GaugeMetricFamily("gateway_requests_in_flight", "Calls that hold a slot.", labels=["model"])
    queued = GaugeMetricFamily("gateway_requests_queued", "Calls that wait for a slot.", labels=["model"])
    states = GaugeMetricFamily("gateway_model_state", "1 for the current state.", labels=["model", "replica", "state"])
    healthy = GaugeMetricFamily("gateway_model_healthy", "Last result of its is_healthy.", labels=["model"])
    restarts = CounterMetricFamily("gateway_replica_restarts", "Restarts of replicas.", labels=["model", "reason"])
    seconds = HistogramMetricFamily("gateway_load_duration_seconds", "Successful loads.", labels=["model"])
    loads = CounterMetricFamily("gateway_model_loads", "Load attempts.", labels=["model", "result"])
    memory = GaugeMetricFamily("gateway_model_memory_bytes", "Resident memory.", labels=["model", "replica", "kind"])
    sizes = HistogramMetricFamily("gateway_batch_size", "Items of a batch.", labels=["model"])
    waits = HistogramMetricFamily("gateway_batch_wait_seconds", "Waiting of an item for its batch.", labels=["model"])
    isolations = CounterMetricFamily("gateway_batch_isolations", "Batches run item by item.", labels=["model"])
    for model in catalog.seen(sees):
        if model.spec.batching.size is not None:
            batches = model.history.batches
            sizes.add_metric([model.name], batches.sizes.buckets(), batches.sizes.total)
            waits.add_metric([model.name], batches.waits.buckets(), batches.waits.total)
            isolations.add_metric([model.name], batches.isolations)
        running.add_metric([model.name], model.limiter.running)
        queued.add_metric([model.name], model.queued)
        if model.has_health and model.health.is_good is not None:
            healthy.add_metric([model.name], float(model.health.is_good))
        for reason, count in model.history.restart_reasons.items():
            restarts.add_metric([model.name, reason], count)
        for result, count in model.history.results.items():
            loads.add_metric([model.name, result], count)
        seconds.add_metric([model.name], model.history.loads.buckets(), model.history.loads.total)
        for replica, phase in model.replicas.phases().items():
            for state in get_args(State):
                states.add_metric([model.name, str(replica), state], float(phase == state))
        for replica, pid in model.replicas.pids().items():
            memory.add_metric([model.name, str(replica), "host"], _resident(pid))
    yield from (running, queued, states, healthy, restarts, seconds, loads, memory, sizes, waits, isolations)


async def scrape(catalog: Catalog, sees: Sees, told: dict[tuple[str, int], Replica]) -> list[Any]:
    """Return what the models registered with prometheus_client in their workers, with the label `model`.

    Those that have an `is_healthy` are asked for that meanwhile. `told` are the replicas, by model and index, of which
    the log has said that metrics are left out: one line each, however often they are scraped.
    """
    seen = catalog.seen(sees)
    replicas = [(model, index, replica) for model in seen for index, replica in model.replicas.ready_by_index()]
    if not replicas:
        return []
    tasks = [asyncio.ensure_future(replica.scrape()) for _, _, replica in replicas]
    health = asyncio.create_task(ask_health(seen, SCRAPE_TIMEOUT))
    try:
        await asyncio.wait([*tasks, health], timeout=SCRAPE_TIMEOUT)
    finally:  # also if the key of the scrape is revoked meanwhile
        for task in tasks:
            task.cancel()
    texts, theirs = [], []
    for (model, index, replica), task in zip(replicas, tasks, strict=True):
        if task.done() and task.exception() is None and task.result():
            texts.append((_labels(model, index), task.result()))
            theirs.append(((model.name, index), replica))
    if not texts:
        return []
    families, left_out = await asyncio.to_thread(merge, texts)
    for number, reason in left_out.items():
        place, replica = theirs[number]
        if told.get(place) is not replica:
            told[place] = replica
            log.warning("%s", reason)
    return families


def _labels(model: HostedModel, index: int) -> dict[str, str]:
    return {"model": model.name, **({"replica": str(index)} if model.spec.replicas > 1 else {})}


def _resident(pid: int) -> float:
    """Return resident memory in bytes, or 0 if it is unknown or the process is gone."""
    try:
        return float(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0.0
