"""What is in a zip file of a directory that comes from anywhere: names, sizes and single texts, read within bounds.

Its table of contents may claim any size, and is read as a whole by the library; so may what a file in it unpacks to.
"""

from __future__ import annotations

import contextlib
import errno
import io
import lzma
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

from . import ordinary
from .wording import counted

LARGEST_TABLE = 1 << 20  # bytes, for about ten thousand names
STEP = 4096  # bytes to unpack at once: of what bzip2 has packed, as many may become a hundred million
BROKEN = (BadZipFile, NotImplementedError, ValueError, RuntimeError, EOFError, struct.error, zlib.error, lzma.LZMAError)


def names(path: Path) -> list[str]:
    """The names of the files in it. Raises `OSError`, also for what is no zip file, or has too many to be read."""
    with _opened(path, LARGEST_TABLE) as archive:
        return archive.namelist()


def peek_archive(path: Path, name: str, most: int, table: int = LARGEST_TABLE) -> tuple[bytes, dict[str, int]]:
    """Return a file of a zip file of a model directory, and what each in there says that it unpacks to, for a plugin.

    Raises:
        OSError: it cannot be read, is no zip file, or has none of that name; the file has more than `most` bytes, or
            the table of contents more than `table`.
    """
    with _opened(path, table) as archive:
        if name not in archive.namelist():
            raise OSError(errno.ENOENT, f"there is no {name} in it", str(path))
        if archive.getinfo(name).file_size > most:  # no more than it says is ever unpacked of it
            raise OSError(errno.EFBIG, f"{name} in it has more than {counted(most, 'byte')}", str(path))
        found = bytearray()
        with archive.open(name) as packed:
            while block := packed.read(STEP):
                found += block
        return bytes(found), {each.filename: each.file_size for each in archive.infolist()}


@contextlib.contextmanager
def _opened(path: Path, table: int) -> Iterator[ZipFile]:
    with ordinary.opened(path) as file:
        try:
            with ZipFile(_Bounded(file, table)) as archive:
                yield archive
        except BROKEN as error:
            raise OSError(errno.EINVAL, f"it is no zip file that can be read: {error}", str(path)) from error


class _Bounded(io.BufferedIOBase):
    """The file, of which nobody reads more than a table may have at once."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file, self._most = file, most

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        wanted = self._most + 1 if size is None or size < 0 else size
        if wanted > self._most + 1:
            raise OSError(errno.EFBIG, f"its table of contents has more than {self._most} bytes")
        return self._file.read(wanted)
