"""Streams whose items are the lines of server-sent events without their ends.

So they are when a Model relays what `iter_lines` of httpx, requests or aiohttp gives, often without the blank lines.
`LineItems` finds out whether they are and puts the ends back; what the events say is for others to read.
"""

from __future__ import annotations

import re

from .event_stream import BOM, EventStream, is_complete

MAX_LINES = 1000  # lines that may come before the first data until they are taken for pieces of a text

_FIELD = re.compile(rb"(?:%b)?(?:data|event|id|retry)?:" % BOM)


class LineItems:
    """The items of one stream, held back while it is not known what they are.

    They are lines when each of at least two is one and has no end, and what they say together is an event.
    """

    def __init__(self) -> None:
        self._are_lines: bool | None = None
        self._held: list[bytes] = []
        self._count = 0  # of those that are held and not empty
        self._has_blanks = False  # the lines between events are items too
        self._data: list[bytes] = []  # of the event that is under way, while there are none

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
            return b"".join(map(self._ended, held))
        return self._ended(item) if self._are_lines else item

    def end(self) -> bytes:
        """What is still held back, as it came; from here on nothing is."""
        self._are_lines = bool(self._are_lines)
        held, self._held = b"".join(self._held), []
        return held

    def _look(self, item: bytes) -> bool | None:
        if not item:
            return None
        self._count += 1
        if b"\n" in item or b"\r" in item or not _FIELD.match(item) or self._count > MAX_LINES:
            return False
        return True if self._count > 1 and self._hold_event() else None

    def _hold_event(self) -> bool:
        if any(line.startswith(b"data:") and is_complete(line[5:]) for line in self._held):
            return True
        stream = EventStream()
        found = stream.feed(b"\n".join((*self._held, b"", b"")))
        return any(sent.data is not None and is_complete(sent.data) for sent in found)

    def _ended(self, line: bytes) -> bytes:
        if not line:
            self._has_blanks = True
        elif not self._has_blanks and line.startswith(b"data:"):
            self._data.append(line[5:])
            if is_complete(b"\n".join(self._data)):
                self._data.clear()
                return line + b"\n\n"
        return line + b"\n"
