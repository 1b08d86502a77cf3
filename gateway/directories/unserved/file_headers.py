"""Read the beginning of a file, decompressed if needed: only as much as required, and never from a pipe or device."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path

from ...files import ordinary

BEGINNING = 1 << 18  # bytes of a file that are searched for its kind


def begin_of(file: Path, size: int = BEGINNING) -> bytes:
    """Return the beginning of a file; of a compressed file, the beginning of its content."""
    try:
        with ordinary.opened(file) as opened:
            begin = opened.read(size)
    except OSError:
        return b""
    return next((inner for look in UNCOMPRESS if (inner := look(begin))), begin)


def _gzip(begin: bytes) -> bytes:
    return _inner(zlib.decompressobj(zlib.MAX_WBITS | 16).decompress, begin) if begin[:2] == b"\x1f\x8b" else b""


def _zlib(begin: bytes) -> bytes:
    return _inner(zlib.decompressobj().decompress, begin) if begin[:1] == b"\x78" else b""


def _bz2(begin: bytes) -> bytes:
    return _inner(bz2.BZ2Decompressor().decompress, begin) if begin[:3] == b"BZh" else b""


def _lzma(begin: bytes) -> bytes:
    is_one = begin[:6] == b"\xfd7zXZ\0" or begin[:3] == b"\x5d\0\0"
    return _inner(lzma.LZMADecompressor(memlimit=LARGEST_MEMORY).decompress, begin) if is_one else b""


def _inner(decompress: Callable[[bytes, int], bytes], begin: bytes) -> bytes:
    try:
        return decompress(begin, BEGINNING)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return b""


LARGEST_MEMORY = 1 << 28  # bytes; four times what the strongest common setting needs
UNCOMPRESS = (_gzip, _zlib, _bz2, _lzma)
