"""The file of the settings, followed with `serve --reload`: settings and models are looked at again as at SIGHUP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

SETTINGS = "a change of the settings"  # who gives the orders then, for the audit log
POLL = 0.5  # seconds between two looks: a file alone needs no more, and need not be there yet


async def changes_of(file: Path) -> AsyncIterator[None]:
    """Yield after each change of it, once it is as at the look before: editors write in several steps."""
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
    except OSError:  # it is not there, or not to be read
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
