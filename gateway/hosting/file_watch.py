"""`gateway serve --reload`: reload models whose files change, and discover new or repaired ones.

A model may write many files at once, so paths are checked on a thread and the event loop gets only model names.

Moving a directory or retargeting a link produces no file events. When either is noticed, the files of each model are
compared with those it was loaded from. The same comparison runs every few seconds if there are too many directories to
watch: inotify has a limit per user, and MOST_WATCHED is our own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..access.callers import everybody
from ..directories.model_files import CODE, WEIGHTS, Stat, data_of, inner, stats_of
from ..files.integrity import DEEPEST
from .data_changes import Touched
from .follow_changes import FILES, Following
from .model_roots import look_again

if TYPE_CHECKING:
    from watchfiles import Change

    from ..spec import ModelSpec
    from .hub import Hub
    from .model import HostedModel

log = logging.getLogger("gateway.models")

SETTLE = 400  # milliseconds of quiet after a change: editors write in several steps
MOST_WATCHED = 10_000  # directories: each takes kernel memory, and walking over all of them takes time
NOW_AND_THEN = 10.0  # seconds between two checks of the files of models that cannot be watched
ROOT_POLL = 1000  # milliseconds between two checks for a model root that does not exist yet
NOBODY = ""  # used instead of a model's name


class Changed(NamedTuple):
    """What a batch of file changes affects."""

    models: frozenset[str]
    touched: frozenset[str]  # models with changed files that are not code
    roots: bool  # there may be a new model, or a repaired one
    came: bool  # a directory appeared: watch it, and compare its files with those that were loaded
    places: frozenset[Path]  # what to watch from now on


class Unwatched(Exception):
    """Some directories cannot be watched; the text says why."""


async def watch(hub: Hub, loaded: FilesAtLoad) -> None:
    """Reload and discover models as files change, until cancelled.

    `loaded` has their files at the start of their loads.
    """
    following, touched, told = Following(hub), Touched(), ""
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it logs a count of all changes, even irrelevant ones
    try:
        while True:
            try:
                await _watch(hub, loaded, following, touched)
                told = ""
            except Unwatched as error:
                if str(error) != told:
                    log.warning("models are reloaded %g s after a change, not at once: %s", NOW_AND_THEN, error)
                told = str(error)
                await asyncio.sleep(NOW_AND_THEN)
                await _look(hub)
                models = hub.catalog.models
                following.changed(await loaded.changed(models) | await touched.look(models, models))
            except Exception:  # for example, a root was deleted
                log.exception("the files of models could not be watched")
                await asyncio.sleep(ROOT_POLL / 1000)
    finally:
        following.close()


async def _watch(hub: Hub, loaded: FilesAtLoad, following: Following, touched: Touched) -> None:
    """Watch until the set of directories to watch changes.

    Raises:
        Unwatched: some directories cannot be watched.
    """
    roots = hub.settings.gateway.models
    watched = await asyncio.to_thread(places, roots, _specs(hub))
    if not watched:
        await asyncio.sleep(ROOT_POLL / 1000)
        await _look(hub)
        return
    files = Files(roots, watched)
    unseen = True  # there may have been changes before the watch began
    try:
        while True:
            changed = await files.changed(_specs(hub), _ill(hub))
            if changed.roots or unseen:
                await _look(hub)
            models = changed.models
            if models or changed.roots or unseen:
                models |= await loaded.changed(hub.catalog.models)
            models |= await touched.look(hub.catalog.models, hub.catalog.models if unseen else changed.touched)
            unseen = False
            following.changed(models)
            if changed.came or changed.places != watched:  # a directory that was recreated is no longer watched
                return
    finally:
        files.close()


def _specs(hub: Hub) -> list[ModelSpec]:
    return [model.spec for model in hub.catalog.models.values() if not model.spec.is_stand_in]


def _ill(hub: Hub) -> frozenset[str]:
    """Return the models that a change of any of their files may repair."""
    return frozenset(name for name, model in hub.catalog.models.items() if model.state == "failed" or model.note)


def places(roots: Iterable[Path], specs: Iterable[ModelSpec]) -> frozenset[Path]:
    """Return the directories to watch: the `tops` and everything below them, except the data directories of models.

    Stops at one more than MOST_WATCHED.
    """
    specs = list(specs)
    waiting = [(str(top), 0) for top in tops(roots, specs)]
    data = {str(spec.root.resolve()) + place for spec in specs if (place := data_of(spec))}
    found: set[Path] = set()
    while waiting and len(found) <= MOST_WATCHED:
        place, depth = waiting.pop()
        found.add(Path(place))
        if depth < DEEPEST:
            waiting += [(entry.path, depth + 1) for entry in inner(place) if entry.path not in data]
    return frozenset(found)


def tops(roots: Iterable[Path], specs: Iterable[ModelSpec]) -> set[Path]:
    """Return the roots that exist, and the directories of models that are reached through links."""
    found = {root.expanduser().resolve() for root in roots if root.expanduser().is_dir()}
    linked = {spec.root.resolve() for spec in specs if spec.root.is_dir()}
    return found | {place for place in linked if not any(place.is_relative_to(root) for root in found)}


class Files:
    """Watch directories on a dedicated thread: it blocks all the time, so it must not occupy one of the shared pool."""

    def __init__(self, roots: Sequence[Path], watched: frozenset[Path]) -> None:
        self._roots, self._watched, self._tops = roots, watched, set[Path]()
        self._stopped = threading.Event()
        self._batches = self._watch(watched)
        self._owners = Owners(())
        self._thread = ThreadPoolExecutor(1, "watching")

    async def changed(self, specs: Sequence[ModelSpec], ill: Collection[str] = ()) -> Changed:
        """Return the next changes, or none after a while. Safe to cancel.

        Raises:
            Unwatched: there are too many directories.
        """
        if len(self._watched) > MOST_WATCHED:
            roots = " and ".join(map(str, self._roots))
            raise Unwatched(f"there are more than {MOST_WATCHED} directories below {roots}")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._next, specs, ill)

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
            recursive=False,  # a recursive watch silently skips new directories at the inotify limit
        )

    def _next(self, specs: Sequence[ModelSpec], ill: Collection[str]) -> Changed:
        self._owners = Owners(specs, ill)
        try:
            paths = [path for _, path in next(self._batches, ())]
        except OSError as error:
            bound = "fs.inotify.max_user_watches" if "limit" in str(error) else "the system"
            raise Unwatched(f"{bound} allows no more directories to be watched ({error})") from error
        owners = {self._owners.of(path) for path in paths if path.endswith(CODE)}
        others = {self._owners.of(path) for path in paths if not path.endswith(CODE)}
        models, is_new = frozenset(owners - {NOBODY}), NOBODY in owners | others
        now = tops(self._roots, specs)
        came = any(map(os.path.isdir, paths))
        if came or now != self._tops:  # at the first look too: directories may have appeared before the watch began
            self._tops, self._watched = now, places(self._roots, specs)
        return Changed(models, frozenset(others - {NOBODY}), is_new, came, self._watched)


class FilesAtLoad:
    """The watched files of each model as they were when it was loaded."""

    def __init__(self) -> None:
        self._files: dict[str, Mapping[str, Stat]] = {}

    async def changed(self, models: Mapping[str, HostedModel]) -> frozenset[str]:
        """Return the models whose files differ from the last call. A missing directory counts as unchanged."""
        specs = [model.spec for model in models.values() if not model.spec.is_stand_in and not model.is_gone]
        found = await asyncio.to_thread(lambda: {spec.name: stats_of(spec, CODE) for spec in specs})
        before = self._files
        self._files = {name: files for name, files in (before | found).items() if name in models}
        return frozenset(name for name, files in found.items() if before.get(name, files) != files)


class Owners:
    """Find the model that a file belongs to: the one with the nearest root.

    Files in a model's data directory are ignored. For the models in `ill`, every other file counts.
    """

    def __init__(self, specs: Iterable[ModelSpec], ill: Collection[str] = ()) -> None:
        self._ill = ill
        self._of: dict[str, tuple[str, bool]] = {"": (NOBODY, False)}  # directory → its model, and whether it is data
        for spec in specs:
            for root in {str(spec.root), str(spec.root.resolve())}:
                self._of[root] = spec.name, False
                if data := data_of(spec):
                    self._of[root + data] = spec.name, True

    def of(self, path: str) -> str:
        return self._place(path.rpartition("/")[0])[0]

    def concerns(self, path: str) -> bool:
        """Return whether a change of this path matters.

        In a model's directory: code, settings, weights, and directories. Elsewhere, and for models in `ill`: any file.
        """
        owner, is_data = self._place(path.rpartition("/")[0])
        is_any = owner == NOBODY or owner in self._ill
        return not is_data and (is_any or path.endswith(CODE + WEIGHTS) or os.path.isdir(path))

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
        await look_again(hub, everybody, FILES, reloads=True)
    except Exception:
        log.exception("the model roots could not be scanned")
