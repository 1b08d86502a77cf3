"""Audit records for loads whose outcome no command waits for: at the start, after a scan of the roots, on a request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..telemetry import audit
from ..wording import counted

if TYPE_CHECKING:
    from ..telemetry.audit import Actor
    from .model import HostedModel

START = "the start"
_tasks: set[asyncio.Task[bool]] = set()


def tell_later(actor: Actor | str, models: Iterable[HostedModel]) -> None:
    """Record the outcome of each load that has begun, when it ends."""
    for model in models:
        task = asyncio.get_running_loop().create_task(_tell(actor, model), name=f"{model.name}/audit")
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


async def tell_start(models: Iterable[HostedModel]) -> None:
    """Record each load that fails during the start, and a summary when the last has ended."""
    models = list(models)
    begun = [model for model in models if model.state != "unloaded"]
    good = await asyncio.gather(*(_tell(START, model, only_failed=True) for model in begun))
    ready, failed, lazy = sum(good), len(begun) - sum(good), len(models) - len(begun)
    told = f"{counted(ready, 'model')} loaded, {failed} failed, {lazy} not loaded until a request comes"
    audit.record(START, "load", outcome=told, more={"loaded": ready, "failed": failed, "lazy": lazy})


async def _tell(actor: Actor | str, model: HostedModel, *, only_failed: bool = False) -> bool:
    """Wait for the load, record it, and return whether the model is ready."""
    state = await model.settled()
    if state == "ready":
        if not only_failed:
            audit.record(actor, "load", model=model.name)
        return True
    reason = model.reason.partition("\n")[0] if state == "failed" else "it was stopped before it was ready"
    audit.refused(actor, "load", reason, model=model.name)
    return False
