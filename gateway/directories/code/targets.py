"""Check that the class a plugin names for a model exists, by its file and source. Nothing is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

from ...spec import ModelSpec
from ...wording import instead_of
from .source import SourceError, read_class


def missing_target(spec: ModelSpec, *, elsewhere: bool = False) -> str | None:
    """Return what is wrong with the target in a plugin's spec; None if its class exists or this cannot be determined.

    `elsewhere` says that another interpreter imports it, whose modules are not known here.
    """
    if spec.format in ("python", "truss"):  # their files were read at discovery
        return None
    asked = f"the plugin {spec.served_by!r} names the class {spec.target!r}"
    module, colon, name = spec.target.rpartition(":")
    if not (colon and module and name):
        return f"{asked}, which is not of the form MODULE:CLASS"
    path = Path(module) if module.endswith(".py") else spec.root.joinpath(*module.split(".")).with_suffix(".py")
    if module.endswith(".py") and not path.is_file():
        return f"{asked}: {path} does not exist{instead_of(path.name, _files(path.parent))}"
    if not path.is_file() or not (spec.own_code or module.endswith(".py")):
        if elsewhere:
            return None
        found = _installed(module, own=_files(spec.root) if spec.own_code else [])
        if isinstance(found, str):
            return f"{asked}: {found}"
        if found is None:
            return None
        path = found
    try:
        read_class(path, name)
    except SourceError as error:
        return f"{asked}: {error.problem.what}"
    return None


def module_file(module: str) -> Path | None:
    """Return the file of an installed module, without running its package; None if only an import would reveal it."""
    top, *rest = module.split(".")
    found = importlib.util.find_spec(top)
    if found is None:
        return None
    places = [Path(place) for place in found.submodule_search_locations or ()]
    path = Path(found.origin) if found.origin else None
    for part in rest:
        files = [place / name for place in places for name in (f"{part}.py", f"{part}/__init__.py")]
        path = next((file for file in files if file.is_file()), None)
        if path is None:
            return None  # a compiled module, or one that its package creates
        places = [path.parent] if path.name == "__init__.py" else []
    return path if path is not None and path.suffix == ".py" else None


def _installed(module: str, own: Sequence[str]) -> Path | str | None:
    """Return the file of an installed module, or why there is none; None if only an import would reveal it."""
    top = module.partition(".")[0]
    try:
        if importlib.util.find_spec(top) is None:
            have = [*packages_distributions(), *(name.removesuffix(".py") for name in own)]
            return f"there is no module {top!r}{instead_of(top, have)}"
        return module_file(module)
    except (ImportError, ValueError):
        return None


def _files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.py"))
