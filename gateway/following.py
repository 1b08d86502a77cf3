"""A model whose files have changed is served as they are now: each on a task of its own, and the newest change counts.

A change that comes while an earlier one is loaded supersedes it: that load is given up, for it may never end. A model
that writes to its own directory whenever it loads would so never be loaded; once that has happened often in a row, a
load has ever more time until it is given up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .keeper import to_the_end
from .reloading import reload_told

if TYPE_CHECKING:
    from .hosted import HostedModel
    from .hub import Hub

log = logging.getLogger("gateway.models")

SLOW = 10.0  # seconds of a reload after which people are told how to end it
FILES = "a change of its files"  # who gives the orders here, for the audit log
OWN = "where it writes them itself, they belong in its data directory, or it is loaded again and again"
AT_ONCE = 10  # loads in a row that a newer change ends as soon as it is seen


class Following:
    """Names of models → the tasks that reload them."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._newer: dict[str, asyncio.Event] = {}  # set when there is a change that nobody has begun to load
        self._tasks: set[asyncio.Task[None]] = set()

    def changed(self, names: Iterable[str]) -> None:
        """Begin to load these as they are now; what loads of them already is given up."""
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
        """Until the last change is served, or could not be."""
        given_up = 0
        try:
            while newer.is_set() and (model := self._hub.models.get(name)) is not None and not model.is_gone:
                if model.is_stopping:
                    log.info("%s: its files have changed; they count when its stop has ended", name)
                    await model.replaceable()
                    continue
                newer.clear()
                given_up = 0 if await self._load(model, newer, _patience(given_up)) else given_up + 1
                if given_up == AT_ONCE:
                    log.warning("%s: its files changed during %d loads in a row; %s", name, given_up, OWN)
        finally:
            del self._newer[name]

    async def _load(self, model: HostedModel, newer: asyncio.Event, patience: float) -> bool:
        """Whether it came to an end, good or bad, before a newer change; each load has `patience` in seconds."""
        loading = asyncio.create_task(reload_changed(self._hub, model), name=f"{model.name}/following")
        waiting = asyncio.create_task(newer.wait())
        earliest = asyncio.get_running_loop().time() + patience
        try:
            await asyncio.wait([loading, waiting], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([loading], timeout=max(0.0, earliest - asyncio.get_running_loop().time()))
            if is_ended := loading.done():
                loading.result()
            else:
                log.info("%s: its files have changed again: what loads is given up", model.name)
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
    """Reload it, and say how it went."""
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
    """It may load large files, or in a loop without end, and who mends that would wait for it to end."""
    log.info("%s: it still loads; the next change of its files begins anew", name)


async def _read(hub: Hub, model: HostedModel) -> None:
    """Its next load is of the files as they are now."""
    then = "its next call loads it" if hub.is_lazy(model.name) else f"`gateway load {model.name}` loads it"
    if await reload_told(hub, model, FILES, "read"):
        log.info("%s: its files have changed; it is not loaded: %s", model.name, then, extra={"model": model.name})
