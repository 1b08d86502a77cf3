"""`gateway serve --reload`: a model whose files change is reloaded, one that is new or mended is found.

A model may write very many files at once. So paths are looked at on a thread, and the loop gets names of models.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .audit import audited
from .errors import ConfigError
from .reloading import reload
from .replica import LoadError
from .roots import look_again

if TYPE_CHECKING:
    from watchfiles import Change

    from .hosted import HostedModel
    from .hub import Hub
    from .spec import ModelSpec

log = logging.getLogger("gateway.models")

SETTLE = 400  # milliseconds of quiet after a change: editors write in several steps
ROOT_POLL = 1000  # milliseconds between two looks for a model root that is not there yet
KINDS = (".py", ".pyx", ".pyd", ".yaml", ".yml", ".json", ".toml", ".txt", ".jinja")
NOBODY = ""  # in the place of a model's name


class Changed(NamedTuple):
    """What some changes of files concern."""

    models: frozenset[str]
    roots: bool  # something may be a model now, or be mended
    places: frozenset[Path]  # what is to be watched by now


async def watch(hub: Hub) -> None:
    """Reload and find models as files change, until cancelled."""
    while True:
        try:
            await _watch(hub)
        except Exception:  # a root that vanished, a limit of the system on watched directories
            log.exception("the files of models could not be watched")
            await asyncio.sleep(ROOT_POLL / 1000)
        await _look(hub)


async def _watch(hub: Hub) -> None:
    """Returns when other directories are to be watched."""
    roots = hub.settings.gateway.models
    watched = await asyncio.to_thread(places, roots, _specs(hub))
    if not watched:
        await asyncio.sleep(ROOT_POLL / 1000)
        return
    files = Files(roots, watched)
    try:
        while True:
            changed = await files.changed(_specs(hub))
            if changed.roots:
                await _look(hub)
            for name in sorted(changed.models & hub.models.keys()):
                await _reload(hub, hub.models[name])
            if changed.places != watched:
                return
    finally:
        files.close()


def _specs(hub: Hub) -> list[ModelSpec]:
    return [model.spec for model in hub.models.values() if not model.spec.is_stand_in]


def places(roots: Iterable[Path], specs: Iterable[ModelSpec]) -> frozenset[Path]:
    """The roots that are there, and the directories of models that links lead to from them."""
    found = {root.expanduser().resolve() for root in roots if root.expanduser().is_dir()}
    linked = {spec.root.resolve() for spec in specs if spec.root.is_dir()}
    return frozenset(found | {place for place in linked if not any(place.is_relative_to(root) for root in found)})


class Files:
    """What is below some directories, on a thread of its own: one that waits all the time would be missed elsewhere."""

    def __init__(self, roots: Sequence[Path], watched: Collection[Path]) -> None:
        self._roots = roots
        self._stopped = threading.Event()
        self._batches = self._watch(watched)
        self._owners = Owners(())
        self._thread = ThreadPoolExecutor(1, "watching")

    async def changed(self, specs: Sequence[ModelSpec]) -> Changed:
        """The next changes, or none after a while. Cancelled, it leaves nobody to wait for."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._next, specs)

    def close(self) -> None:
        self._stopped.set()
        self._thread.shutdown(wait=False)

    def _watch(self, watched: Collection[Path]) -> Iterator[set[tuple[Change, str]]]:
        from watchfiles import DefaultFilter, watch

        ordinary = DefaultFilter()
        return watch(
            *watched,
            watch_filter=lambda change, path: self._owners.concerns(path) and ordinary(change, path),
            debounce=SETTLE,
            rust_timeout=ROOT_POLL,
            yield_on_timeout=True,
            stop_event=self._stopped,
        )

    def _next(self, specs: Sequence[ModelSpec]) -> Changed:
        self._owners = Owners(specs)
        owners = {self._owners.of(path) for _, path in next(self._batches, ())}
        return Changed(frozenset(owners - {NOBODY}), NOBODY in owners, places(self._roots, specs))


class Owners:
    """Whose a file is: that of the model whose root is nearest. What is in the directory that a model writes to is
    nobody's matter."""

    def __init__(self, specs: Iterable[ModelSpec]) -> None:
        self._of: dict[str, tuple[str, bool]] = {"": (NOBODY, False)}  # directory → its model, and whether it is data
        for spec in specs:
            for root in {str(spec.root), str(spec.root.resolve())}:
                self._of[root] = spec.name, False
                data = spec.data_dir and root + str(spec.data_dir).removeprefix(str(spec.root))
                if data and data != root:
                    self._of[data] = spec.name, True

    def of(self, path: str) -> str:
        return self._place(path.rpartition("/")[0])[0]

    def concerns(self, path: str) -> bool:
        """Of a model its code and settings; elsewhere anything may make a model, or mend one."""
        owner, is_data = self._place(path.rpartition("/")[0])
        return not is_data and (owner == NOBODY or path.endswith(KINDS))

    def _place(self, directory: str) -> tuple[str, bool]:
        above = []
        while directory not in self._of:
            above.append(directory)
            directory = directory.rpartition("/")[0]
        found = self._of[directory]
        self._of.update(dict.fromkeys(above, found))
        return found


async def _look(hub: Hub) -> None:
    try:
        await look_again(hub)
    except Exception:
        log.exception("the model roots could not be looked at")


async def _reload(hub: Hub, model: HostedModel) -> None:
    log.info("%s: its files have changed", model.name)
    try:
        with audited("a change of its files", "reload", model.name):
            await reload(hub, model)
    except (ConfigError, LoadError) as error:
        log.error("%s: not reloaded: %s", model.name, error)
    except Exception:
        log.exception("%s: not reloaded", model.name)
