"""What a model requires and this environment does not have, as far as files tell. Installs and imports nothing.

Lines are read as pip reads them, with `packaging`. A requirement that is missing keeps a model from serving only when
its code cannot do without: when a statement imports something of it, and nothing here provides that.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions, requires
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from .distributions import candidates, canonical, name_in, required
from .environments import lines_of, requirements_of
from .errors import ConfigError

if TYPE_CHECKING:
    from .spec import ModelSpec

Lack = tuple[Literal["error", "warning"], str, str, str]  # level, code, what, fix
_FILE = re.compile(r"(-r|--requirement|-c|--constraint)[ =]*(.+)")
MAX_SOURCE = 1024 * 1024  # bytes of a file that are looked at


def lacking(spec: ModelSpec, have: Mapping[str, str], *, isolated: bool) -> Iterator[Lack]:
    """What is amiss with the requirements. `have` are the versions here, by canonical names.

    In an environment of its own a model gets what it requires, so only its file of requirements has to be there.
    """
    absent: list[str] = []
    try:
        lines = list(_lines(requirements_of(spec), spec.root, absent))
    except ConfigError as error:
        what = str(error).removeprefix(f"{spec.root}/")
        yield "error" if isolated else "warning", "missing_requirements", what, "write it, or correct config.yaml"
        return
    for line in absent:
        fix = "write the file, or take the line out"
        yield "error" if isolated else "warning", "missing_requirements", f"{line}: there is no such file", fix
    if isolated:
        return
    imports = [found for found in _imports(spec) if not found.is_here]
    explained: set[str] = set()
    for line in lines:
        parsed = _parse(line)
        if isinstance(parsed, str):
            yield "warning", "odd_requirement", f"requirement {line} cannot be read: {parsed}", ""
        elif parsed is not None:
            mine = {found.module for found in imports if required(found.module, [line])}
            explained |= mine if canonical(parsed.name) not in have else set()
            yield from _compare(parsed, line, have, is_needed=bool(mine))
    for found in imports:
        if found.runs_always and found.module not in explained:
            explained.add(found.module)
            yield _absent(found, lines, spec)


def _lines(given: Iterable[str], root: Path, absent: list[str], depth: int = 0) -> Iterator[str]:
    """Requirements and nothing else, those of files that are named by `-r` too. `absent` gets lines that name none."""
    text = "\n".join(given).replace("\\\n", " ")
    for raw in text.splitlines():
        line = raw.partition(" #")[0].strip()
        if (option := _FILE.match(line)) and depth < 3:
            other = root / option[2].strip().strip("'\"")
            if "://" in line:
                continue  # pip fetches it
            if not other.is_file():
                absent.append(line)
            elif option[1] in ("-r", "--requirement"):
                yield from _lines(lines_of(other), other.parent, absent, depth + 1)
        elif line and not line.startswith(("#", "-")):
            yield line.partition(" --hash")[0].strip()


def _parse(line: str) -> Requirement | str | None:
    """The requirement; None for an address or a path, which pip understands; a text for what it does not."""
    try:
        return Requirement(line)
    except InvalidRequirement as error:
        if name := name_in(line) if "://" in line else "":
            return Requirement(name)
        if "://" in line or line.startswith((".", "/", "~")) or line.endswith((".whl", ".gz", ".zip")):
            return None
        return str(error).splitlines()[0]


def _compare(wanted: Requirement, line: str, have: Mapping[str, str], *, is_needed: bool) -> Iterator[Lack]:
    if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
        return  # for another platform or Python
    fix = f"pip install '{line}'"
    version = have.get(canonical(wanted.name))
    if version is None:
        level: Literal["error", "warning"] = "error" if is_needed else "warning"
        idle = "" if is_needed else "; nothing in the file of the class needs it"
        yield level, "missing_package", f"requirement {line} is not installed{idle}", fix
        return
    try:
        fits = wanted.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        fits = True  # nobody can compare it
    if not fits:
        yield "warning", "other_version", f"requirement {line}: version {version} is installed", fix
    for extra in sorted(wanted.extras):
        if lacks := _of_extra(wanted.name, extra, have):
            what = f"requirement {line}: its extra {extra} lacks {', '.join(lacks)}"
            yield "warning", "missing_package", what, fix


def _of_extra(name: str, extra: str, have: Mapping[str, str]) -> list[str]:
    """The distributions that an extra of an installed one asks for and that are not here."""
    try:
        known = {canonical(item) for item in metadata(name).get_all("Provides-Extra") or ()}
        lines = requires(name) or []
    except PackageNotFoundError:
        return []  # it is in another interpreter
    if canonical(extra) not in known:
        return []
    lacks = []
    for line in lines:
        item = Requirement(line)
        if item.marker is None or item.marker.evaluate({"extra": ""}) or not item.marker.evaluate({"extra": extra}):
            continue
        if canonical(item.name) not in have:
            lacks.append(item.name)
    return lacks


# ── imports ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Import:
    """A statement of the class's file. `runs_always`: without it there is no model, for the load runs it."""

    module: str
    where: str
    runs_always: bool
    is_here: bool


def _absent(found: _Import, lines: list[str], spec: ModelSpec) -> Lack:
    top, known = found.module.partition(".")[0], candidates(found.module)
    packages = spec.config.get("bundled_packages_dir") or "packages"
    fix = f"put {top} into {packages}/, or add the package that has it to requirements"
    if line := required(found.module, lines):
        fix = f"pip install '{line}'"
    elif known:
        fix = f"pip install {known[0]}"
    return "error", "missing_module", f"{found.where} imports {found.module}, which is not here", fix


def _imports(spec: ModelSpec) -> list[_Import]:
    """What the file of the class imports; nothing when it looks for modules where we would not."""
    source = spec.root.joinpath(*spec.target.rpartition(":")[0].split(".")).with_suffix(".py")
    if spec.python is not None or not source.is_file() or source.stat().st_size > MAX_SOURCE:
        return []
    text = source.read_text("utf-8", "replace")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []  # which is told elsewhere
    if "sys.path" in text or "sys.meta_path" in text:
        return []
    own = {path.stem for place in (spec.root, *spec.import_dirs) if place.is_dir() for path in place.iterdir()}
    provided = packages_distributions()
    return [
        _Import(
            module=module,
            where=f"{source.relative_to(spec.root)}:{node.lineno}",
            runs_always=runs_always,
            is_here=(top := module.partition(".")[0]) in own or _is_found(top, provided),
        )
        for node, runs_always in _statements(tree.body, True)
        for module in _modules(node)
    ]


def _statements(body: list[ast.stmt], runs_always: bool) -> Iterator[tuple[ast.stmt, bool]]:
    """Those that depend on nothing: what stands under `if` or `try` is the author's second thought."""
    for node in body:
        yield node, runs_always
        if isinstance(node, ast.ClassDef):
            yield from _statements(node.body, runs_always)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _statements(node.body, node.name in ("__init__", "load"))
        elif isinstance(node, ast.With):
            may_fail = any("suppress" in ast.unparse(item.context_expr) for item in node.items)
            yield from _statements(node.body, runs_always and not may_fail)


def _modules(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module]
    return []


def _is_found(top: str, provided: Collection[str]) -> bool:
    if top in sys.stdlib_module_names or top in provided or top == "gateway":
        return True
    try:
        return find_spec(top) is not None
    except (ImportError, ValueError):
        return False
