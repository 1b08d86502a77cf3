"""What is in a zip file of a directory that comes from anywhere: names alone, read within bounds.

Its table of contents may claim any size, and is read as a whole by the library.
"""

from __future__ import annotations

import errno
import io
import struct
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

from . import ordinary

LARGEST_TABLE = 1 << 20  # bytes, for about ten thousand names


def names(path: Path) -> list[str]:
    """The names of the files in it. Raises `OSError`, also for what is no zip file, or has too many to be read."""
    with ordinary.opened(path) as file:
        try:
            with ZipFile(_Bounded(file)) as archive:
                return archive.namelist()
        except (BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise OSError(errno.EINVAL, f"it is no zip file that can be read: {error}", str(path)) from error


class _Bounded(io.BufferedIOBase):
    """The file, of which nobody reads more than a table may have at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        wanted = LARGEST_TABLE + 1 if size is None or size < 0 else size
        if wanted > LARGEST_TABLE + 1:
            raise OSError(errno.EFBIG, f"its table of contents has more than {LARGEST_TABLE} bytes")
        return self._file.read(wanted)
