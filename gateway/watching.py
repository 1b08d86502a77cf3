"""`gateway serve --reload`: a model whose files change is reloaded, one that is new or mended is found.

A model may write very many files at once. So paths are looked at on a thread, and the loop gets names of models. What
comes with a directory that is moved, or with a link that leads elsewhere now, is no change of a file: where such a
thing was seen, the files of each model are compared with those that it was loaded from. So it is now and then where a
directory more cannot be watched: the system has a bound for all programs of a user, and there is one of our own.
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

from .contents import DEEPEST
from .following import FILES, Following
from .model_files import CODE, WEIGHTS, Stat, data_of, inner, stats_of
from .roots import look_again
from .touched import Touched

if TYPE_CHECKING:
    from watchfiles import Change

    from .hub import Hub
    from .spec import ModelSpec

log = logging.getLogger("gateway.models")

SETTLE = 400  # milliseconds of quiet after a change: editors write in several steps
MOST_WATCHED = 10_000  # directories: each takes memory of the system's, and the walk over all takes time
NOW_AND_THEN = 10.0  # seconds between two looks at the files of models that cannot be watched
ROOT_POLL = 1000  # milliseconds between two looks for a model root that is not there yet
NOBODY = ""  # in the place of a model's name


class Changed(NamedTuple):
    """What some changes of files concern."""

    models: frozenset[str]
    touched: frozenset[str]  # models of which files changed that are no code
    roots: bool  # something may be a model now, or be mended
    came: bool  # a directory, which is to be watched, and whose files may be others than a model was loaded from
    places: frozenset[Path]  # what is to be watched by now


class Unwatched(Exception):
    """There are directories that cannot be watched; the text says why."""


async def watch(hub: Hub, loaded: Loaded) -> None:
    """Reload and find models as files change, until cancelled. `loaded` has looked at them when their loads began."""
    following, touched, told = Following(hub), Touched(), ""
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts changes for people, whatever they concern
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
                following.changed(await loaded.changed(hub) | await touched.look(hub, hub.models))
            except Exception:  # a root that vanished
                log.exception("the files of models could not be watched")
                await asyncio.sleep(ROOT_POLL / 1000)
    finally:
        following.close()


async def _watch(hub: Hub, loaded: Loaded, following: Following, touched: Touched) -> None:
    """Returns when other directories are to be watched.

    Raises:
        Unwatched: some cannot be.
    """
    roots = hub.settings.gateway.models
    watched = await asyncio.to_thread(places, roots, _specs(hub))
    if not watched:
        await asyncio.sleep(ROOT_POLL / 1000)
        await _look(hub)
        return
    files = Files(roots, watched)
    unseen = True  # what changed before these were watched
    try:
        while True:
            changed = await files.changed(_specs(hub), _ill(hub))
            if changed.roots or unseen:
                await _look(hub)
            models = changed.models
            if models or changed.roots or unseen:
                models |= await loaded.changed(hub)
            models |= await touched.look(hub, hub.models if unseen else changed.touched)
            unseen = False
            following.changed(models)
            if changed.came or changed.places != watched:  # one that came again is not watched as it was
                return
    finally:
        files.close()


def _specs(hub: Hub) -> list[ModelSpec]:
    return [model.spec for model in hub.models.values() if not model.spec.is_stand_in]


def _ill(hub: Hub) -> frozenset[str]:
    """Those that any file of theirs may mend."""
    return frozenset(name for name, model in hub.models.items() if model.state == "failed" or model.note)


def places(roots: Iterable[Path], specs: Iterable[ModelSpec]) -> frozenset[Path]:
    """The roots that are there, the directories of models that links lead to from them, and what is below both: but for
    what models write to, and one more than may be watched at most."""
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
    """The roots that are there, and the directories of models that links lead to from them."""
    found = {root.expanduser().resolve() for root in roots if root.expanduser().is_dir()}
    linked = {spec.root.resolve() for spec in specs if spec.root.is_dir()}
    return found | {place for place in linked if not any(place.is_relative_to(root) for root in found)}


class Files:
    """What is in some directories, on a thread of its own: one that waits all the time would be missed elsewhere."""

    def __init__(self, roots: Sequence[Path], watched: frozenset[Path]) -> None:
        self._roots, self._watched, self._tops = roots, watched, set[Path]()
        self._stopped = threading.Event()
        self._batches = self._watch(watched)
        self._owners = Owners(())
        self._thread = ThreadPoolExecutor(1, "watching")

    async def changed(self, specs: Sequence[ModelSpec], ill: Collection[str] = ()) -> Changed:
        """The next changes, or none after a while. Cancelled, it leaves nobody to wait for.

        Raises:
            Unwatched: there are too many.
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
            recursive=False,  # the library says nothing of new directories when the bound of the system is reached
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
        if came or now != self._tops:  # at the first look too: directories may have come before they were watched
            self._tops, self._watched = now, places(self._roots, specs)
        return Changed(models, frozenset(others - {NOBODY}), is_new, came, self._watched)


class Loaded:
    """What the files of each model were when it was loaded, as far as they are looked at."""

    def __init__(self) -> None:
        self._files: dict[str, Mapping[str, Stat]] = {}

    async def changed(self, hub: Hub) -> frozenset[str]:
        """The models whose files are others than at the last time. One whose directory is gone is as it was."""
        specs = [model.spec for model in hub.models.values() if not model.spec.is_stand_in and not model.is_gone]
        found = await asyncio.to_thread(lambda: {spec.name: stats_of(spec, CODE) for spec in specs})
        before = self._files
        self._files = {name: files for name, files in (before | found).items() if name in hub.models}
        return frozenset(name for name, files in found.items() if before.get(name, files) != files)


class Owners:
    """Whose a file is: that of the model whose root is nearest. What is in the directory that a model writes to is
    nobody's matter. Of the `ill` ones any file may mend them."""

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
        """Of a model its code, settings and weights, and directories with such; elsewhere anything may make a model, or
        mend one."""
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
        await look_again(hub, FILES, reloads=True)
    except Exception:
        log.exception("the model roots could not be looked at")
