"""Which changes of data files reload a model under `serve --reload` (code files are always followed).

state of the model  files that count
it serves           weights (`WEIGHTS`) that existed when it was loaded and have changed
its reload failed   those, and any new file: it may be the missing one
it has failed       any file of its directory

A change counts after a second without writes, because copying a large file takes minutes. Changes while the model
itself loads do not count; otherwise a model that writes its own files would be reloaded forever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..directories.model_files import WEIGHTS, Stat, files_of

if TYPE_CHECKING:
    from ..directories.model_files import Found
    from .model import HostedModel

STILL = 1.0  # seconds without writes before a change counts

Files = Mapping[str, "Found"]


@dataclass(slots=True)
class _Known:
    files: Mapping[str, Stat | None]  # when it was loaded; None for a file that existed and has changed since
    since: float  # when its load ended or it failed, as `HostedModel.since`; -1 before the first load
    latest: Mapping[str, Stat] | None = None  # at the last look, while there are changes
    at: float = 0.0  # when `latest` was first seen, by the loop's clock


class Touched:
    """The files in the directory of each model when its last load ended."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    async def look(self, models: Mapping[str, HostedModel], seen: Collection[str] = ()) -> frozenset[str]:
        """Return the models to reload now.

        `seen` are the models whose files have changed. Of the others, only those are checked that were loaded since
        the last look, or whose changes had not settled.
        """
        self._known = {name: known for name, known in self._known.items() if name in models}
        due = [model for model in models.values() if self._is_due(model, seen)]
        if not due:
            return frozenset()
        specs = [model.spec for model in due]
        found = await asyncio.to_thread(lambda: [files_of(spec) for spec in specs])
        return frozenset(model.name for model, files in zip(due, found, strict=True) if self._counts(model, files))

    def _is_due(self, model: HostedModel, seen: Collection[str]) -> bool:
        if model.spec.is_stand_in or model.is_gone:
            return False
        known = self._known.get(model.name)
        if known is None:
            return True
        is_new = known.since != model.since
        return not _loads(model) and (is_new or known.latest is not None or model.name in seen)

    def _counts(self, model: HostedModel, files: Files) -> bool:
        """Return whether the model must be reloaded, given its present files."""
        now = {path: found.stat for path, found in files.items()}
        known = self._known.get(model.name)
        if known is None:
            self._known[model.name] = _Known(now, -1.0)
            return False
        if _loads(model):  # a load may have started
            return False
        if known.since != model.since:
            known = self._known[model.name] = _Known(_when_loaded(model, files, known.files), model.since)
        if not _differ(model, known.files, now):
            known.latest = None
            return False
        clock = asyncio.get_running_loop().time()
        if now != known.latest:
            known.latest, known.at = now, clock
            return False
        if clock - known.at < STILL:
            return False
        known.files, known.latest = now, None
        return True


def _loads(model: HostedModel) -> bool:
    return model.is_under_way or bool(model.replicas.loading()) or model.state not in ("ready", "failed")


def _when_loaded(model: HostedModel, files: Files, before: Mapping[str, Stat | None]) -> dict[str, Stat | None]:
    """Return the files as they were when the load ended. Files changed since then are marked as changed (None)."""
    later = {path for path, found in files.items() if found.changed > model.since}
    known: dict[str, Stat | None] = {path: found.stat for path, found in files.items() if path not in later}
    return known | {path: None for path in later if path in before}


def _differ(model: HostedModel, known: Mapping[str, Stat | None], now: Mapping[str, Stat]) -> bool:
    if model.state == "failed":
        return known != now
    if model.note and now.keys() - known.keys():
        return True
    return any(path.endswith(WEIGHTS) and now.get(path, was) != was for path, was in known.items())
