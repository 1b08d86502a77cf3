"""Server-sent events, parsed as in the WHATWG HTML standard, section 9.2. Only this module knows their syntax.

`EventStream` splits bytes into events, in pieces of any size. `Lead` tells a stream of events from text.
`one_line` prepares events for sending. Other modules interpret the events.
"""

from __future__ import annotations

import re

import msgspec

from ..errors import InvalidOutput
from . import model_json

DONE = b"[DONE]"
BOM = b"\xef\xbb\xbf"
MAX_EVENT = 64 << 20  # bytes; an image in base64 fits
MAX_LEAD = 16 << 10  # bytes before the first data; with more, the stream is taken for text

_END = rb"(?:\r\n|\r(?!\n)|\n)"
# Lines that may come before the first `data:`.
_LINES = re.compile(rb"(?:(?::[^\r\n]*+|(?:event|id|retry)(?::[^\r\n]*+)?|data)?%b)*+" % _END)
_LEAD = re.compile(rb"(?:%b)?%b" % (BOM, _LINES.pattern))
_BLOCK = re.compile(rb"[^\r\n]%b%b" % (_END, _END))
# Python's `splitlines`, and clients that use it, also split lines at these characters. In JSON they can be escaped.
_OTHER_ENDS = ((b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"), (b"\xc2\x85", rb"\u0085"))
_BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:")


class Sent(msgspec.Struct):
    """One event. Without data it is not an event but a comment that keeps a connection open.

    `lines` are the lines of its name and data as received, without line ends.
    """

    name: str
    data: bytes | None
    lines: list[bytes]


class EventStream:
    """The events of one stream."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # pieces of an unfinished line
        self._after_cr = False  # a following line feed belongs to the previous line end
        self._is_new = True  # no line is complete yet
        self._pending = self._size = 0  # bytes of these pieces, and of the lines of the current event
        self._name = b""
        self._data: list[bytes] = []
        self._lines: list[bytes] = []
        self._is_commented = False

    @property
    def held(self) -> int:
        """Bytes of the event in progress, which are read with its end."""
        return self._size + self._pending

    @property
    def is_between(self) -> bool:
        """Whether no event is in progress."""
        return not (self._pieces or self._lines or self._is_commented or self._is_new)

    def feed(self, data: bytes) -> list[Sent]:
        """Return the events that are complete.

        Raises:
            InvalidOutput: an event is too large.
        """
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return []
        if data.find(b"\r") >= 0:  # here and below: `in` raises an error internally
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        found: list[Sent] = []
        if lines:
            lines[0] = b"".join((*self._pieces, lines[0]))
            self._pieces.clear()
            self._pending = 0
            for line in lines:
                if (sent := self._line(line)) is not None:
                    found.append(sent)
        if rest:
            self._pieces.append(rest)
            self._pending += len(rest)
        if self._size + self._pending > MAX_EVENT:
            raise InvalidOutput(f"the model passed on an event of more than {MAX_EVENT} bytes")
        return found

    def end(self) -> Sent | None:
        """Return an event that lacks its final blank line. By the standard it is not an event, as it may be cut off."""
        rest = b"".join(self._pieces)
        self._pieces.clear()
        return (self._line(rest) if rest else None) or self._line(b"")

    def _line(self, line: bytes) -> Sent | None:
        if self._is_new:
            self._is_new = False
            line = line.removeprefix(BOM)
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        if not field:
            self._is_commented = True
        elif field == b"data":
            self._keep(line)
            self._data.append(value.removeprefix(b" "))
        elif field == b"event":
            self._keep(line)
            self._name = value.removeprefix(b" ")
        return None  # all other fields are ignored, including `id` and `retry`

    def _keep(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)

    def _dispatch(self) -> Sent | None:
        sent = None
        if self._data:
            sent = Sent(self._name.decode("utf-8", "replace"), b"\n".join(self._data), self._lines)
        elif self._is_commented:
            sent = Sent("", None, [])
        self._name, self._data, self._lines, self._size, self._is_commented = b"", [], [], 0, False
        return sent


class Lead:
    """The beginning of a text in pieces: whether it is a stream of events.

    It is one if a `data:` line comes after only blank lines, comments and other fields of an event. Complete lines are
    read once, and so are the pieces of a long one.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []  # of the current line
        self._size = 0  # of all pieces
        self._is_field = False  # the current line is a comment or another field than data, up to its end
        self._is_new = True  # no line is complete

    def feed(self, piece: bytes) -> bool | None:
        """Add a piece; None if more are needed."""
        self._size += len(piece)
        self._rest.append(piece)
        if self._is_field and self._size <= MAX_LEAD and piece.find(b"\n") < 0 and piece.find(b"\r") < 0:
            return None
        text = b"".join(self._rest)
        found = _LEAD.match(text) if self._is_new else _LINES.match(text)
        at = found.end() if found is not None else 0
        rest = text[at:]
        if rest.startswith(b"data:"):
            return True
        if b"\n" in rest or b"\r" in rest or self._size > MAX_LEAD:
            return False
        self._rest, self._is_new = [rest], self._is_new and not at
        self._is_field = rest.startswith((b":", *_BEGINNINGS))
        may_be = self._is_field or any(beginning.startswith(rest) for beginning in _BEGINNINGS)
        return None if may_be or (self._is_new and BOM.startswith(rest)) else False


def is_complete(data: bytes) -> bool:
    """Whether this data was not cut off: in every protocol here it is a JSON object or `[DONE]`.

    Raises:
        InvalidOutput: it would take too long to read.
    """
    if data.strip() == DONE:
        return True
    try:
        value = model_json.read(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(value, dict) and bool(value)


def holds_block(text: bytes) -> bool:
    """Whether the beginning of a text has an event without data, or a comment followed by a blank line."""
    found = _LEAD.match(text)
    return found is not None and _BLOCK.search(found[0].removeprefix(BOM)) is not None


def one_line(events: bytes) -> bytes:
    """Escape characters in events with JSON data that some clients treat as line ends."""
    if events.isascii():
        return events
    for character, escape in _OTHER_ENDS:
        if events.find(character) >= 0:
            events = events.replace(character, escape)
    return events
