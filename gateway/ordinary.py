"""Files of directories that come from anywhere, read as what they may be: no pipe, no device, and of a bounded size.

A pipe that nobody writes to would hold the gateway up for ever, and an endless file fill its memory.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

from .wording import counted

MOST = 32 * 1024 * 1024  # bytes of a text, such as an index of tensors, a source file or a list of sums


def opened(path: Path) -> BufferedReader:
    """The file, for reading. Raises `OSError`, also for what is no ordinary file."""
    found = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    return os.fdopen(found, "rb")


def content(path: Path, most: int = MOST) -> bytes:
    """What is in it. Raises `OSError`, also for more than `most` bytes."""
    with opened(path) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise OSError(errno.EFBIG, f"it has more than {counted(most, 'byte')}", str(path))
    return found


def peek_json(path: Path) -> Any:
    """Return the JSON in a file of a model directory, for a plugin.

    Raises:
        OSError: as `content` does.
        ValueError: it is no JSON.
    """
    try:
        return json.loads(content(path).decode())  # strictly UTF-8, as the libraries read it
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
