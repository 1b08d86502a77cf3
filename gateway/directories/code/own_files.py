"""Find a model's own files that its class's file imports, directly or not. Reads and parses; imports nothing.

Other modules interpret the content.
"""

from __future__ import annotations

import ast
import builtins
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...files import ordinary
from . import syntax

if TYPE_CHECKING:
    from ...spec import ModelSpec

MOST = 200  # files to read: a model may bundle whole libraries
WHEN_LOADED = ("__init__", "load")  # methods that run before the model serves


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file of the model. With `runs_always`, the model cannot be loaded without it. The class's file is the first."""

    path: Path
    text: str
    tree: ast.Module
    runs_always: bool


def source_file(spec: ModelSpec) -> Path | None:
    """Return the file of the class if it is the model's own."""
    path = spec.root.joinpath(*spec.target.rpartition(":")[0].split(".")).with_suffix(".py")
    return path if spec.own_code and os.path.isfile(path) else None


def places_of(spec: ModelSpec, source: Path) -> list[Path]:
    """Return the directories in which the model's modules are searched."""
    places = [spec.root, *spec.import_dirs]
    if source.parent.name != source.stem:  # then its directory is searched too: see `module_name_of` in the worker
        places.append(source.parent)
    return places


def own_files(spec: ModelSpec, most_tokens: int = syntax.MOST) -> list[OwnFile]:
    """Return the files that can be read, each once; files that always run come first.

    Parsing stops when all files together exceed `most_tokens`.
    """
    source = source_file(spec)
    if source is None:
        return []
    places, parser = places_of(spec, source), syntax.Parser(most_tokens)
    always, maybe = deque([source]), deque[Path]()
    looked: set[Path] = set()
    found: list[OwnFile] = []
    while (always or maybe) and len(looked) < MOST and not parser.is_spent:
        runs_always = bool(always)
        path = (always or maybe).popleft()
        if path in looked:
            continue
        looked.add(path)
        if (read := _read(path, parser)) is None:
            continue
        text, tree = read
        found.append(OwnFile(path, text, tree, runs_always))
        sure = {id(node) for node, runs in statements(tree.body, path == source) if runs}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                (always if runs_always and id(node) in sure else maybe).extend(_files(node, path, places, spec.root))
    return found


def _read(path: Path, parser: syntax.Parser) -> tuple[str, ast.Module] | None:
    try:
        text = ordinary.content(path, syntax.LARGEST).decode("utf-8", "replace")
        tree = parser.parse(text)
    except (OSError, SyntaxError, ValueError):
        return None  # reported elsewhere
    return None if tree is None else (text, tree)


# ── statements ───────────────────────────────────────────────────────────────────────────────────────────────────────


def statements(body: list[ast.stmt], of_class: bool, runs_always: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """Yield statements, and whether they always run.

    Statements under `if`, or in a `try` that handles import errors, are skipped: they are optional. With `of_class`,
    `__init__` and `load` are run too.
    """
    for node in body:
        yield node, runs_always
        if isinstance(node, ast.ClassDef):
            yield from statements(node.body, of_class, runs_always)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from statements(node.body, of_class, of_class and node.name in WHEN_LOADED)
        elif isinstance(node, ast.With):
            may_fail = any("suppress" in ast.unparse(item.context_expr) for item in node.items)
            yield from statements(node.body, of_class, runs_always and not may_fail)
        elif isinstance(node, ast.Try) and not any(map(_catches_imports, node.handlers)):
            yield from statements([*node.body, *node.finalbody], of_class, runs_always)


def _catches_imports(handler: ast.ExceptHandler) -> bool:
    """Return whether it may catch ImportError: an exception that is not a builtin may be anything."""
    caught = re.findall(r"[\w.]+", ast.unparse(handler.type)) if handler.type is not None else ["BaseException"]
    known = [vars(builtins).get(name) for name in caught]
    return any(
        not isinstance(each, type) or issubclass(ImportError, each) or issubclass(each, ImportError) for each in known
    )


# ── modules ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _files(node: ast.Import | ast.ImportFrom, path: Path, places: Sequence[Path], root: Path) -> Iterator[Path]:
    """Yield the files that an import statement runs, including those of parent packages."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield from _walk(_of(alias.name, places, root), alias.name.split("."))
        return
    parts = node.module.split(".") if node.module else []
    if node.level:
        if node.level > len(path.parents):
            return
        places = [path.parents[node.level - 1]]
    elif parts:
        places = _of(parts[0], places, root)
    yield from _walk(places, parts)
    for alias in node.names:
        yield from _walk(places, [*parts, alias.name])


def _of(module: str, places: Sequence[Path], root: Path) -> Sequence[Path]:
    """Return the places to search: only the model's directory comes before the standard library."""
    return [root] if module.partition(".")[0] in sys.stdlib_module_names else places


def _walk(places: Sequence[Path], parts: Sequence[str]) -> Iterator[Path]:
    """Yield the files of a dotted name, from the first place that has its first part."""
    for place in places:
        if not parts or not (os.path.isdir(place / parts[0]) or os.path.isfile(place / f"{parts[0]}.py")):
            continue
        for part in parts:
            if os.path.isfile(package := place / part / "__init__.py"):
                yield package
            elif os.path.isfile(module := place / f"{part}.py"):
                yield module
                return
            place /= part
        return
