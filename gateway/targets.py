"""The class that a plugin names for a model: is it there? Looked for by its file and its text; nothing is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

from .formats.source import SourceError, read_class
from .spec import ModelSpec
from .wording import instead_of


def missing_target(spec: ModelSpec, *, elsewhere: bool = False) -> str | None:
    """What is wrong with the target of a spec that a plugin made; None when its class is there, or nobody can tell.

    `elsewhere` says that another interpreter imports it, whose modules are not known here.
    """
    if spec.format in ("python", "truss"):  # whose files were read when they were found
        return None
    asked = f"the plugin of its format {spec.format!r} names the class {spec.target!r}"
    module, colon, name = spec.target.rpartition(":")
    if not (colon and module and name):
        return f"{asked}, which is no MODULE:CLASS"
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


def _installed(module: str, own: Sequence[str]) -> Path | str | None:
    """The file of a module that is no file of the model, or why there is none; None when only an import would tell."""
    top, *rest = module.split(".")
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if found is None:
        have = [*packages_distributions(), *(name.removesuffix(".py") for name in own)]
        return f"no module {top!r} is there{instead_of(top, have)}"
    places = [Path(place) for place in found.submodule_search_locations or ()]
    path = Path(found.origin) if found.origin else None
    for part in rest:
        files = [place / name for place in places for name in (f"{part}.py", f"{part}/__init__.py")]
        path = next((file for file in files if file.is_file()), None)
        if path is None:
            return None  # a compiled module, or one that its package makes
        places = [path.parent] if path.name == "__init__.py" else []
    return path if path is not None and path.suffix == ".py" else None


def _files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("*.py"))
