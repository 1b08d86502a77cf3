"""Check the imports of the file of a model's class, and of the files it imports, without importing anything.

The advice for missing modules is given elsewhere.
"""

from __future__ import annotations

import ast
import functools
import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from importlib.machinery import all_suffixes
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ...environments.distributions import is_namespace
from ...files import ordinary
from . import submodules
from .own_files import OwnFile, own_files, places_of, source_file, statements

if TYPE_CHECKING:
    from ...spec import ModelSpec


_MAKES_MODULES = ("__path__", "sys.modules")  # in the code of a package that may create modules without files


@dataclass(frozen=True, slots=True)
class Import:
    """A module that a statement needs. With `runs_always`, the model cannot be loaded without it."""

    module: str  # includes the name imported from a namespace package: that is a module too
    where: str = ""
    runs_always: bool = True
    is_here: bool = False
    ours: bool = False  # it would be in a package of the model
    is_relative: bool = False
    instead: str = ""  # the statement that would find it
    meant: str = ""  # the existing module with a similar name, if its parent exists


def imports_of(spec: ModelSpec) -> list[Import]:
    """Return missing imports and wrong ones; none if the file changes where modules are searched.

    In imported files, only imports that always run count.
    """
    source, files = source_file(spec), own_files(spec)
    if source is None or not files or files[0].path != source or _looks_elsewhere(files[0]):
        return []
    here = provided() if spec.python is None else None
    places = places_of(spec, source)
    found = _of_class(files[0], places, here, spec.root)
    others = [file for file in files[1:] if file.runs_always]
    if any(_looks_elsewhere(file) or "sys.modules" in file.text for file in others):
        return found
    for file in others:
        found += _of_other(file, places, here, spec.root)
    return found


def _looks_elsewhere(file: OwnFile) -> bool:
    return "sys.path" in file.text or "sys.meta_path" in file.text


def _of_class(file: OwnFile, places: list[Path], provided: Collection[str] | None, root: Path) -> list[Import]:
    found = []
    for node, runs_always in statements(file.tree.body, of_class=True):
        if isinstance(node, ast.ImportFrom) and node.level:
            items = [_relative(node, file.path, root)]
        else:
            looked = (_look(module, names, file.path, places, provided) for module, names in _modules(node))
            items = [item for item in looked if item is not None]
        found += [replace(item, where=_where(file.path, root, node), runs_always=runs_always) for item in items]
    return found


def _of_other(file: OwnFile, places: list[Path], provided: Collection[str] | None, root: Path) -> list[Import]:
    found = []
    for node, runs_always in statements(file.tree.body, of_class=False):
        if not runs_always:
            continue
        if isinstance(node, ast.ImportFrom) and node.level:
            item = _relative(node, file.path, root)
            items = [] if item.is_here else [replace(item, is_relative=False, ours=True)]
        else:
            looked = (_look(module, names, file.path, places, provided) for module, names in _modules(node))
            items = [item for item in looked if item is not None]
        found += [replace(item, where=_where(file.path, root, node)) for item in items]
    return found


def _where(path: Path, root: Path, node: ast.stmt) -> str:
    return f"{path.relative_to(root) if path.is_relative_to(root) else path}:{node.lineno}"


def _look(
    module: str, names: list[str], source: Path, places: list[Path], provided: Collection[str] | None
) -> Import | None:
    """Return what is missing of a module; None if nothing is known to be missing.

    `provided` is None if another interpreter runs the model, whose packages are not known.
    """
    parts = module.split(".")
    top, beside = parts[0], source.parent.name
    if is_there(places, [top]):
        missing = _missing(places, parts, names, _makes_names)
        is_sure = top == beside or any(os.path.isfile(place / top / "__init__.py") for place in places)
        if missing is None or not (is_sure or (provided is not None and not _is_found(top, provided))):
            return None
        lack = submodules.missing(module, places)
        return Import(".".join(missing), ours=True, meant=lack.meant if lack else "")
    if provided is None:
        return None
    if _is_found(top, provided):
        if misspelt := _misspelt(module):
            return misspelt
        shared = _of_namespace(top)
        if not shared or not _missing(shared, parts[1:], names, lambda file: file.is_file()):
            return None
    whole = f"{module}.{names[0]}" if names and is_namespace(module) else module
    if source.parent in places or _missing([source.parent], parts, names, _makes_names):
        return Import(whole)
    wanted = f"from {beside}.{module} import {', '.join(names)}" if names else f"from {beside} import {top}"
    return Import(whole, instead=wanted)


def _misspelt(module: str) -> Import | None:
    """Return a missing submodule of an installed module if an existing one has a similar name. Code may add others."""
    lack = submodules.missing(module)
    if lack is None or not lack.meant:
        return None
    top, *parts = lack.parent.split(".")
    spec = find_spec(top)
    below = (spec.submodule_search_locations if spec else None) or ()
    if not below and top not in sys.stdlib_module_names:
        return None  # a file that creates modules, as six does
    for place in below:
        packages = [Path(place, *parts[:end]) for end in range(len(parts) + 1)]
        if any(_has(package / "__init__.py", _MAKES_MODULES) for package in packages):
            return None
    return Import(f"{lack.parent}.{lack.name}", meant=lack.meant)


def _relative(node: ast.ImportFrom, source: Path, root: Path) -> Import:
    """Return the absolute import to use: the class's file is a module without a package, so relative imports fail."""
    above = source.parents[node.level - 1]
    package = above.relative_to(root).parts if above.is_relative_to(root) else ()
    parts = node.module.split(".") if node.module else []
    names = [alias.name for alias in node.names if alias.name != "*"]
    missing = _missing([above.parent], [above.name, *parts], names, _makes_names)
    module = ".".join((*package, *parts))
    what = ", ".join(ast.unparse(alias) for alias in node.names)
    return Import(
        ".".join((*package, *missing[1:])) if missing else module,
        is_here=missing is None,
        instead=f"from {module} import {what}" if module else f"import {what}",
        is_relative=True,
    )


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def is_there(places: Sequence[Path], parts: Sequence[str]) -> bool:
    """Return whether a dotted name leads to a file or a directory below one of these places."""
    return _missing(places, parts, (), _makes_names) is None


def _missing(
    places: Sequence[Path], parts: Sequence[str], names: Sequence[str], may_have_more: Callable[[Path], bool]
) -> list[str] | None:
    """Return the dotted name for which there is no file; None if all exist. Names from a directory without code are
    modules.

    `may_have_more` takes the `__init__.py` of a package and returns whether the package may have modules without files.
    """
    for part in parts:
        here = [place / part for place in places]
        if any(os.path.isfile(path.with_name(f"{part}{suffix}")) for path in here for suffix in all_suffixes()):
            return None
        places = [path for path in here if os.path.isdir(path)]
        if not places:
            return list(parts)
        if any(may_have_more(path / "__init__.py") for path in places):
            return None
    if any((path / f"__init__{suffix}").is_file() for path in places for suffix in all_suffixes()):
        return None  # its code may define more names
    return next(([*parts, name] for name in names if _missing(places, [name], (), may_have_more)), None)


def _makes_names(file: Path) -> bool:
    return _has(file, (*_MAKES_MODULES, "__getattr__", "import *"))


def _has(file: Path, words: Sequence[str]) -> bool:
    try:
        text = ordinary.content(file).decode("utf-8", "replace")
    except OSError:
        return False
    return any(word in text for word in words)


def _of_namespace(top: str) -> list[Path]:
    """Return the directories of an installed namespace package, which several distributions may share."""
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return []
    return [Path(place) for place in spec.submodule_search_locations or ()] if spec and spec.origin is None else []


# ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _modules(node: ast.stmt) -> list[tuple[str, list[str]]]:
    """Return the modules of a statement, with the names imported from them."""
    if isinstance(node, ast.Import):
        return [(alias.name, []) for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [(node.module, [alias.name for alias in node.names if alias.name != "*"])]
    return []


@functools.cache
def provided() -> Collection[str]:
    """Return the top-level names of the installed packages."""
    return packages_distributions()


def _is_found(top: str, provided: Collection[str]) -> bool:
    if top in sys.stdlib_module_names or top in provided or top in ("gateway", "__main__"):
        return True
    try:
        return find_spec(top) is not None
    except (ImportError, ValueError):
        return False
