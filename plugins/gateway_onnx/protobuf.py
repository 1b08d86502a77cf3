"""Read protobuf's encoding from a file without trusting it: every length, number and depth is bounded.

Contents are skipped unless they are asked for, so that a header is read from a file of gigabytes in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

MOST_FIELDS = 5_000_000  # of one file: a model with a hundred thousand nodes has two million
LONGEST_TEXT = 65_536  # bytes of one name, path or other text that is read
DEEPEST = 64  # messages in messages
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
FIXED = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    number: int
    kind: int
    value: int  # of a VARINT; of BYTES, their length


class Reader:
    """Reads one file. Positions only move forward, except to skip what a caller has not read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size = file, size
        self._left = MOST_FIELDS
        self._depth = 0

    def fields(self, length: int) -> Iterator[Field]:
        """Yield the fields of a message of this length. A caller may read the BYTES of a field before it goes on.

        Raises:
            ValueError: this is not a message.
        """
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError("it is nested too deeply")
        end = self._file.tell() + length
        if end > self.size:
            raise ValueError(f"it ends too early, at byte {self.size} of {end}")
        while (at := self._file.tell()) < end:
            self._left -= 1
            if self._left < 0:
                raise ValueError(f"it has more than {MOST_FIELDS} fields")
            tag = self._varint()
            number, kind = tag >> 3, tag & 7
            if number == 0 or kind not in (VARINT, FIXED64, BYTES, FIXED32):
                raise ValueError(f"there is no field at byte {at}")
            value = FIXED[kind] if kind in FIXED else self._varint()
            after = self._file.tell() + (0 if kind == VARINT else value)
            if after > end:
                raise ValueError(f"the field at byte {at} is longer than what it is part of")
            yield Field(number, kind, value)
            if kind != VARINT:
                self._file.seek(after)
        self._depth -= 1

    def text(self, field: Field) -> str:
        """Return the text that a field holds."""
        if field.kind != BYTES or field.value > LONGEST_TEXT:
            raise ValueError("a text of it is missing, or too long")
        return self._file.read(field.value).decode()  # UnicodeDecodeError is a ValueError

    def numbers(self, field: Field) -> list[int]:
        """Return the whole numbers of a repeated field: one, or several in BYTES."""
        if field.kind == VARINT:
            return [signed(field.value)]
        if field.kind != BYTES or field.value > LONGEST_TEXT:
            raise ValueError("numbers of it are missing, or too many")
        found, end = [], self._file.tell() + field.value
        while self._file.tell() < end:
            found.append(signed(self._varint()))
        return found

    def _varint(self) -> int:
        found = 0
        for shift in range(0, 70, 7):
            byte = self._file.read(1)
            if not byte:
                raise ValueError(f"it ends too early, at byte {self.size}")
            found |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return found & 0xFFFF_FFFF_FFFF_FFFF
        raise ValueError(f"there is no number before byte {self._file.tell()}")


def signed(value: int) -> int:
    """Return an int64 that was written as a varint."""
    return value - (1 << 64) if value >> 63 else value
