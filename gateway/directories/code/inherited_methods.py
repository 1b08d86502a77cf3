"""Add the methods that the class of a plugin inherits from classes of other installed modules. Nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from .source import ClassInfo, SourceError, read_class
from .targets import module_file

DEEPEST = 3  # classes above it


def with_inherited(found: ClassInfo, path: Path, depth: int = DEEPEST) -> ClassInfo:
    """Return what the source in `path` tells about a class, with what it inherits as far as that can be read."""
    if found.node is None or found.module is None or not depth:
        return found
    imported = _imported(found.module, path)
    for base in found.node.bases:
        place = imported.get(base.id) if isinstance(base, ast.Name) else None
        file, name = place or (path, base.id if isinstance(base, ast.Name) else "")
        try:
            above = read_class(file, name) if name else None
        except SourceError:
            above = None
        if above is not None:
            above = with_inherited(above, file, depth - 1)
            found = replace(found, methods={**above.methods, **found.methods}, assigned=above.assigned | found.assigned)
    return found


def _imported(module: ast.Module, path: Path) -> Mapping[str, tuple[Path, str]]:
    """Return the file and the name there of each name that a module imports from an installed one or its package."""
    found: dict[str, tuple[Path, str]] = {}
    for node in module.body:
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        if node.level:
            file: Path | None = path.parents[node.level - 1].joinpath(*node.module.split(".")).with_suffix(".py")
        else:
            try:
                file = module_file(node.module)
            except (ImportError, ValueError):
                file = None
        if file is not None:
            found.update((alias.asname or alias.name, (file, alias.name)) for alias in node.names)
    return found
