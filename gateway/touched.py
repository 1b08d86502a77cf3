"""Files that are no code, and change what a model does all the same: with `serve --reload` they load it anew.

it serves              files of weights (`WEIGHTS`) that were there when it was loaded, and are others now
a reload of it failed  those, and any file that is new: what was missing may have been put there
it has failed          any file of its directory

They count once nobody has written to them for a second, for large ones are copied for minutes. What changes while the
model itself loads does not count: one that writes its own files then would be loaded again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .model_files import WEIGHTS, Stat, files_of

if TYPE_CHECKING:
    from .hosted import HostedModel
    from .hub import Hub
    from .model_files import Found

STILL = 1.0  # seconds in which nothing may be written to what has changed

Files = Mapping[str, "Found"]


@dataclass(slots=True)
class _Known:
    files: Mapping[str, Stat | None]  # when it was loaded; None for one that was there, and has changed since
    since: float  # when its load ended, or it failed, as `HostedModel.since`; before the first: -1
    latest: Mapping[str, Stat] | None = None  # at the last look, while there are changes
    at: float = 0.0  # when they were seen so first, by the loop's clock


class Touched:
    """What was in the directory of each model when its last load ended."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}

    async def look(self, hub: Hub, seen: Collection[str] = ()) -> frozenset[str]:
        """The models to load anew now. `seen` are those of which files have changed; others are not looked at, but for
        those that were loaded since, or have changes that still are written."""
        self._known = {name: known for name, known in self._known.items() if name in hub.models}
        due = [model for model in hub.models.values() if self._is_due(model, seen)]
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
        """Whether it is to be loaded anew, being as these say."""
        now = {path: found.stat for path, found in files.items()}
        known = self._known.get(model.name)
        if known is None:
            self._known[model.name] = _Known(now, -1.0)
            return False
        if _loads(model):  # by now
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
    return model.is_under_way or bool(model.loading_replicas()) or model.state not in ("ready", "failed")


def _when_loaded(model: HostedModel, files: Files, before: Mapping[str, Stat | None]) -> dict[str, Stat | None]:
    """A moment has gone by since its load ended: what has changed in it counts as changed."""
    later = {path for path, found in files.items() if found.changed > model.since}
    known: dict[str, Stat | None] = {path: found.stat for path, found in files.items() if path not in later}
    return known | {path: None for path in later if path in before}


def _differ(model: HostedModel, known: Mapping[str, Stat | None], now: Mapping[str, Stat]) -> bool:
    if model.state == "failed":
        return known != now
    if model.note and now.keys() - known.keys():
        return True
    return any(path.endswith(WEIGHTS) and now.get(path, was) != was for path, was in known.items())
