"""Local projects in a model's requirements: what identifies them, and copies to build from.

setuptools and others write into the project that they build, and use that in later builds: a deleted module is packed
again from `build/lib`, and a restored older file is ignored. So a project is built from a copy without such files, and
its directory is not changed. A copy alone would break references to its surroundings, such as a path in
`tool.uv.sources`, a link, a workspace or the .git directory above. So the copy is in a mirror: below one directory, at
the path of the original, with links to everything next to it and next to its parents. git considers these links as
changes, so a version made from a commit of a repository above may be marked as dirty.

Editable projects are built in place, because their code is read from there later. Files that setuptools leaves are
removed after the build, except compiled modules, which are part of the result.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import os
import re
import stat
import threading
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from ..errors import ConfigError
from ..files import locks, ordinary
from ..files.clearing import DIRECTORY, clear_away
from ..files.fingerprints import fingerprint
from ..files.integrity import Ways

MOST = 200  # projects that one project refers to
MOST_FILES = 100_000  # files of all projects of an environment
MOST_BYTES = 16 << 30  # bytes of these files: each is read once, and wheels may contain weights
ALONE = "name only the directory of a project"
MOST_LOOKED = 100_000  # files to examine for members of a workspace
LARGE = 32 << 20  # bytes from which a file is linked instead of copied: weights, which no build writes to
TOOLS = frozenset("__pycache__ .mypy_cache .ruff_cache .pytest_cache .hypothesis .ipynb_checkpoints .tox .nox".split())
REPOSITORIES = frozenset((".git", ".hg", ".svn"))
_VERSIONED = re.compile(r"\.git/(HEAD|packed-refs|refs/(heads|tags)/.+)")  # files that determine a version
_BUILT = re.compile(r"lib|(lib|bdist|temp)\..+|scripts-.+|__editable__\..+")  # entries of setuptools in build/


class Walk(Ways):
    """Limits for all projects of one environment together: a path such as / or a whole disk is refused early."""

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
    """Yield the content identifiers of a file, or of all relevant files in a directory. `aside`, our cache, is skipped.

    Raises `ConfigError` if the limits of `walk` are exceeded.
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
    """Yield names and paths of all relevant files and directories below `top`, also through links.

    Raises `ConfigError` if the limits of `walk` are exceeded, or if links are endless.
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
    """Return whether a setuptools build generated it.

    A package may be named build. The egg-info in an unpacked source archive, which has a PKG-INFO, lists its files.
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
    """Return the project, and those that its pyproject.toml names by path or workspace, and whether each is editable.

    Raises `ConfigError` for too many projects: links in their paths could make them endless.
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
    """Yield the projects of the workspace that the project is in."""
    for root in (project, *project.parents):
        workspace = _table(_table(_table(_pyproject(root), "tool"), "uv"), "workspace")
        if workspace:
            for pattern in workspace.get("members") or ():
                yield from _matching(root, str(pattern))
            return


def _matching(root: Path, pattern: str) -> Iterator[Path]:
    """Yield the directories that match a pattern; links are only followed if the pattern names them.

    Raises `ConfigError` if too many files would have to be examined.
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
                        f"{root}: members of its workspace, {pattern}, would have to be searched in too many places"
                    )
                if every and entry.is_dir(follow_symlinks=False):
                    places.append(Path(entry.path))
                elif not every and wanted(entry.name) and entry.is_dir():
                    found.append(Path(entry.path))
    yield from sorted(set(found))


def _entries(place: Path | int) -> list[os.DirEntry[str]]:
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
    """Raises `ConfigError` if the file cannot be read: uv might be able to read it and follow it elsewhere."""
    path = directory / "pyproject.toml"
    try:
        return tomllib.loads(ordinary.content(path).decode("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read for an environment: {error.strerror}") from error
    except (ValueError, RecursionError):  # uv reports the error
        return {}


def _table(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


class Mirror:
    """Copies of projects below `place`, each at the path of its original, and of single files below `files`.

    `aside` is not copied. The content of a copy must match what is `known` of its original.
    """

    def __init__(self, place: Path, files: Path, aside: Path, known: Mapping[Path, Sequence[str]]) -> None:
        self._place, self._files, self._aside, self._known = place, files, aside, known

    def of(self, path: Path) -> Path:
        return self._place.joinpath(*path.parts[1:])

    def fill(self, projects: Iterable[Path]) -> None:
        """Copy the projects. Raises `ConfigError` for a file that cannot be copied or a project that has changed."""
        wanted = sorted(set(projects))  # a parent comes first, and includes its subprojects
        with _told():
            for project in wanted:
                if self._make(project):
                    self._copy(project)
                self._check(project, self.of(project))
            for project in wanted:
                self._surround(project)

    def copied(self, path: Path) -> Path:
        """Return a copy of a single file with the same name. Raises `ConfigError` as `fill` does."""
        copy = self._files / hashlib.sha256(os.fsencode(path)).hexdigest()[:16] / path.name
        with _told():
            if not copy.parent.is_dir():
                copy.parent.mkdir(parents=True)
                _copied(path, copy)
            self._check(path, copy)
        return copy

    def _check(self, path: Path, copy: Path) -> None:
        if [*sums(copy, self._aside, Walk())] != self._known.get(path):
            self._refuse(path)

    def _refuse(self, path: Path) -> NoReturn:
        raise ConfigError(f"{path}: has changed while its environment was prepared: load the model again")

    def _make(self, project: Path) -> bool:
        """Create the directory of its copy; return whether it did not exist. Never goes through one of our links."""
        has_made = False
        for place in reversed([project, *project.parents]):
            if (copy := self.of(place)).is_symlink():  # the link's target may be anything by now
                self._refuse(place)
            if has_made := not copy.is_dir():
                copy.mkdir(parents=True)
        return has_made

    def _copy(self, project: Path) -> None:
        made = {""}
        for name, path in files(project, self._aside, Walk()):
            # If a large file has just become a directory, its files would be written through our link.
            if name.rpartition("/")[0] in made and _copied(path, self.of(project) / name):
                made.add(name)

    def _surround(self, project: Path) -> None:
        """Create links to everything next to the project and its parents, except where copies are."""
        for above in project.parents:
            with contextlib.suppress(PermissionError):  # without permission to list it, there is nothing to link
                for name in os.listdir(above):
                    if not os.path.lexists(link := self.of(above) / name):
                        link.symlink_to(above / name)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be copied for its build: {error.strerror}") from error


def _copied(path: Path, copy: Path) -> bool:
    """Copy one path; return whether it is a directory. Only directories and regular files are copied.

    The path may be changed at any moment: it is opened once, and everything is read from that.
    """
    try:
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)  # O_PATH opens no device, and does not wait for a pipe
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # a dangling link
            return False
        raise
    try:
        what, itself = os.fstat(found), f"/proc/self/fd/{found}"
        if stat.S_ISDIR(what.st_mode):
            copy.mkdir()
            return True
        if stat.S_ISREG(what.st_mode) and what.st_size >= LARGE:
            copy.symlink_to(os.readlink(itself))
        elif stat.S_ISREG(what.st_mode):
            copy.write_bytes(ordinary.content(Path(itself), LARGE))
            copy.chmod(stat.S_IMODE(what.st_mode))
            os.utime(copy, ns=(what.st_atime_ns, what.st_mtime_ns))
        return False
    finally:
        os.close(found)


@contextlib.contextmanager
def tidied(
    projects: Mapping[Path, bool], given_up: threading.Event, tell: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
    """Remove what setuptools leaves in projects that are built in place. Only one build at a time runs in a project.

    The value says whether a project is editable: then files in build/ may be a part of it. A build that waits for the
    lock continues without it when `given_up` is set.

    A process with write access above a project could replace its directory, for example by a link. So each directory is
    opened once, and everything is searched and removed relative to it.
    """
    with contextlib.ExitStack() as held:
        places: dict[int, bool] = {}
        for project in sorted({path.resolve() for path in projects}):
            with contextlib.suppress(OSError):  # it does not exist
                place = os.open(project, DIRECTORY)
                held.callback(os.close, place)
                places[place] = any(editable for path, editable in projects.items() if path.resolve() == project)
                locks.take(place, project, tell=tell, why="nothing can be built in place", given_up=given_up)
        before = {place: set(_left(place, editable)) for place, editable in places.items()}
        try:
            yield
        finally:
            for place, editable in places.items():
                for inner, name in set(_left(place, editable)) - before[place]:
                    with contextlib.suppress(OSError), _opened(inner, place) as here:
                        clear_away(name, within=here)


def _left(project: int, editable: bool) -> Iterator[tuple[str, str]]:
    """Yield leftovers in the project and its subdirectories, the directories first. Links are not followed."""
    for inner in (".", *(entry.name for entry in _entries(project))):
        with contextlib.suppress(OSError), _opened(inner, project) as here:
            yield from ((inner, entry.name) for entry in _entries(here) if entry.name.endswith(".egg-info"))
    if not editable:
        yield from ((".", entry.name) for entry in _entries(project) if entry.name == "build")


@contextlib.contextmanager
def _opened(name: str, within: int) -> Iterator[int]:
    """Open the directory of that name. Raises `OSError` for a link, and for a file."""
    here = os.open(name, DIRECTORY, dir_fd=within)
    try:
        yield here
    finally:
        os.close(here)
