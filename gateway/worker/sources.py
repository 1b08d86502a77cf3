"""The source of the model's own modules as it was when they were loaded: tracebacks are of that, and not of their files
as they are by then.

An entry of `linecache.cache` without a time is not compared with its file again (CPython 3.11 to 3.14), nor read anew.
"""

from __future__ import annotations

import linecache
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from .tracebacks import is_own

MOST = 8 << 20  # bytes of files that are kept; of what is beyond, a traceback shows the file as it is


def pin(file: str) -> None:
    """Keep a file's lines as they are now. Where there is no room, or it cannot be read, nothing is kept."""
    linecache.updatecache(file)
    if (entry := linecache.cache.get(file)) is None or len(entry) == 1:
        return
    size, _, lines, name = entry
    if size + sum(map(_pinned, linecache.cache.values())) <= MOST:
        linecache.cache[file] = size, None, lines, name


def pin_modules(places: Sequence[str]) -> None:
    """Keep those of every module below these directories, but for what is kept already."""
    for module in tuple(sys.modules.values()):
        file = _file_of(module)
        if file is None or not is_own(file, places) or "site-packages" in file:
            continue
        if not _pinned(linecache.cache.get(file, ())):
            pin(file)


def unpin(modules: Mapping[str, ModuleType]) -> dict[str, Any]:
    """Forget those of these modules; what is returned is for `linecache.cache`, should they serve on."""
    files = [file for module in modules.values() if (file := _file_of(module)) in linecache.cache]
    return {file: linecache.cache.pop(file) for file in dict.fromkeys(files) if file is not None}


def _pinned(entry: Any) -> int:
    """How many bytes of the file are kept for good."""
    return entry[0] if len(entry) == 4 and entry[1] is None else 0


def _file_of(module: Any) -> str | None:
    """Without asking a module that computes its attributes."""
    file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
    return file if isinstance(file, str) and file.endswith(".py") else None
