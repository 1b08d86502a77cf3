"""Read tables of a flatbuffer, the form of messages of Arrow IPC, and weigh what a schema in one becomes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

TIMESTAMP, UNION = 10, 14  # kinds of types with a text or a list
DEEPEST = 64  # fields in fields


class Table:
    """A table at a place of a message. Fields have numbers.

    Raises:
        ValueError, struct.error: a place is outside of the message.
    """

    __slots__ = ("_found", "_names", "_place", "_size")

    def __init__(self, found: memoryview, place: int) -> None:
        (back,) = struct.unpack_from("<i", found, _within(found, place))
        self._found, self._place = found, place
        self._names = _within(found, place - int(back))
        (self._size,) = struct.unpack_from("<H", found, self._names)

    def place(self, number: int) -> int:
        """Return where a field is; 0 without it."""
        entry = 4 + 2 * number
        if entry + 2 > self._size:
            return 0
        (offset,) = struct.unpack_from("<H", self._found, self._names + entry)
        return _within(self._found, self._place + int(offset)) if offset else 0

    def number(self, number: int, form: str) -> int:
        """Return a whole number, in a form of `struct`; 0 without it."""
        place = self.place(number)
        return int(struct.unpack_from(form, self._found, place)[0]) if place else 0

    def table(self, number: int) -> Table | None:
        place = self.place(number)
        return Table(self._found, _target(self._found, place)) if place else None

    def length(self, number: int) -> int:
        """Return the length of a text or a list; 0 without it."""
        place = self.place(number)
        return _length(self._found, _target(self._found, place)) if place else 0

    def tables(self, number: int) -> Iterator[Table]:
        """Yield the tables in a list. Several may be the same one."""
        if place := self.place(number):
            place = _target(self._found, place)
            for each in range(_length(self._found, place)):
                yield Table(self._found, _target(self._found, place + 4 + 4 * each))

    def numbers(self, number: int) -> tuple[int, ...]:
        """Return a list of int64."""
        if not (place := self.place(number)):
            return ()
        place = _target(self._found, place)
        return struct.unpack_from(f"<{_length(self._found, place)}q", self._found, place + 4)


def root(found: memoryview) -> Table:
    return Table(found, _target(found, 0))


class Weight:
    """The fields and the bytes that pyarrow makes of schemas, in which a part may be named any number of times.

    Raises:
        ValueError: they are more than a body may have.
    """

    def __init__(self, fields: int, size: int) -> None:
        self._fields, self._size = fields, size

    def schema(self, schema: Table) -> None:
        self._metadata(schema, 2)
        self._below(schema, 1, 0)

    def _below(self, table: Table, number: int, depth: int) -> None:
        if depth > DEEPEST:
            raise ValueError("its columns are nested too deeply")
        for field in table.tables(number):
            self._fields -= 1
            if self._fields < 0:
                raise ValueError("it has too many columns")
            self._take(field.length(0))
            kind = field.number(2, "<B")
            if kind in (TIMESTAMP, UNION) and (about := field.table(3)) is not None:
                self._take(4 * about.length(1))
            self._metadata(field, 6)
            self._below(field, 5, depth + 1)

    def _metadata(self, table: Table, number: int) -> None:
        for pair in table.tables(number):
            self._take(64 + pair.length(0) + pair.length(1))

    def _take(self, size: int) -> None:
        self._size -= size
        if self._size < 0:
            raise ValueError("its schema has too much metadata")


def _target(found: memoryview, place: int) -> int:
    """Return the place that an offset names."""
    (offset,) = struct.unpack_from("<I", found, _within(found, place))
    return _within(found, place + int(offset))


def _length(found: memoryview, place: int) -> int:
    (length,) = struct.unpack_from("<I", found, place)
    if length > len(found):
        raise ValueError("a message has a list that is longer than it is")
    return int(length)


def _within(found: memoryview, place: int) -> int:
    if not 0 <= place < len(found):
        raise ValueError("a message names a place outside of it")
    return place
