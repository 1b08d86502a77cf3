"""Read names, sizes and single files from an untrusted zip file, within bounds.

The table of contents may claim any size, and the library reads all of it; a file inside may unpack to any size.
"""

from __future__ import annotations

import contextlib
import errno
import io
import lzma
import struct
import zlib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO
from zipfile import BadZipFile, ZipFile

from ..wording import counted
from . import ordinary

LARGEST_TABLE = 1 << 20  # bytes, for about ten thousand names
STEP = 4096  # bytes to decompress at once: with bzip2 they may expand to a hundred million
BROKEN = (BadZipFile, NotImplementedError, ValueError, RuntimeError, EOFError, struct.error, zlib.error, lzma.LZMAError)


def names(path: Path) -> list[str]:
    """Return the names of the files inside. Raises `OSError`, also if it is not a zip file or has too many files."""
    with _opened(path, LARGEST_TABLE) as archive:
        return archive.namelist()


def peek_archive(path: Path, name: str, most: int, table: int = LARGEST_TABLE) -> tuple[bytes, dict[str, int]]:
    """Return a file from a zip file of a model directory, and the declared size of every file in it, for a plugin.

    `name` may be a pattern such as `*/data.pkl`; the first match is used.

    Raises:
        OSError: the zip file cannot be read, is not a zip file or has no file of that name; the file has more than
            `most` bytes, or the table of contents more than `table`.
    """
    with _opened(path, table) as archive:
        if (found_name := next((each for each in archive.namelist() if fnmatchcase(each, name)), None)) is None:
            raise OSError(errno.ENOENT, f"there is no {name} in it", str(path))
        name = found_name
        if archive.getinfo(name).file_size > most:  # the library never unpacks more than the declared size
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
            raise OSError(errno.EINVAL, f"it is not a readable zip file: {error}", str(path)) from error


class _Bounded(io.BufferedIOBase):
    """A file that refuses reads of more bytes than a table of contents may have."""

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
