"""What a file begins with, or what was compressed in it: no more than its kind needs, and never a pipe or a device."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path

from .. import ordinary

BEGINNING = 1 << 18  # bytes of a file that are searched for what tells its kind


def begin_of(file: Path, size: int = BEGINNING) -> bytes:
    """What a file begins with; of one that was compressed, what was."""
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


LARGEST_MEMORY = 1 << 28  # bytes; what the strongest common setting needs is a quarter of it
UNCOMPRESS = (_gzip, _zlib, _bz2, _lzma)
