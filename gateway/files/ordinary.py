"""Open untrusted files safely: only regular files, of a bounded size.

A pipe without a writer would block the gateway forever, a lease on a file for up to a minute, and an endless file would
fill its memory. All files that are read while the gateway serves are opened here.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from io import BufferedReader, FileIO
from pathlib import Path, PureWindowsPath
from typing import Any

import msgspec

from .. import json_costs
from ..errors import ConfigError
from ..wording import counted
from .cache import cache_dir
from .json_budget import spend

MOST = 32 * 1024 * 1024  # bytes of a text file, such as an index of tensors, a source file or a list of checksums
MOST_VALUES = 1_000_000  # in JSON: an empty array or object takes two bytes there, and thirty times as much in memory
SLOWER = 10  # times as long as msgspec, at most, takes the standard library to read JSON


@dataclass(slots=True)
class _Homes:
    """The directories of one model, which links must not lead out of; none where its links are allowed."""

    allow_links: bool
    of: dict[Path, Path | None] = field(default_factory=dict)  # with the one file that the operator named, if it is one
    inside: set[Path] = field(default_factory=set)  # what was looked at and leads to none outside
    names: set[tuple[Path, str]] = field(default_factory=set)  # of files that its files name
    parts: int = 0  # of these names


_homes: ContextVar[tuple[_Homes, ...]] = ContextVar("homes", default=())  # of a model, and of those that it is in
KEPT = ("weights", "hub", "gguf")  # in our cache: downloads, and files that a plugin converts from them
LONGEST_NAME = 200  # characters of a name in messages
MOST_PARTS = 5000  # of all paths in the files of a model: a checkpoint of a thousand files has a thousand
LEADS_OUT = "this link leads out of {}: copy the file, or allow it in gateway.toml: [models.NAME] allow_links = true"


@contextmanager
def within(root: Path, allow_links: bool) -> Iterator[None]:
    """While active, refuse to open files in a model directory through links that lead out of it.

    Neither the content nor the state of files elsewhere is revealed. With nested directories, all of them apply.
    """
    own = _Homes(allow_links, {} if allow_links else {Path(os.path.abspath(root)): None})
    token = _homes.set((*_homes.get(), own))
    try:
        yield
    finally:
        _homes.reset(token)


def confine(place: Path) -> None:
    """Apply what `within` says of a model directory to its weights elsewhere too, until that `within` ends.

    `place` is a folder, or a file, which may be a link, but not the files beside it.
    """
    if not _homes.get() or (own := _homes.get()[-1]).allow_links:
        return
    if not any(is_inside(place, home) for home in own.of):
        written = Path(os.path.abspath(place))
        own.inside.clear()
        own.of |= {written: None} if written.is_dir() else {written.parent: written}


def check_inside(path: Path) -> None:
    """Raise `OSError` if a path in a restricted directory actually leads out of it."""
    if not (all_homes := _homes.get()) or path in all_homes[-1].inside:  # every format asks for the same few files
        return
    written = Path.cwd() / path  # with every `..`, which may lead out as a link does
    for number, (home, named) in ((at, each) for homes in all_homes for at, each in enumerate(homes.of.items())):
        is_of_it = written.is_relative_to(home) or Path(os.path.abspath(path)).is_relative_to(home)
        if is_of_it and not is_inside(path, home) and written != named:
            what = "the folder of the weights" if number else "the model directory"
            raise OSError(errno.EXDEV, LEADS_OUT.format(what), str(path))
    all_homes[-1].inside.add(path)


def named_file(place: Path, name: object, by: str) -> Path:
    """Return the path of a file or folder that a file in `place`, a folder of a model directory, names; for a plugin.

    `by` is the file that names it.

    Raises:
        ConfigError: it leads out of the folder, by an absolute path, `..` or a link, or it is hidden. It is not opened.
    """
    path = place / (text := str(name))
    _count_name(place, text, by)
    windows = PureWindowsPath(text)  # Windows paths are harmless here, but perhaps not in a library
    try:
        if windows.anchor or ".." in windows.parts or os.path.isabs(text) or "\0" in text:
            raise OSError(errno.EXDEV, "leads out of its folder")
        check_inside(path)
    except OSError as error:
        shown = ascii(text[:LONGEST_NAME])
        raise ConfigError(
            f"{place}: {by} names {shown}, which leads out of the directory: download its files again"
        ) from error
    if any(part.startswith(".") for part in windows.parts):  # SHA256SUMS does not list hidden files
        raise ConfigError(f"{place}: {by} names {text[:LONGEST_NAME]!a}, which is hidden: rename it")
    return path


def _count_name(place: Path, text: str, by: str) -> None:
    """Raise `ConfigError` if the files of a model name so many others that looking for each would take long."""
    if not _homes.get():
        return
    own = _homes.get()[-1]
    if (place, text) not in own.names:
        own.parts += 1 + text.count("/")
        if own.parts > MOST_PARTS:
            raise ConfigError(f"{place}: {by} names more files than any model has: download its files again")
        own.names.add((place, text))


def is_inside(path: Path, home: Path) -> bool:
    """Return whether the file is in the directory after resolving links. A Hugging Face snapshot includes its blobs."""
    return Path(os.path.realpath(path)).is_relative_to(real_home(home))


def real_home(home: Path) -> Path:
    """Return the directory that links in `home` may lead to: itself, or for a snapshot, or in one, its repository."""
    real = Path(os.path.realpath(home))
    for each in (real, *real.parents):
        if each.parent.name == "snapshots" and each.parents[1].name.startswith("models--"):
            return each.parents[1]
    return real


def touches_kept(path: Path) -> bool:
    """Return whether a path is in a part of our cache that holds what secrets of models fetched, or above one."""
    real, home = Path(os.path.realpath(path)), real_home(path)  # which take long for a path of thousands of parts
    kept = [Path(os.path.realpath(cache_dir() / name)) for name in KEPT]
    return any(real.is_relative_to(each) or each.is_relative_to(home) for each in kept)


def opened(path: Path) -> BufferedReader:
    """Return a file of a model directory, open for reading, for a plugin.

    Raises `OSError`, also if it is not a regular file (except /dev/null), or if it is a link out of the model directory
    that is being examined.

    If another process holds a lease on it, it is asked to give it up, but not waited for: the next attempt succeeds.
    """
    check_inside(path)
    found = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    what = os.fstat(found)
    if not stat.S_ISREG(what.st_mode) and what.st_rdev != os.stat(os.devnull).st_rdev:  # as good as empty
        os.close(found)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return BufferedReader(_Ordinary(found))


class _Ordinary(FileIO):
    """A file that either has data at once or ends. Some files in /proc do neither although they look regular."""

    def readinto(self, buffer: Any, /) -> int:
        if (found := super().readinto(buffer)) is None:
            raise _endless()
        return found

    def readall(self) -> bytes:
        if (found := super().readall()) is None:
            raise _endless()
        return found


def _endless() -> OSError:
    return OSError(errno.EINVAL, "it is not a regular file: it has no data now, and does not end")


def check_ordinary(place: Path) -> None:
    """Check a file of a model directory, or all files in a folder, before a library opens them by name; for a plugin.

    Hidden ones are checked too: a link, or a library's own way to find files, may lead to them.

    Raises:
        ConfigError: there is a pipe, a device or a socket, for which the library might wait forever, or a link to what
            the secret of another model fetched.
    """
    for directory, names, files in os.walk(place):
        for path in (Path(directory, name) for name in (*names, *files)):
            _check_ordinary(path)
            if path.is_symlink() and touches_kept(path) and not is_inside(path, place):
                raise ConfigError(f"{path}: is a link into the gateway's own cache: name the original source instead")
    _check_ordinary(place)


def _check_ordinary(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:  # a link to nothing cannot block
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ConfigError(
            f"{path}: is not a regular file but a pipe, a device or a socket: remove it, or download the file again"
        )


def content(path: Path, most: int = MOST) -> bytes:
    """Return the content of a file. Raises `OSError`, also for more than `most` bytes."""
    with opened(path) as file:
        return rest(file, most)


def rest(file: BufferedReader, most: int = MOST) -> bytes:
    """Return the rest of an open file. Raises `OSError`, also for more than `most` bytes."""
    found = file.read(most + 1)
    if len(found) > most:
        raise OSError(errno.EFBIG, f"it has more than {counted(most, 'byte')}", str(file.name))
    return found


def peek_json(path: Path) -> Any:
    """Return the JSON in a file of a model directory, for a plugin.

    Raises:
        OSError: as `content` does.
        ValueError: as `parse_json` does.
    """
    return parse_json(content(path))


def parse_json(text: bytes, most: int = MOST_VALUES) -> Any:
    """Return the JSON in a text of a model directory, for a plugin.

    Raises:
        ValueError: it is not JSON, has more than `most` values, counted by the characters around them, or would take
            too long to read in the gateway's process; the worker has more time.
    """
    if text.count(b",") + text.count(b"[") + text.count(b"{") > most:
        raise ValueError(f"it has more than {counted(most, 'value')}")
    found = spend(text)
    try:
        return json_costs.decode(text, found)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # no JSON; or a word or a number that only `json` reads
        spend(text, SLOWER)
    try:
        return json.loads(text.decode())  # strictly UTF-8, as the libraries read it
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
