"""Find the first part of a dotted module name that does not exist below an existing parent, and a similar name.

Only looks at file names, and imports nothing.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib.machinery import all_suffixes
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ...environments.distributions import nearest

SHORTEST = 3  # letters of a name to compare: short names such as `path` in `os` rarely have a near one


class Missing(NamedTuple):
    """The first part that does not exist."""

    parent: str  # an existing module
    name: str
    meant: str  # the existing dotted name that is similar; "" if there is none
    is_shared: bool  # the parent has no code, so other distributions may add modules to it


def missing(module: str, places: Sequence[Path] | None = None) -> Missing | None:
    """Return what is missing of a dotted name; None if nothing is, or if its first part does not exist.

    It is searched in `places`, or where Python searches.
    """
    parts = module.split(".")
    below = _of_python(parts[0]) if places is None else _beside(parts[0], places)
    if below is None:
        return None
    for end in range(1, len(parts)):
        parent, name = ".".join(parts[:end]), parts[end]
        names = _names(below) | (_made(parent) if places is None else set())
        if name not in names:
            close = nearest(name, names, SHORTEST)
            return Missing(parent, name, f"{parent}.{close}" if close else "", bool(below) and not _has_code(below))
        below = [path for place in below if os.path.isdir(path := os.path.join(place, name))]
    return None


def _of_python(top: str) -> list[str] | None:
    """Return the directories of a module ([] for a single file); None if the module or they are unknown."""
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or (spec.submodule_search_locations is None and Path(spec.origin or "").stem == "__init__"):
        return None  # a package whose loader hides its location, such as setuptools' distutils
    return list(spec.submodule_search_locations or ())


def _beside(top: str, places: Sequence[Path]) -> list[str] | None:
    below = [str(place / top) for place in places if os.path.isdir(place / top)]
    return below if below or any(os.path.isfile(place / f"{top}.py") for place in places) else None


def _names(below: Sequence[str]) -> set[str]:
    """Return the modules in these directories, and directories without code, which can be imported too."""
    names = {found.name for found in pkgutil.iter_modules(below)}
    for place in below:
        if os.path.isdir(place):
            names |= {entry.name for entry in os.scandir(place) if entry.name.isidentifier() and entry.is_dir()}
    return names


def _made(parent: str) -> set[str]:
    """Return imported modules without files below the parent, such as `os.path`."""
    start = f"{parent}."
    known = [name for name, module in list(sys.modules.items()) if module is not None and name.startswith(start)]
    return {name.removeprefix(start).partition(".")[0] for name in known}


def _has_code(below: Sequence[str]) -> bool:
    return any(os.path.isfile(os.path.join(place, f"__init__{suffix}")) for place in below for suffix in all_suffixes())
