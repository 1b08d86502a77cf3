"""Reload models whose files have changed. Each model has its own task, and the newest change wins.

A change that comes during a load cancels that load, because it may never end. A model that writes to its own directory
at every load would then never finish loading. So after AT_ONCE cancelled loads in a row, each load gets more and more
time before it is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .reload import reload_told
from .supervisor import to_the_end

if TYPE_CHECKING:
    from .hub import Hub
    from .model import HostedModel

log = logging.getLogger("gateway.models")

SLOW = 10.0  # seconds of a reload after which the log says how to restart it
FILES = "a change of its files"  # the actor in the audit log
OWN = "if it writes them itself, they belong in its data directory; otherwise it is reloaded again and again"
AT_ONCE = 10  # loads in a row that a newer change cancels immediately


class Following:
    """The reload tasks by model name."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._newer: dict[str, asyncio.Event] = {}  # set while there is a change that is not being loaded yet
        self._tasks: set[asyncio.Task[None]] = set()

    def changed(self, names: Iterable[str]) -> None:
        """Start to reload these models; a load that is already running is cancelled."""
        for name in sorted(names):
            newer = self._newer.get(name)
            if newer is None:
                newer = self._newer[name] = asyncio.Event()
                task = asyncio.create_task(self._follow(name, newer), name=f"{name}/following")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            newer.set()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _follow(self, name: str, newer: asyncio.Event) -> None:
        """Reload until the last change is served, or has failed to load."""
        given_up = 0
        try:
            while newer.is_set() and (model := self._hub.catalog.models.get(name)) is not None and not model.is_gone:
                if model.is_stopping:
                    log.info("%s: its files have changed; they take effect after it has stopped", name)
                    await model.replaceable()
                    continue
                newer.clear()
                given_up = 0 if await self._load(model, newer, _patience(given_up)) else given_up + 1
                if given_up == AT_ONCE:
                    log.warning("%s: its files changed during %d loads in a row; %s", name, given_up, OWN)
        finally:
            del self._newer[name]

    async def _load(self, model: HostedModel, newer: asyncio.Event, patience: float) -> bool:
        """Return whether the load ended, well or badly, before a newer change.

        Each load has at least `patience` seconds.
        """
        loading = asyncio.create_task(reload_changed(self._hub, model), name=f"{model.name}/following")
        waiting = asyncio.create_task(newer.wait())
        earliest = asyncio.get_running_loop().time() + patience
        try:
            await asyncio.wait([loading, waiting], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([loading], timeout=max(0.0, earliest - asyncio.get_running_loop().time()))
            if is_ended := loading.done():
                loading.result()
            else:
                log.info("%s: its files have changed again; the running load is cancelled", model.name)
            return is_ended
        finally:
            waiting.cancel()
            loading.cancel()
            await to_the_end(_ended(loading))


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


def _patience(given_up: int) -> float:
    return 0.0 if given_up < AT_ONCE else 2.0 ** (given_up - AT_ONCE + 1)


async def reload_changed(hub: Hub, model: HostedModel) -> None:
    """Reload the model and log the outcome."""
    try:
        if model.state == "unloaded":
            await _read(hub, model)
            return
        log.info("%s: its files have changed", model.name)
        timer = asyncio.get_running_loop().call_later(SLOW, _tell_slow, model.name)
        try:
            await reload_told(hub, model, FILES)
        finally:
            timer.cancel()
    except Exception:
        log.exception("%s: not reloaded", model.name)


def _tell_slow(name: str) -> None:
    """Log that a new change restarts the load. It may be in an endless loop, so waiting for it would be useless."""
    log.info("%s: it is still loading; the next change of its files restarts the load", name)


async def _read(hub: Hub, model: HostedModel) -> None:
    """Read the changed files of an unloaded model, for its next load."""
    then = "its next call loads it" if hub.is_lazy(model.name) else f"`gateway load {model.name}` loads it"
    if await reload_told(hub, model, FILES, "read"):
        log.info("%s: its files have changed; it is not loaded: %s", model.name, then, extra={"model": model.name})
