"""Which files a model was loaded from. If they differ at a load that no command asked for, an audit record says so.

Examples are a restart after a crash and a load on demand: they use the files as they are by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..directories.model_files import CODE, WEIGHTS, Stat, stats_of
from ..telemetry import audit
from ..telemetry.printable import quoted

if TYPE_CHECKING:
    from ..spec import ModelSpec

NAMED = 5  # file names in one record, at most

Files = Mapping[str, Stat]


class LoadedFiles:
    """The files of one model."""

    def __init__(self) -> None:
        self._last: Files | None = None

    async def look(self, spec: ModelSpec) -> Files:
        """Return the files that a load which starts now would use."""
        return await asyncio.to_thread(stats_of, spec, CODE + WEIGHTS)

    def ordered(self) -> None:
        """The next load was requested by a command, which has its own audit record."""
        self._last = None

    def serves(self, spec: ModelSpec, now: Files, actor: str) -> None:
        """Note that a replica loaded from these files takes calls from now on; `actor` is the reason for the load."""
        before, self._last = self._last, now
        if before is None or before == now:
            return
        paths = sorted(path for path in before.keys() | now.keys() if before.get(path) != now.get(path))
        names = [quoted(path.removeprefix(f"{spec.root}/")) for path in paths[:NAMED]]
        more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
        audit.record(
            actor, "read", model=spec.name, outcome=f"other files than at its last load: {', '.join(names)}{more}"
        )
