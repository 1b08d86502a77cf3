"""Keep the source of the model's own modules as it was when they were loaded, so that tracebacks show the right lines.

An entry of `linecache.cache` without a modification time is never checked or read again (CPython 3.11 to 3.14).
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from .tracebacks import is_own

MOST = 8 << 20  # bytes of all files that are kept; for others, tracebacks show the present file


def pin(file: str) -> None:
    """Keep a file's present lines, if it is readable and there is room."""
    linecache.updatecache(file)
    if (entry := linecache.cache.get(file)) is None or len(entry) == 1:
        return
    size, _, lines, name = entry
    if size + sum(map(_pinned, linecache.cache.values())) <= MOST:
        linecache.cache[file] = size, None, lines, name


def pin_modules(places: Sequence[str]) -> None:
    """Keep the source of every module below these directories that is not kept yet."""
    for module in tuple(sys.modules.values()):
        file = _file_of(module)
        if file is None or not is_own(file, places) or "site-packages" in file:
            continue
        if not _pinned(linecache.cache.get(file, ())):
            pin(file)


def unpin(modules: Mapping[str, ModuleType]) -> dict[str, Any]:
    """Forget the source of these modules.

    Returns the entries, to restore them in `linecache.cache` if the modules stay.
    """
    files = [file for module in modules.values() if (file := _file_of(module)) in linecache.cache]
    return {file: linecache.cache.pop(file) for file in dict.fromkeys(files) if file is not None}


def _pinned(entry: Any) -> int:
    """Return the bytes of an entry that is kept."""
    return entry[0] if len(entry) == 4 and entry[1] is None else 0


def _file_of(module: Any) -> str | None:
    """Return the module's file without triggering a module-level `__getattr__`."""
    file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
    return file if isinstance(file, str) and file.endswith(".py") else None
