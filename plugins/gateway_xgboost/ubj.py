"""Read UBJSON (Universal Binary JSON, draft 12), the format of XGBoost's files, without trusting a length in it.

Arrays with a type stay bytes, which `structure` turns into NumPy's arrays: they are nearly the whole file.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

DEEPEST = 32  # levels; a model has eight
NUMBERS = {  # by marker: size, and the type for `struct` and, behind ">", for NumPy
    b"i": (1, "b"),
    b"U": (1, "B"),
    b"I": (2, "h"),
    b"l": (4, "i"),
    b"L": (8, "q"),
    b"d": (4, "f"),
    b"D": (8, "d"),
}
NUMPY = {b"i": "i1", b"U": "u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8"}
WORDS = {b"T": True, b"F": False, b"Z": None}


class Packed(NamedTuple):
    """An array of numbers as in the file."""

    dtype: str  # for NumPy
    data: memoryview


def parse(data: bytes) -> Any:
    """Return the value in a document.

    Raises:
        ValueError: it is broken, or ends too early.
    """
    return _Document(memoryview(data)).value(DEEPEST)


class _Document:
    def __init__(self, data: memoryview) -> None:
        self._data, self._at = data, 0

    def _take(self, size: int) -> memoryview:
        """Return the next bytes."""
        end = self._at + size
        if size < 0 or end > len(self._data):
            raise ValueError(f"it ends too early, at byte {len(self._data)}")
        found, self._at = self._data[self._at : end], end
        return found

    def _next(self) -> bytes:
        return bytes(self._take(1))

    def _peek(self) -> bytes:
        return bytes(self._data[self._at : self._at + 1])

    def _number(self, marker: bytes) -> Any:
        if marker not in NUMBERS:
            raise ValueError(f"there is {marker!r} in place of a number before byte {self._at}")
        size, kind = NUMBERS[marker]
        return struct.unpack(f">{kind}", self._take(size))[0]

    def _length(self) -> int:
        found = self._number(self._next())
        if not isinstance(found, int) or found < 0:
            raise ValueError(f"there is no length before byte {self._at}")
        return found

    def _text(self) -> str:
        return str(self._take(self._length()), "utf-8")

    def value(self, levels: int) -> Any:
        if levels == 0:
            raise ValueError("it is nested too deeply")
        marker = self._next()
        if marker == b"{":
            return self._object(levels)
        if marker == b"[":
            return self._array(levels)
        if marker == b"S":
            return self._text()
        if marker == b"C":
            return str(self._take(1), "utf-8")
        return WORDS[marker] if marker in WORDS else self._number(marker)

    def _object(self, levels: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self._peek() != b"}":
            name = self._text()
            if name in found:
                raise ValueError(f"{name[:64]!r} is there twice")
            found[name] = self.value(levels - 1)
        self._at += 1
        return found

    def _array(self, levels: int) -> Any:
        if self._peek() == b"$":
            self._at += 1
            marker = self._next()
            if self._next() != b"#" or marker not in NUMPY:
                raise ValueError(f"there is an array of an unknown type before byte {self._at}")
            return Packed(NUMPY[marker], self._take(self._length() * NUMBERS[marker][0]))
        if self._peek() == b"#":
            self._at += 1
            count = self._length()
            if count > len(self._data):
                raise ValueError(f"there is an array that is longer than the file before byte {self._at}")
            return [self.value(levels - 1) for _ in range(count)]
        found = []
        while self._peek() != b"]":
            found.append(self.value(levels - 1))
        self._at += 1
        return found
