"""Let a module that a model bundles take precedence over ours with the same name, such as `packages/gateway.py`.

Our package gets another name in this process, and bundled modules with names of our distribution are found first. Only
for models with code of their own; a plugin's class needs our names.
"""

from __future__ import annotations

import importlib.machinery
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import spawn
from pathlib import Path
from types import ModuleType
from typing import Any

from ...spec import ModelSpec

OURS = "gateway"
ALIAS = "_model_gateway"  # never imported


def step_aside(spec: ModelSpec) -> None:
    """Call this before anything of the model is imported."""
    if not spec.own_code:
        return
    bundled: dict[str, Path] = {}
    for place in (spec.root, *spec.import_dirs):
        for path in sorted(place.glob(f"{OURS}*")) if place.is_dir() else ():
            name = path.stem if path.suffix == ".py" else path.name
            if (name == OURS or name.startswith(f"{OURS}_")) and (path.suffix == ".py" or any(path.glob("*.py"))):
                bundled.setdefault(name, place)
    if not bundled:
        return
    if OURS in bundled:
        _rename()
    sys.meta_path.insert(0, _Finder(bundled))
    _tell_spawned(bundled)


def _tell_spawned(bundled: Mapping[str, Path]) -> None:
    """Make processes spawned by `multiprocessing` find the bundled modules too.

    They get our path but no finder, so a directory with links to the bundled modules goes first on their path. They
    also must not run our main module again, which would import our package.
    """
    links = Path(tempfile.mkdtemp(prefix="bundled-"))
    for name, place in bundled.items():
        for file in (place / name, place / f"{name}.py"):
            if file.exists():
                (links / file.name).symlink_to(file)
    prepared = spawn.get_preparation_data

    def prepare(name: str) -> dict[str, Any]:
        data = prepared(name)
        data.pop("init_main_from_name", None)
        return {**data, "sys_path": [str(links), *data["sys_path"]]}

    spawn.get_preparation_data = prepare


def _rename() -> None:
    """Rename our package. Relative imports use `__package__`, so even later imports find its modules."""
    for name, module in list(sys.modules.items()):
        if name != OURS and not name.startswith(f"{OURS}."):
            continue
        alias = ALIAS + name.removeprefix(OURS)
        sys.modules[alias] = sys.modules.pop(name)
        module.__name__ = alias
        for value in vars(module).values():  # annotations are resolved in the module that a class names
            if isinstance(value, type) and value.__module__ == name:
                value.__module__ = alias
        if module.__package__:
            module.__package__ = ALIAS + module.__package__.removeprefix(OURS)
        if module.__spec__ is not None:
            module.__spec__.name = alias


class _Finder:
    """Find the top-level modules that a model bundles, before sys.path is searched."""

    def __init__(self, places: Mapping[str, Path]) -> None:
        self._places = places

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        place = self._places.get(name)
        return importlib.machinery.PathFinder.find_spec(name, [str(place)], target) if place is not None else None
