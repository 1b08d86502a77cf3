"""Truss's in-place hot reload: new code for the existing instance, without __init__ and load.

Source: truss_server.py of Truss 0.18. The instance keeps its state; calls that are running finish in the old code. If
the new code is invalid, the old code keeps serving.
"""

from __future__ import annotations

import importlib
import linecache
import sys
from pathlib import Path
from types import ModuleType

from ...errors import HTTPError
from ..bodies.failures import places_of
from .descriptor import Descriptor
from .loader import Loaded, NoSuchClass, import_target, inspect_model
from .sources import pin_modules, unpin


def reload(loaded: Loaded, endpoint_methods: frozenset[str]) -> Descriptor:
    """Swap the class of the model and inspect it again.

    Raises:
        HTTPError: 422 with the exception of the import, or what is wrong with the definition.
    """
    spec, model = loaded.spec, loaded.model
    module_name = spec.target.rpartition(":")[0]
    directory = spec.root / module_name.split(".")[0] if "." in module_name else spec.root
    removed = {name: module for name, module in sys.modules.items() if _is_below(module, directory)}
    for name, module in removed.items():
        del sys.modules[name]
        # Delete compiled code: Python compares it by whole seconds and source size, so it can miss an edit.
        if cached := getattr(module, "__cached__", None):
            Path(cached).unlink(missing_ok=True)
    importlib.invalidate_caches()
    sources = unpin(removed)
    old = type(model)
    try:
        model.__class__ = import_target(spec)
        found = inspect_model(model, endpoint_methods, spec, loaded.descriptor.batcher)
    except (Exception, SystemExit) as error:
        model.__class__ = old
        sys.modules.update(removed)
        linecache.cache.update(sources)
        if isinstance(error.__cause__, NoSuchClass):  # with Python's text, without the path of the file
            raise HTTPError(422, f"AttributeError: {error.__cause__}", code="reload_failed") from error
        raise HTTPError(422, f"{type(error).__name__}: {error}", code="reload_failed") from error
    pin_modules(places_of(spec))
    return found


def _is_below(module: ModuleType, directory: Path) -> bool:
    """Return whether a module, or a path of a namespace package, is in the model's own directory."""
    places = [getattr(module, "__file__", None), *_paths(module)]
    return any(
        place is not None and Path(place).is_relative_to(directory) and "site-packages" not in place for place in places
    )


def _paths(module: ModuleType) -> list[str]:
    try:
        return [str(path) for path in getattr(module, "__path__", [])]
    except Exception:  # a module that computes its attributes
        return []
