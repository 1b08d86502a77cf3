"""Which files a model was loaded from: those that are others at its next load, which nobody has ordered, are told.

A restart after a crash, and a load at a request, take the files as they are by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import audit
from .model_files import CODE, WEIGHTS, Stat, stats_of
from .printable import quoted

if TYPE_CHECKING:
    from .spec import ModelSpec

NAMED = 5  # files that a line names

Files = Mapping[str, Stat]


class LoadedFiles:
    """Those of one model."""

    def __init__(self) -> None:
        self._last: Files | None = None

    async def look(self, spec: ModelSpec) -> Files:
        """What a load that begins now finds."""
        return await asyncio.to_thread(stats_of, spec, CODE + WEIGHTS)

    def ordered(self) -> None:
        """What is loaded next is what somebody has ordered, and is told so."""
        self._last = None

    def serves(self, spec: ModelSpec, now: Files, actor: str) -> None:
        """A replica that was loaded from these takes calls from now on; `actor` is why."""
        before, self._last = self._last, now
        if before is None or before == now:
            return
        paths = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
        names = [quoted(path.removeprefix(f"{spec.root}/")) for path in paths[:NAMED]]
        more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
        audit.record(
            actor, "read", model=spec.name, outcome=f"other files than at its last load: {', '.join(names)}{more}"
        )
