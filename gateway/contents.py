"""What lies in a model directory: that its links stay inside, and that its files are those of its SHA256SUMS.

A directory may come from somewhere else, and be data alone: a link in it must not hand out files of this machine. The
list of sums is what `sha256sum` writes; a directory needs none, and where there is one it lists every file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from . import ordinary
from .errors import ConfigError
from .wording import counted

MANIFEST = "SHA256SUMS"
BLOCK = 1 << 20
LONGEST = 4096  # characters of a name, with those of the directories that it is in; Linux has no longer ones
DEEPEST = 100  # directories inside one another
NAMES = 32  # by which links may lead to one directory: links to each other would have more than anybody can list
_LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)")
_ESCAPES = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}


def links_out(root: Path) -> Iterator[Path]:
    """The symbolic links below `root` that lead out of it, hidden directories aside, as discovery leaves them aside."""
    home = root.resolve()
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in (*names, *files):
            path = Path(directory, name)
            if path.is_symlink() and not _inside(path, home):
                yield path


def check_links(root: Path) -> None:
    """Refuse a directory with a link out of it. Raises `ConfigError` that names the first one."""
    for path in links_out(root):
        cache = re.search(r"/models--([^/]+?)--([^/]+)/snapshots/", f"{path}")
        better = f", or use Hugging Face's cache by weights: - source: hf://{cache[1]}/{cache[2]}" if cache else ""
        if not path.exists():  # to allow it would help nobody
            again = f"download it again: hf download {cache[1]}/{cache[2]}" if cache else "get the file again"
            raise ConfigError(f"{path}: this link leads to {os.readlink(path)}, where nothing is: {again}{better}")
        raise ConfigError(
            f"{path}: this link leads out of the model directory, to {os.readlink(path)}; copy the file, or allow it"
            f" in gateway.toml: [models.NAME] allow_links = true{better}"
        )


def listed(root: Path) -> dict[str, str] | None:
    """File → sum, as the directory's SHA256SUMS has it; None without one. Raises `ConfigError` with the line."""
    manifest = root / MANIFEST
    try:
        text = ordinary.content(manifest).decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{manifest}: cannot be read: {error}") from error
    sums: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.removesuffix("\r"))
        if match is None:
            raise ConfigError(f"{manifest}:{number}: is no line of sha256sum: a sum, two spaces, a file")
        name = re.sub(r"\\[\\nr]", lambda found: _ESCAPES[found[0]], match[3]) if match[1] else match[3]
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ConfigError(f"{manifest}:{number}: {name} is not in the model directory")
        if len(name) > LONGEST:
            raise ConfigError(f"{manifest}:{number}: has a name of {counted(len(name), 'character')}: no file has one")
        sums[name] = match[2].lower()
    return sums


def missing(root: Path) -> list[str]:
    """The files of its SHA256SUMS that are not there. Raises `ConfigError` as `listed` does."""
    return [name for name in listed(root) or {} if not os.path.isfile(root / name)]


def unlisted(root: Path, *, but: Path | None = None) -> list[str]:
    """The files that its SHA256SUMS does not list, none without one. Raises `ConfigError` as `listed` does.

    Aside are hidden files, compiled code, which nobody reads where sums count, and the directory `but`, into which the
    model writes, unless the list has files of it.
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
    """Read every listed file and compare; return how many there were. `but` as in `unlisted`.

    Raises:
        ConfigError: a file is not there, is not the one that was listed, or is there and not listed.
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
            raise ConfigError(f"{path}: is not the file that {MANIFEST} lists: its sum is {found[:16]}…")
    return len(sums)


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with ordinary.opened(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class Ways:
    """How often a walk that goes behind links has come to each directory: one that nobody could finish is refused."""

    def __init__(self) -> None:
        self._seen: Counter[Path] = Counter()

    def count(self, real: Path, above: Collection[Path]) -> None:
        """Raises `ConfigError`."""
        self._seen[real] += 1
        if len(above) > DEEPEST:
            raise ConfigError(f"{real}: there are more than {DEEPEST} directories inside one another")
        if self._seen[real] > NAMES:
            raise ConfigError(f"{real}: more than {NAMES} ways lead to this directory, through links")


def _files(
    root: Path, aside: str | None, ways: Ways, below: str = "", above: frozenset[Path] = frozenset()
) -> Iterator[str]:
    """The names of the files below `root`, behind links as well: what has two names has to be listed by both."""
    here = (root / below).resolve()
    if here in above:  # a link to a directory that it is in
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
