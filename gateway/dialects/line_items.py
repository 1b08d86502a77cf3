"""Streams whose items are the lines of server-sent events without their ends.

So they are when a Model relays what `iter_lines` of httpx, requests or aiohttp gives, often without the blank lines.
`LineItems` finds out whether they are and puts the ends back; what the events say is for others to read.
"""

from __future__ import annotations

import re

from .event_stream import BOM, MAX_EVENT, is_complete

MAX_LINES = 1000  # lines that may come before the first data until they are taken for pieces of a text
MAX_DATA = 16 << 10  # bytes of data over several lines, which are read again with each of them

_FIELD = re.compile(rb"(?:%b)?(?:data|event|id|retry)?:" % BOM)


class LineItems:
    """The items of one stream, held back while it is not known what they are.

    They are lines when each of at least two is one and has no end, and what they say together is an event.
    """

    def __init__(self) -> None:
        self._are_lines: bool | None = None
        self._held: list[bytes] = []
        self._count = 0  # of those that are held and not empty
        self._bytes = 0  # of them
        self._has_event = False  # among them
        self._has_blanks = False  # the lines between events are items too
        self._data: list[bytes] = []  # of the event that is under way
        self._size = 0  # bytes of it

    @property
    def are_pieces(self) -> bool:
        """No further item will be changed."""
        return self._are_lines is False

    def feed(self, item: bytes) -> bytes:
        """What is known by now, with the ends of lines where they were missing."""
        if self._are_lines is None:
            self._held.append(item)
            self._are_lines = self._look(item)
            if not self._are_lines:
                return b"" if self._are_lines is None else self.end()
            held, self._held = self._held, []
            self._begin_event()
            return b"".join(map(self._ended, held))
        return self._ended(item) if self._are_lines else item

    def end(self) -> bytes:
        """What is still held back, as it came; from here on nothing is."""
        self._are_lines = bool(self._are_lines)
        held, self._held = b"".join(self._held), []
        return held

    def _look(self, item: bytes) -> bool | None:
        if not item:
            self._begin_event()
            return None
        self._count += 1
        self._bytes += len(item)
        if not _FIELD.match(item) or b"\n" in item or b"\r" in item:  # in this order: most items are text
            return False
        if self._count > MAX_LINES or self._bytes > MAX_EVENT:
            return False
        if not self._has_event and item.startswith((b"data:", BOM + b"data:")):
            data = item.removeprefix(BOM)[5:].removeprefix(b" ")
            self._has_event = self._completes(data) or is_complete(data)
        return True if self._count > 1 and self._has_event else None

    def _completes(self, data: bytes) -> bool:
        """Whether the data of the event under way is whole with this line of it.

        In a large one over several lines, whether this line is whole: nothing is read again and again.
        """
        self._size += len(data)
        if self._size > MAX_DATA:
            self._data.clear()
        self._data.append(data)
        if not is_complete(b"\n".join(self._data)):
            return False
        self._begin_event()
        return True

    def _begin_event(self) -> None:
        self._data.clear()
        self._size = 0

    def _ended(self, line: bytes) -> bytes:
        if not line:
            self._has_blanks = True
        elif not self._has_blanks and line.startswith(b"data:") and self._completes(line[5:].removeprefix(b" ")):
            return line + b"\n\n"
        return line + b"\n"
