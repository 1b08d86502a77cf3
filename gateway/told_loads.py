"""The audit of loads that no order waits for: those of a start, of a look at the roots, and of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import audit
from .wording import counted

if TYPE_CHECKING:
    from .audit import Actor
    from .hosted import HostedModel

START = "the start"
_tasks: set[asyncio.Task[bool]] = set()


def tell_later(actor: Actor | str, models: Iterable[HostedModel]) -> None:
    """Record what comes of each load that has begun, when it has ended."""
    for model in models:
        task = asyncio.get_running_loop().create_task(_tell(actor, model), name=f"{model.name}/audit")
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


async def tell_start(models: Iterable[HostedModel]) -> None:
    """Record each load of a start that fails, and when the last has ended, how many are ready."""
    models = list(models)
    begun = [model for model in models if model.state != "unloaded"]
    good = await asyncio.gather(*(_tell(START, model, only_failed=True) for model in begun))
    ready, failed, lazy = sum(good), len(begun) - sum(good), len(models) - len(begun)
    told = f"{counted(ready, 'model')} loaded, {failed} failed, {lazy} not loaded until a request comes"
    audit.record(START, "load", outcome=told, more={"loaded": ready, "failed": failed, "lazy": lazy})


async def _tell(actor: Actor | str, model: HostedModel, *, only_failed: bool = False) -> bool:
    """Whether it is ready."""
    state = await model.settled()
    if state == "ready":
        if not only_failed:
            audit.record(actor, "load", model=model.name)
        return True
    reason = model.reason.partition("\n")[0] if state == "failed" else "it was stopped before it was ready"
    audit.refused(actor, "load", reason, model=model.name)
    return False
