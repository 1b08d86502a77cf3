"""Watch the settings file for `serve --reload`: a change reloads settings and models like SIGHUP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

SETTINGS = "a change of the settings"  # the actor in the audit log
POLL = 0.5  # seconds between two checks; polling also works for a file that does not exist yet


async def changes_of(file: Path) -> AsyncIterator[None]:
    """Yield after each change, when two checks in a row agree: editors write in several steps."""
    known = latest = await asyncio.to_thread(_look, file)
    while True:
        await asyncio.sleep(POLL)
        before, latest = latest, await asyncio.to_thread(_look, file)
        if latest != known and latest == before:
            known = latest
            yield


def _look(file: Path) -> tuple[int, int, int] | None:
    try:
        stat = file.stat()
    except OSError:  # missing or unreadable
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
