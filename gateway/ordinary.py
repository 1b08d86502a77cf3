"""Files of directories that come from anywhere, read as what they may be: no pipe, no device, and of a bounded size.

A pipe that nobody writes to would hold the gateway up for ever, one who has a lease on a file for most of a minute, and
an endless file fill its memory. So all that is read while the gateway serves is opened here.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .wording import counted

MOST = 32 * 1024 * 1024  # bytes of a text, such as an index of tensors, a source file or a list of sums
MOST_VALUES = 1_000_000  # in JSON: an empty array or object has two bytes there, and thirty times as many here


_homes: ContextVar[tuple[Path, ...]] = ContextVar("homes", default=())  # directories that links may not lead out of
LEADS_OUT = (
    "this link leads out of the model directory: copy the file, or allow it in gateway.toml:"
    " [models.NAME] allow_links = true"
)


@contextmanager
def within(root: Path, allow_links: bool) -> Iterator[None]:
    """While it lasts, no link in a model directory leads whoever opens a file here out of it: neither the content of a
    file elsewhere nor what is wrong with it is told then. In a directory within another, both count.
    """
    token = _homes.set(_homes.get() if allow_links else (*_homes.get(), Path(os.path.abspath(root))))
    try:
        yield
    finally:
        _homes.reset(token)


def check_inside(path: Path) -> None:
    """Raises `OSError` for what lies in a directory that no link may lead out of, and in truth elsewhere."""
    for home in _homes.get():
        if Path(os.path.abspath(path)).is_relative_to(home) and not is_inside(path, home):
            raise OSError(errno.EXDEV, LEADS_OUT, str(path))


def is_inside(path: Path, home: Path) -> bool:
    """Whether the file lies in the directory, behind all links. To a snapshot of Hugging Face belong its blobs."""
    real = Path(os.path.realpath(home))
    if real.parent.name == "snapshots" and real.parents[1].name.startswith("models--"):
        real = real.parents[1]
    return Path(os.path.realpath(path)).is_relative_to(real)


def opened(path: Path) -> BufferedReader:
    """Return a file of a model directory, open for reading, for a plugin.

    Raises `OSError`, also for what is no ordinary file, but for /dev/null, and for links that lead out of the model
    directory that is looked at.

    Who has a lease on it is asked to give it up, and not waited for: the next try finds it free.
    """
    check_inside(path)
    found = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    what = os.fstat(found)
    if not stat.S_ISREG(what.st_mode) and what.st_rdev != os.stat(os.devnull).st_rdev:  # which is as good as empty
        os.close(found)
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    return BufferedReader(_Ordinary(found))


class _Ordinary(FileIO):
    """A file that has something to read at once, or ends: some of /proc do neither, and look like ordinary ones."""

    def readinto(self, buffer: Any, /) -> int:
        if (found := super().readinto(buffer)) is None:
            raise _endless()
        return found

    def readall(self) -> bytes:
        if (found := super().readall()) is None:
            raise _endless()
        return found


def _endless() -> OSError:
    return OSError(errno.EINVAL, "it is no ordinary file: it has nothing to read now, and does not end")


def check_ordinary(place: Path) -> None:
    """Look at a file of a model directory, or at all below a folder, before a library opens them by name, for a plugin.

    Raises:
        ConfigError: there is a pipe, a device or a socket, for which the library might wait without end.
    """
    for directory, names, files in os.walk(place):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                _check_ordinary(Path(directory, name))
    _check_ordinary(place)


def _check_ordinary(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError:  # a link to nothing, which nobody waits for
        return
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ConfigError(
            f"{path}: is no ordinary file, but a pipe, a device or a socket: remove it, or get the file again"
        )


def content(path: Path, most: int = MOST) -> bytes:
    """What is in it. Raises `OSError`, also for more than `most` bytes."""
    with opened(path) as file:
        return rest(file, most)


def rest(file: BufferedReader, most: int = MOST) -> bytes:
    """What is still to be read. Raises `OSError`, also for more than `most` bytes."""
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
    """The JSON in a text of a model directory, for a plugin.

    Raises:
        ValueError: it is no JSON, or holds more than `most` values, by what stands between and before them.
    """
    if text.count(b",") + text.count(b"[") + text.count(b"{") > most:
        raise ValueError(f"it holds more than {counted(most, 'value')}")
    try:
        return json.loads(text.decode())  # strictly UTF-8, as the libraries read it
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
