"""Server-sent events, read as the WHATWG's HTML standard says (section 9.2). Nothing else here knows how they look.

`EventStream` cuts bytes that come in any pieces into events; `starts_events` tells a stream of events from a text;
`one_line` is for those that are written. What an event means is for others to say.
"""

from __future__ import annotations

import re

import msgspec

from ..errors import InvalidOutput

DONE = b"[DONE]"
BOM = b"\xef\xbb\xbf"
MAX_EVENT = 64 << 20  # bytes; a picture in base64 fits
MAX_LEAD = 16 << 10  # bytes that may come before the first data until all of it is taken for text

_END = rb"(?:\r\n|\r(?!\n)|\n)"
# What may stand before the first `data:`, line by line.
_LEAD = re.compile(rb"(?:%b)?(?:(?::[^\r\n]*+|(?:event|id|retry)(?::[^\r\n]*+)?|data)?%b)*+" % (BOM, _END))
_BLOCK = re.compile(rb"[^\r\n]%b%b" % (_END, _END))
# Python's `splitlines` and clients that are built on it end lines here too; in JSON these can be written otherwise.
_OTHER_ENDS = ((b"\xe2\x80\xa8", rb"\u2028"), (b"\xe2\x80\xa9", rb"\u2029"), (b"\xc2\x85", rb"\u0085"))
_BEGINNINGS = (b"data:", b"event:", b"id:", b"retry:")


class Sent(msgspec.Struct):
    """One event; with no data it is none, but a comment that keeps a connection open.

    `lines` are those of its name and its data as they were written, without line ends.
    """

    name: str
    data: bytes | None
    lines: list[bytes]


class EventStream:
    """The events of one stream."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a line that has no end yet
        self._after_cr = False  # a line feed that comes next belongs to the line end before it
        self._is_new = True  # no line is complete yet
        self._pending = self._size = 0  # bytes of these pieces, and of the lines of the event before them
        self._name = b""
        self._data: list[bytes] = []
        self._lines: list[bytes] = []
        self._is_commented = False

    @property
    def is_between(self) -> bool:
        """No event is under way."""
        return not (self._pieces or self._lines or self._is_commented or self._is_new)

    def feed(self, data: bytes) -> list[Sent]:
        """What is complete by now.

        Raises:
            InvalidOutput: an event is larger than any can be.
        """
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return []
        if data.find(b"\r") >= 0:  # here and below: `in` makes an error first, and drops it
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
        """What was begun and has no blank line behind it. By the standard it is no event, for it may be cut."""
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
        return None  # all other fields are for nobody here, `id` and `retry` among them

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


def starts_events(text: bytes) -> bool | None:
    """Whether what begins with these bytes is a stream of events; None: it depends on what comes.

    It is when there is a `data:` behind nothing but blank lines, comments and the other fields of an event.
    """
    found = _LEAD.match(text)
    at = found.end() if found is not None else 0
    rest = text[at:]
    if rest.startswith(b"data:"):
        return True
    if b"\n" in rest or b"\r" in rest or len(text) > MAX_LEAD:
        return False
    may_be = rest.startswith((b":", *_BEGINNINGS)) or any(beginning.startswith(rest) for beginning in _BEGINNINGS)
    return None if may_be or (not at and BOM.startswith(rest)) else False


def is_complete(data: bytes) -> bool:
    """Whether nothing of this data was cut off: in every protocol here it is an object in JSON, or `[DONE]`."""
    if data.strip() == DONE:
        return True
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(value, dict) and bool(value)


def holds_block(text: bytes) -> bool:
    """Whether at least one event without data, or a comment with a blank line behind it, is in such a beginning."""
    found = _LEAD.match(text)
    return found is not None and _BLOCK.search(found[0].removeprefix(BOM)) is not None


def one_line(events: bytes) -> bytes:
    """Events whose data is JSON, with no character in it that any client takes for the end of a line."""
    if events.isascii():
        return events
    for character, escape in _OTHER_ENDS:
        if events.find(character) >= 0:
            events = events.replace(character, escape)
    return events
