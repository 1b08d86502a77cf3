"""Projects on this machine that a model's requirements lead to: what of them counts, and copies to build them from.

setuptools and others write beside what they build, and read there the next time: a module that was deleted is packed
again from `build/lib`, and an older file that was put back is not taken. So a project is built from a copy without what
such builds have left, and its directory stays as it is. A copy alone would break what looks around, such as a path in
`tool.uv.sources`, a link, a workspace or the .git above. So the copy lies in a mirror: below one directory, at the path
of the original, with links beside it and beside everything above it to what is there. git takes these links for
changes, so a version that is made of a commit of a repository above may say that it is dirty.

What is editable is built where it lies, for its code is read from there ever after. What setuptools leaves for it goes
with the build; compiled modules, which are part of it, stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
import re
import shutil
import threading
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from . import ordinary
from .clearing import clear_away
from .contents import Ways
from .errors import ConfigError
from .fingerprints import fingerprint

MOST = 200  # projects that one leads to
MOST_FILES = 100_000  # of all projects that an environment is built of, and what lies between them
MOST_BYTES = 16 << 30  # of these: each is read, once, and wheels may bring weights
ALONE = "name the directory of a project alone"
MOST_LOOKED = 100_000  # files that are looked at for the members of a workspace
LOOK_AGAIN = 0.1  # seconds between two looks whether a project is free
LARGE = 32 << 20  # bytes from which a file is linked into a copy: weights, which no build writes to
TOOLS = frozenset("__pycache__ .mypy_cache .ruff_cache .pytest_cache .hypothesis .ipynb_checkpoints .tox .nox".split())
REPOSITORIES = frozenset((".git", ".hg", ".svn"))
_VERSIONED = re.compile(r"\.git/(HEAD|packed-refs|refs/(heads|tags)/.+)")  # what a version is made of
_BUILT = re.compile(r"lib|(lib|bdist|temp)\..+|scripts-.+|__editable__\..+")  # what setuptools has in build/


class Walk(Ways):
    """What one environment leads to, of all projects together: who names /, or a disk, is refused before it is read."""

    def __init__(self) -> None:
        super().__init__()
        self._files = self._bytes = 0

    def look(self, top: Path) -> None:
        """Raises `ConfigError`, as `read` does."""
        self._files += 1
        if self._files > MOST_FILES:
            raise ConfigError(f"{top}: requirements lead to more than {MOST_FILES:,} files: {ALONE}")

    def read(self, top: Path, size: int) -> None:
        self._bytes += size
        if self._bytes > MOST_BYTES:
            raise ConfigError(f"{top}: requirements lead to files of more than {MOST_BYTES >> 30} GiB: {ALONE}")


def sums(path: Path, aside: Path, walk: Walk) -> Iterator[str]:
    """What the file, or all that counts of the directory, is known by. `aside` is left out, our own cache.

    Raises `ConfigError` for more than the `walk` may look at.
    """
    for name, file in files(path, aside, walk) if path.is_dir() else [(path.name, path)]:
        if not file.is_file():
            continue
        parts = PurePosixPath(name).parts
        hidden = next((number for number, part in enumerate(parts) if part in REPOSITORIES), None)
        if hidden is None or len(parts) == hidden + 1 or _VERSIONED.fullmatch("/".join(parts[hidden:])):
            known = file.stat()
            walk.read(path, known.st_size)
            mode = "x" if known.st_mode & 0o100 else "-"
            yield f"{name} {mode} {fingerprint(file)}"


def files(
    top: Path, aside: Path, walk: Walk, below: str = "", above: frozenset[Path] = frozenset()
) -> Iterator[tuple[str, Path]]:
    """The names and paths of all files and directories below `top` that count, those behind links as well.

    Raises `ConfigError` where there are more of them than the `walk` may look at, or links make them without end.
    """
    here = top / below
    real = here.resolve()
    if real in above or real == aside:
        return
    walk.count(real, above)
    if below:
        yield below, here
    names = sorted(os.listdir(here))
    for name in names:
        path = here / name
        walk.look(top)
        if name in TOOLS or _is_generated(here, path, names):
            continue
        inner = f"{below}/{name}" if below else name
        if not path.is_dir():
            yield inner, path
        elif not (path / "pyvenv.cfg").is_file():
            yield from files(top, aside, walk, inner, above | {real})


def _is_generated(here: Path, path: Path, beside: list[str]) -> bool:
    """Whether a build by setuptools has left it, and nobody wrote it.

    A package may be called build. The egg-info of an unpacked source archive, which has a PKG-INFO, lists its files.
    """
    if here.name == "build" and "__init__.py" not in beside:
        return bool(_BUILT.fullmatch(path.name)) and _is_of_setuptools(here.parent)
    if not path.name.endswith(".egg-info") or "__init__.py" in beside or not (path / "PKG-INFO").is_file():
        return False
    project = next((place for place in (here, here.parent) if _is_of_setuptools(place)), None)
    return project is not None and not (project / "PKG-INFO").is_file()


def _is_of_setuptools(directory: Path) -> bool:
    if (directory / "pyproject.toml").is_file():
        system = _table(_pyproject(directory), "build-system")
        backend = str(system.get("build-backend") or "setuptools")
        return backend.startswith("setuptools") or "backend-path" in system
    return any((directory / name).is_file() for name in ("setup.py", "setup.cfg"))


def sources(project: Path, editable: bool, found: dict[Path, bool] | None = None) -> dict[Path, bool]:
    """The project and those that its pyproject.toml leads to by a path or a workspace → whether each is editable.

    Raises `ConfigError` when there are more than a project has: links in their paths would make them without end.
    """
    found = {} if found is None else found
    if found.get(project) is not None or not project.is_dir():
        return found
    found[project] = editable
    if len(found) > MOST:
        raise ConfigError(f"{project}: pyproject.toml leads to more than {MOST} projects")
    tools = _table(_pyproject(project), "tool")
    for item in _items([_table(_table(tools, "uv"), "sources"), _table(tools, "poetry")]):
        if isinstance(item.get("path"), str):
            sources(_beside(project, item["path"]), bool(item.get("editable") or item.get("develop")), found)
        elif item.get("workspace") is True:
            for member in _members(project):
                sources(member, item.get("editable") is not False, found)
    return found


def _beside(project: Path, named: str) -> Path:
    return Path(os.path.normpath(project / named))


def _members(project: Path) -> Iterator[Path]:
    """The projects of the workspace that it is in."""
    for root in (project, *project.parents):
        workspace = _table(_table(_table(_pyproject(root), "tool"), "uv"), "workspace")
        if workspace:
            for pattern in workspace.get("members") or ():
                yield from _matching(root, str(pattern))
            return


def _matching(root: Path, pattern: str) -> Iterator[Path]:
    """The directories that a pattern means, those behind a link by its own name alone.

    Raises `ConfigError` when more files than any workspace has would have to be looked at.
    """
    looked = 0
    found = [root]
    parts = PurePosixPath(pattern).parts
    if not parts or parts[0] == "/":  # no pattern, or one that leads elsewhere
        return
    for part in parts:
        wanted = re.compile(fnmatch.translate(part)).fullmatch
        every, places, found = part == "**", found, []
        while places:
            place = places.pop()
            if not re.search(r"[*?[]", part):
                found += [place / part] if (place / part).is_dir() else []
                continue
            found += [place] if every else []
            for entry in _entries(place):
                looked += 1
                if looked > MOST_LOOKED:
                    raise ConfigError(
                        f"{root}: members of its workspace, {pattern}, would be sought in too many places"
                    )
                if every and entry.is_dir(follow_symlinks=False):
                    places.append(Path(entry.path))
                elif not every and wanted(entry.name) and entry.is_dir():
                    found.append(Path(entry.path))
    yield from sorted(set(found))


def _entries(place: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return list(entries)
    except OSError:
        return []


def _items(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _items(inner)


def _pyproject(directory: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(ordinary.content(directory / "pyproject.toml").decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError):  # uv says what is wrong with it
        return {}


def _table(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


class Mirror:
    """Copies of projects below `place`, each at the path of its original."""

    def __init__(self, place: Path, aside: Path) -> None:
        self._place, self._aside = place, aside

    def of(self, path: Path) -> Path:
        return self._place.joinpath(*path.parts[1:])

    def fill(self, projects: Iterable[Path]) -> None:
        """Raises `ConfigError` that names the file which cannot be copied."""
        wanted = sorted(set(projects))  # one that holds another comes first, and brings it along
        try:
            for project in wanted:
                if not self.of(project).is_dir():
                    self._copy(project)
            for project in wanted:
                self._surround(project)
        except OSError as error:
            raise ConfigError(f"{error.filename}: cannot be copied for its build: {error.strerror}") from error

    def _copy(self, project: Path) -> None:
        self.of(project).mkdir(parents=True)
        for name, path in files(project, self._aside, Walk()):
            copy = self.of(project) / name
            if path.is_dir():
                copy.mkdir()
            elif path.is_file():
                if path.stat().st_size < LARGE:
                    shutil.copy2(path, copy)
                else:
                    copy.symlink_to(path.resolve())

    def _surround(self, project: Path) -> None:
        """Links to what is beside it, and beside what is above it, where no copy is."""
        for above in project.parents:
            with contextlib.suppress(PermissionError):  # who may not look around finds nothing there
                for name in os.listdir(above):
                    if not os.path.lexists(link := self.of(above) / name):
                        link.symlink_to(above / name)


@contextlib.contextmanager
def tidied(projects: Mapping[Path, bool], given_up: threading.Event) -> Iterator[None]:
    """Afterwards, what setuptools has left in projects that were built where they lie is gone. One build at a time.

    The value says whether a project is editable: then what is in build/ may be a part of it. Who waits for another
    build, or for whoever else holds the directory, goes on without when it is `given_up`.
    """
    with contextlib.ExitStack() as held:
        for project in sorted({path.resolve() for path in projects}):
            with contextlib.suppress(OSError):  # a file system without locks
                place = os.open(project, os.O_RDONLY | os.O_DIRECTORY)
                held.callback(os.close, place)
                _lock(place, given_up)
        before = {project: set(_left(project, editable)) for project, editable in projects.items()}
        try:
            yield
        finally:
            for project, editable in projects.items():
                for path in set(_left(project, editable)) - before[project]:
                    clear_away(path)


def _lock(place: int, given_up: threading.Event) -> None:
    while not given_up.is_set():
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(LOOK_AGAIN)  # a lock that is waited for cannot be given up


def _left(project: Path, editable: bool) -> Iterator[Path]:
    """In the project and the directories in it; what a link leads to is none of ours."""
    inner = [Path(entry.path) for entry in _entries(project) if entry.is_dir(follow_symlinks=False)]
    for place in (project, *inner):
        yield from (Path(entry.path) for entry in _entries(place) if entry.name.endswith(".egg-info"))
    if not editable and os.path.lexists(project / "build"):
        yield project / "build"
