"""Files of directories that come from anywhere, read as what they may be: no pipe, no device, and of a bounded size.

A pipe that nobody writes to would hold the gateway up for ever, and an endless file fill its memory.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST = 32 * 1024 * 1024  # bytes of a text, such as an index of tensors, a source file or a list of sums


def opened(path: Path) -> BinaryIO:
    """The file, for reading. Raises `OSError`, also for what is no ordinary file."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    return file


def content(path: Path, most: int = MOST) -> bytes:
    """What is in it. Raises `OSError`, also for more than `most` bytes."""
    with opened(path) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return found
