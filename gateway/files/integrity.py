"""Check a model directory: links stay inside, and the files match its SHA256SUMS.

A directory may come from an untrusted source and be data only: a link in it must not expose files of this machine. The
list has the format of `sha256sum`. It is optional, but if it exists, it must list every file.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from ..errors import ConfigError
from ..wording import counted
from . import ordinary

MANIFEST = "SHA256SUMS"
BLOCK = 1 << 20
LONGEST = 4096  # characters of a path; Linux allows no longer ones
DEEPEST = 100  # nesting of directories
TOO_LONG = ", which is too long"
MOST = 200_000  # files and directories of weights that are looked at: a path in a config.yaml may name a whole disk
NAMES = 32  # paths by which links may lead to one directory: mutual links would give endless paths
_LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


def links_out(
    root: Path, *, has_code: bool = True, home: Path | None = None, most: int | None = None
) -> Iterator[Path]:
    """Yield the symbolic links below `root` that lead out of it, hidden ones included: a path may use any of them.

    Except the interpreter of a model with code. A directory that is only data has none. `home` is the directory that
    they may lead to instead of the root. Raises `OSError` for more than `most` files and directories.
    """
    home, places, seen = home or root.resolve(), [root], 0
    while places:
        place = places.pop()
        found = _entries(place)
        seen += len(found)
        if most is not None and seen > most:
            raise OSError(errno.EFBIG, f"it has more than {counted(most, 'file')}", str(root))
        for entry in found:
            path = Path(place, entry.name)
            if entry.is_symlink():
                if not _inside(path, home) and not (has_code and _is_interpreter(path, root)):
                    yield path
            elif entry.is_dir(follow_symlinks=False):
                places.append(path)


def _entries(place: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # a process that starts deeper can open what we cannot
            raise
        return []  # directories without read permission are not read by models either


def _is_interpreter(link: Path, root: Path) -> bool:
    """Return whether it is the Python of a hidden virtual environment, such as .venv, where it is usually a link.

    A link to a directory is not: anything could be reached through it.
    """
    is_hidden = any(part.startswith(".") for part in link.relative_to(root).parts[:-2])
    named = link.parent.name == "bin" and re.fullmatch(r"python[\d.]*", link.name)
    return bool(is_hidden and named and (link.parents[1] / "pyvenv.cfg").is_file() and _is_program(link))


def _is_program(link: Path) -> bool:
    return link.is_file() and os.access(link, os.X_OK)


def check_links(root: Path, *, has_code: bool = True) -> None:
    """Refuse a directory with a link out of it; `has_code` as in `links_out`.

    Raises `ConfigError` for the first link, or for too deep nesting.
    """
    try:
        _refuse(links_out(root, has_code=has_code), "the model directory")
    except OSError as error:  # of a path that is longer than the system has any
        what = f"it cannot be checked completely: {error.strerror}"
        raise ConfigError(f"{root}: {what}: remove directories that are nested too deeply") from error


def check_weights(place: Path) -> None:
    """Refuse a folder of weights outside the model directory in which a link leads out of it; a file is none.

    Snapshots of Hugging Face are in order: their links lead to the blobs of their own repository. Raises `ConfigError`
    as `check_links` does, and for very many files.
    """
    if not place.is_dir():
        return
    try:
        home = ordinary.real_home(place)
        _refuse(links_out(place, has_code=False, home=home, most=MOST), "the folder of the weights")
    except OSError as error:
        what = f"its links cannot be checked completely: {error.strerror}: name the folder that has the weights only"
        raise ConfigError(
            f"{place}: {what}, or allow links in gateway.toml: [models.NAME] allow_links = true"
        ) from error


def _refuse(links: Iterator[Path], what: str) -> None:
    for path in links:
        cache = re.search(r"/models--([^/]+?)--([^/]+)/snapshots/", f"{path}")
        better = f", or use Hugging Face's cache by weights: - source: hf://{cache[1]}/{cache[2]}" if cache else ""
        if not path.exists():  # allowing it would not help
            again = f"download it again: hf download {cache[1]}/{cache[2]}" if cache else "download the file again"
            raise ConfigError(f"{path}: this link leads to {os.readlink(path)}, which does not exist: {again}{better}")
        raise ConfigError(
            f"{path}: this link leads out of {what}, to {os.readlink(path)}; copy the file, or allow it"
            f" in gateway.toml: [models.NAME] allow_links = true{better}"
        )


def listed(root: Path) -> dict[str, str] | None:
    """Return the checksum of each file in SHA256SUMS; None if there is no list. Raises `ConfigError` with the line."""
    manifest = root / MANIFEST
    try:
        lines = io.BytesIO(ordinary.content(manifest))  # one by one: very many take long to split
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{manifest}: cannot be read: {error}") from error
    sums: dict[str, str] = {}
    for number, raw in enumerate(lines, 1):
        try:
            line = raw.decode().removesuffix("\n")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{manifest}: cannot be read: {error}") from error
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.removesuffix("\r"))
        if match is None:
            raise ConfigError(f"{manifest}:{number}: is not a line of sha256sum: a checksum, two spaces, a file")
        if len(match[3]) > 2 * LONGEST:  # each character may be escaped
            raise ConfigError(f"{manifest}:{number}: has a name of {counted(len(match[3]), 'character')}{TOO_LONG}")
        name = re.sub(r"\\[\\nr]", lambda found: _ESCAPES[found[0]], match[3]) if match[1] else match[3]
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ConfigError(f"{manifest}:{number}: {name} is not in the model directory")
        if len(name) > LONGEST:
            raise ConfigError(f"{manifest}:{number}: has a name of {counted(len(name), 'character')}{TOO_LONG}")
        sums[name] = match[2].lower()
    return sums


def missing(root: Path) -> list[str]:
    """Return the files listed in SHA256SUMS that do not exist. Raises `ConfigError` as `listed` does."""
    return [name for name in listed(root) or {} if not os.path.isfile(root / name)]


def unlisted(root: Path, *, but: Path | None = None) -> list[str]:
    """Return the files that SHA256SUMS does not list; none if there is no list. Raises `ConfigError` as `listed` does.

    Ignored are hidden files, compiled code (not used when there is a list), and the directory `but`, to which the model
    writes, unless the list contains files in it.
    """
    sums = listed(root)
    if sums is None:
        return []
    known = {PurePosixPath(name).as_posix() for name in sums} | {MANIFEST}
    free = but.relative_to(root).as_posix() if but is not None and but.is_relative_to(root) else None
    if free is not None and any(PurePosixPath(name).is_relative_to(free) for name in known):
        free = None
    try:
        return [name for name in _files(root, free, Ways()) if name not in known]
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be compared with {MANIFEST}: {error.strerror}") from error


def verify(root: Path, *, but: Path | None = None) -> int:
    """Compare every listed file with its checksum; return their number. `but` as in `unlisted`.

    Raises:
        ConfigError: a file is missing, differs from the list, or is not listed.
    """
    sums = listed(root) or {}
    if others := unlisted(root, but=but):
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise ConfigError(
            f"{root / others[0]}{more}: not listed in {MANIFEST}; where there is one, it lists every file"
        )
    for name, expected in sums.items():
        path = root / name
        try:
            found = _sum(path)
        except OSError as error:
            raise ConfigError(f"{path}: is listed in {MANIFEST} and cannot be read: {error.strerror}") from error
        if found != expected:
            raise ConfigError(f"{path}: differs from {MANIFEST}: its checksum is {found[:16]}…")
    return len(sums)


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with ordinary.opened(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class Ways:
    """Counts how often a walk through links reaches each directory, and refuses endless walks."""

    def __init__(self) -> None:
        self._seen: Counter[Path] = Counter()

    def count(self, real: Path, above: Collection[Path]) -> None:
        """Raises `ConfigError`."""
        self._seen[real] += 1
        if len(above) > DEEPEST:
            raise ConfigError(f"{real}: directories are nested more than {DEEPEST} levels deep")
        if self._seen[real] > NAMES:
            raise ConfigError(f"{real}: more than {NAMES} paths lead to this directory through links")


def _files(
    root: Path, aside: str | None, ways: Ways, below: str = "", above: frozenset[Path] = frozenset()
) -> Iterator[str]:
    """Yield the names of the files below `root`, also through links: a file with two names must be listed twice."""
    here = (root / below).resolve()
    if here in above:  # a link to one of its parent directories
        return
    ways.count(here, above)
    for entry in sorted(os.scandir(here), key=lambda entry: entry.name):
        name = f"{below}/{entry.name}" if below else entry.name
        if entry.name.startswith(".") or entry.name == "__pycache__" or name == aside:
            continue
        if entry.is_dir():
            yield from _files(root, aside, ways, name, above | {here})
        else:
            yield name


def _inside(path: Path, home: Path) -> bool:
    try:
        return path.resolve().is_relative_to(home)
    except (OSError, RuntimeError):  # a link to itself
        return False
