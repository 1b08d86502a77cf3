"""Streams whose items are the lines of server-sent events, without line ends.

A Model yields these if it relays `iter_lines` of httpx, requests or aiohttp, often without the blank lines. `LineItems`
detects this and adds the line ends again. Other modules interpret the events.
"""

from __future__ import annotations

import re

from .event_stream import BOM, MAX_EVENT, is_complete

MAX_LINES = 1000  # lines before the first data; with more, they are taken for pieces of text
MAX_DATA = 16 << 10  # bytes of data in several lines, which are read again with each line

_FIELD = re.compile(rb"(?:%b)?(?:data|event|id|retry)?:" % BOM)


class LineItems:
    """The items of one stream. They are held back until it is known whether they are lines.

    They are lines if there are at least two, none has a line end, and together they are an event.
    """

    def __init__(self) -> None:
        self._are_lines: bool | None = None
        self._held: list[bytes] = []
        self._count = 0  # number of held items that are not empty
        self._bytes = 0  # bytes of these items
        self._has_event = False  # they contain an event
        self._has_blanks = False  # blank lines between events are items too
        self._data: list[bytes] = []  # data of the current event
        self._size = 0  # bytes of that data

    @property
    def held(self) -> int:
        """Bytes that are held back."""
        return self._bytes if self._held else 0

    @property
    def are_pieces(self) -> bool:
        """Whether all further items pass unchanged."""
        return self._are_lines is False

    def feed(self, item: bytes) -> bytes:
        """Return the text that is decided, with missing line ends added."""
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
        """Return held items unchanged. Afterwards nothing is held back."""
        self._are_lines = bool(self._are_lines)
        held, self._held = b"".join(self._held), []
        return held

    def _look(self, item: bytes) -> bool | None:
        if not item:
            self._begin_event()
            return None
        self._count += 1
        self._bytes += len(item)
        if not _FIELD.match(item) or b"\n" in item or b"\r" in item:  # in this order, since most items are text
            return False
        if self._count > MAX_LINES or self._bytes > MAX_EVENT:
            return False
        if not self._has_event and item.startswith((b"data:", BOM + b"data:")):
            data = item.removeprefix(BOM)[5:].removeprefix(b" ")
            self._has_event = self._completes(data) or is_complete(data)
        return True if self._count > 1 and self._has_event else None

    def _completes(self, data: bytes) -> bool:
        """Whether this line completes the data of the current event.

        If the data is large, only this line is checked, so that nothing is read repeatedly.
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
