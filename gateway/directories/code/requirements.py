"""Compare a model's requirements with the packages of this environment. Installs and imports nothing.

Lines are parsed as pip does, with `packaging`. A missing requirement is an error only if the code needs it: a statement
imports something from it, and no installed package provides that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from ...environments.distributions import by_name, canonical, did_you_mean, likely, name_in, to_install
from ...environments.local_requirements import (
    DEFAULT,
    implied_file,
    is_unread,
    lines_of,
    parsed,
    place_of,
    requirements_of,
)
from ...errors import ConfigError
from ...files.ordinary import is_inside
from ...wording import table_of
from ..repeated_problems import MOST_ALIKE
from .imports import Import, imports_of, provided

if TYPE_CHECKING:
    from ...spec import ModelSpec

Lack = tuple[Literal["error", "warning", "note"], str, str, str]  # level, code, what, fix
IDLE = "; the file of the class does not need it"
MOST_SHOWN = 5  # requirements shown from a file that config.yaml does not name
_FILE = re.compile(r"(-r|--requirement|-c|--constraint)[ =]*+(.+)")


def lacking(spec: ModelSpec, have: Mapping[str, str], *, isolated: bool) -> Iterator[Lack]:
    """Yield the problems of the requirements. `have` maps canonical names to the installed versions.

    An isolated model gets its requirements installed, so only modules that its own files should provide are checked.
    """
    imports = imports_of(spec)
    for found in imports:
        if found.is_relative or found.ours:
            yield _ours(found)
    absent: list[str] = []
    try:
        lines = list(_lines(requirements_of(spec), place_of(spec), spec.root, absent, set()))
    except ConfigError as error:
        what = str(error).removeprefix(f"{spec.root}/")
        yield "error" if isolated else "warning", "missing_requirements", what, "write it, or correct config.yaml"
        return
    for line in absent:
        fix = "create the file, or remove the line"
        yield "error" if isolated else "warning", "missing_requirements", f"{line}: there is no such file", fix
    if is_unread(spec):
        fix = f"write requirements_file: {DEFAULT} into its config.yaml"
        yield "warning" if isolated else "note", "unread_requirements", f"{DEFAULT} is not read", fix
    if isolated:
        return
    imports = [found for found in imports if not (found.is_relative or found.ours)]
    wanted_by: dict[str, set[str]] = {}  # modules expected from a distribution of this name
    for found in imports:
        for name in likely(found.module):
            wanted_by.setdefault(name, set()).add(found.module)
    named = by_name(lines)
    explained: set[str] = set()
    others: list[Lack] = []
    for line in lines:
        parsed = _parse(line)
        if isinstance(parsed, str):
            yield "warning", "odd_requirement", f"requirement {line} cannot be read: {parsed}", ""
        elif parsed is not None:
            mine = {module for name in by_name([line]) for module in wanted_by.get(name, ())}
            explained |= mine if canonical(parsed.name) not in have else set()
            for lack in _compare(parsed, line, have, is_needed=bool(mine)):
                if lack[0] == "error" or not implied_file(spec):
                    yield lack
                else:
                    others.append(lack)
    if others:
        yield _of_file(others, spec)
    absences = 0
    for found in imports:
        if found.runs_always and found.module not in explained:
            explained.add(found.module)
            absences += 1
            what = f"{found.where} imports {found.module}, which is not installed"
            fix = _way_to(found, named, spec) if absences <= MOST_ALIKE else ""  # further ones are only counted
            yield "error", "missing_module", what, fix


def _of_file(lacks: list[Lack], spec: ModelSpec) -> Lack:
    """Return one line for a requirements file that config.yaml does not name: it may list unrelated packages."""
    shown = [what.removeprefix("requirement ").removesuffix(IDLE) for _, _, what, _ in lacks]
    rest = f" and {len(shown) - MOST_SHOWN} more" if len(shown) > MOST_SHOWN else ""
    what = f"{DEFAULT} is only installed for isolated models; here {'; '.join(shown[:MOST_SHOWN])}{rest}"
    fix = f'pip install -r {spec.root / DEFAULT}, or set env = "isolated" in {table_of(spec.name)}'
    return "warning", "missing_package", what, fix


def _lines(
    given: Iterable[str], root: Path, home: Path, absent: list[str], known: set[Path], depth: int = 0
) -> Iterator[str]:
    """Yield the requirement lines, including those in the model's files that `-r` names.

    `absent` collects lines that name missing files.
    """
    text = "\n".join(given).replace("\\\n", " ")
    for raw in text.splitlines():
        line = raw.partition(" #")[0].strip()
        if (option := _FILE.match(line)) and depth < 3:
            other = root / option[2].strip().strip("'\"")
            if "://" in line:
                continue  # pip downloads it
            if not os.path.isfile(other):
                absent.append(line)
            elif not is_inside(other, home):
                continue  # nothing is reported about files outside the model
            elif option[1] in ("-r", "--requirement") and other not in known:
                known.add(other)
                yield from _lines(lines_of(other), other.parent, home, absent, known, depth + 1)
        elif line and not line.startswith(("#", "-")):
            yield line.partition(" --hash")[0].strip()


def _parse(line: str) -> Requirement | str | None:
    """Return the requirement; None for an address or a path, which only pip understands; an error message otherwise."""
    try:
        return parsed(line)
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
        idle = "" if is_needed else IDLE
        yield level, "missing_package", f"requirement {line} is not installed{idle}", fix
        return
    try:
        fits = wanted.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        fits = True  # cannot be compared
    if not fits:
        yield "warning", "other_version", f"requirement {line}: version {version} is installed", fix
    for extra in sorted(wanted.extras):
        if lacks := _of_extra(wanted.name, extra, have):
            what = f"requirement {line}: its extra {extra} lacks {', '.join(lacks)}"
            yield "warning", "missing_package", what, fix


def _of_extra(name: str, extra: str, have: Mapping[str, str]) -> list[str]:
    """Return the distributions that an extra of an installed distribution requires and that are not installed."""
    try:
        known = {canonical(item) for item in metadata(name).get_all("Provides-Extra") or ()}
        lines = requires(name) or []
    except PackageNotFoundError:
        return []  # installed in another interpreter
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


def _ours(found: Import) -> Lack:
    """Return the problem of a missing module of the model's own. An import that runs during a call is a warning."""
    level: Literal["error", "warning"] = "error" if found.runs_always else "warning"
    if not found.is_relative:
        what = f"{found.where} imports {found.module}, but there is no such file"
        fix = f"did you mean {found.meant}?" if found.meant else "write the file, or correct the name"
        return level, "missing_module", what, fix
    what = f"{found.where} has a relative import, but the model's file is not in a package"
    fix = f"write: {found.instead}" + ("" if found.is_here else f"; and {found.module} does not exist")
    return level, "relative_import", what, fix


def _way_to(found: Import, named: Mapping[str, str], spec: ModelSpec) -> str:
    """Return advice on how to get a missing module."""
    top = found.module.partition(".")[0]
    packages = spec.config.get("bundled_packages_dir") or "packages"
    fix = f"put {top} into {packages}/, or add the package that has it to requirements"
    if found.instead:
        fix = f"it is next to the file: write {found.instead}"
    elif found.meant:
        fix = f"did you mean {found.meant}?"
    elif line := next((named[name] for name in likely(found.module) if name in named), ""):
        fix = f"pip install '{line}'"
    elif known := to_install(found.module):
        fix = f"pip install {known}"
    elif meant := did_you_mean(found.module, provided()):
        fix = meant
    return fix
