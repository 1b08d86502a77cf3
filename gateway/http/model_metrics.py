"""What a scrape says of the models: their states, loads and memory, and what they themselves registered."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ..health_check import ask_health
from ..spec import State
from .model_series import merge

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub, Sees

log = logging.getLogger("gateway.http")
SCRAPE_TIMEOUT = 2.0  # seconds for all models together; a busy one is left out of that scrape


def families(hub: Hub, sees: Sees) -> Iterator[Any]:
    """Our own family of metrics about models."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    running = GaugeMetricFamily("gateway_requests_in_flight", "Calls that hold a slot.", labels=["model"])
    queued = GaugeMetricFamily("gateway_requests_queued", "Calls that wait for one.", labels=["model"])
    states = GaugeMetricFamily("gateway_model_state", "1 for the state it is in.", labels=["model", "replica", "state"])
    healthy = GaugeMetricFamily("gateway_model_healthy", "What its own is_healthy said last.", labels=["model"])
    restarts = CounterMetricFamily("gateway_replica_restarts", "Replicas started again.", labels=["model", "reason"])
    seconds = HistogramMetricFamily("gateway_load_duration_seconds", "Of good loads.", labels=["model"])
    loads = CounterMetricFamily("gateway_model_loads", "Loads tried.", labels=["model", "result"])
    memory = GaugeMetricFamily("gateway_model_memory_bytes", "Resident memory.", labels=["model", "replica", "kind"])
    for model in hub.seen(sees):
        running.add_metric([model.name], model.limiter.running)
        queued.add_metric([model.name], model.queued)
        if model.has_health and model.health.is_good is not None:
            healthy.add_metric([model.name], float(model.health.is_good))
        for reason, count in model.restart_reasons.items():
            restarts.add_metric([model.name, reason], count)
        for result, count in model.load_results.items():
            loads.add_metric([model.name, result], count)
        seconds.add_metric([model.name], model.loads.buckets(), model.loads.total)
        for replica, phase in model.phases().items():
            for state in get_args(State):
                states.add_metric([model.name, str(replica), state], float(phase == state))
        for replica, pid in model.pids().items():
            memory.add_metric([model.name, str(replica), "host"], _resident(pid))
    yield from (running, queued, states, healthy, restarts, seconds, loads, memory)


async def scrape(hub: Hub, sees: Sees) -> list[Any]:
    """What the models registered with prometheus_client in their workers, with the label `model`.

    Those that have an `is_healthy` are asked for that meanwhile.
    """
    seen = hub.seen(sees)
    replicas = [(model, index, replica) for model in seen for index, replica in model.ready_replicas()]
    if not replicas:
        return []
    tasks = [asyncio.ensure_future(replica.scrape()) for _, _, replica in replicas]
    health = asyncio.create_task(ask_health(seen, SCRAPE_TIMEOUT))
    await asyncio.wait([*tasks, health], timeout=SCRAPE_TIMEOUT)
    texts = []
    for (model, index, _), task in zip(replicas, tasks, strict=True):
        if not task.done():
            task.cancel()
        elif task.exception() is None and task.result():
            texts.append((_labels(model, index), task.result()))
    if not texts:
        return []
    families, left_out = await asyncio.to_thread(merge, texts)
    for reason in left_out:
        log.warning("%s", reason)
    return families


def _labels(model: HostedModel, index: int) -> dict[str, str]:
    return {"model": model.name, **({"replica": str(index)} if model.spec.replicas > 1 else {})}


def _resident(pid: int) -> float:
    """Bytes; 0 where the system does not say, or the process is gone."""
    try:
        return float(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return 0.0
