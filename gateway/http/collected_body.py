"""A body that its reader wants as a whole: kept as it arrives, while the reader sleeps.

uvicorn wakes the reader for every 64 KiB, stops reading until it has run, and copies each part twice more on its way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle as Cycle

from ..errors import BadRequest, TooLarge
from ..wording import counted
from .connection_endings import EndingProtocol

MAX_READS, MIN_MEAN = 4096, 256  # more reads than this with a smaller mean size are refused
FRAMING = 128 << 10  # bytes around the chunks of a body; further ones need MIN_CONTENT bytes of content each
MIN_CONTENT = 4
FEW = 64  # chunks that are parsed in no time
A_TURN = 512 << 10  # bytes of one body in one turn of the event loop: then other connections get theirs


class Parts:
    """What has arrived of a body of at most `limit` bytes."""

    def __init__(self, first: bytes, limit: int, now: float) -> None:
        self.limit, self.last = limit, now  # when the last bytes came
        self.reads = 1
        self.is_tiny = False  # its chunks are
        self._whole = BytesIO()  # getvalue() does not copy; copying a large body would block the loop
        self.add = self._whole.write
        self.add(first)
        self._turn = 0  # its size when this turn of the loop began

    def read(self, now: float) -> None:
        """Count one read from the connection, whose parts were added."""
        self.reads, self.last = self.reads + 1, now

    @property
    def is_refused(self) -> bool:
        size = self._whole.tell()
        return size > self.limit or self.is_tiny or (self.reads > MAX_READS and size / self.reads < MIN_MEAN)

    def check(self) -> None:
        """
        Raises:
            TooLarge: it has more bytes.
            BadRequest: it has too many tiny parts.
        """
        if self._whole.tell() > self.limit:
            raise too_large(self.limit)
        if self.is_refused:
            raise BadRequest("the body arrives in too many tiny chunks", headers={"connection": "close"})

    def ends_turn(self) -> bool:
        """Whether as much came in this turn of the loop as may. The next turn begins then."""
        if self._whole.tell() - self._turn < A_TURN:
            return False
        self._turn = self._whole.tell()
        return True

    def joined(self) -> bytes:
        return self._whole.getvalue()


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {counted(limit, 'byte')}", headers={"connection": "close"})


class CollectingProtocol(EndingProtocol):
    """The part of `GuardedProtocol` that collects bodies."""

    collected: Parts | None = None  # of the body that is being read, until its last byte is parsed
    _body = 0  # bytes of the body so far
    _of: Cycle | None = None  # whose body the next three are about
    _content = _framing = 0  # bytes of it at the last read, and around its chunks
    _is_crumbs = False  # what was parsed last is mostly framing

    @contextmanager
    def collecting(self, cycle: Cycle, first: bytes, limit: int) -> Iterator[Parts]:
        """Keep what arrives of a body, from its `first` part on. Its reader is woken at the end of the body, of the
        connection or of the caller's permission, and when the body is to be refused.
        """
        self.collected = parts = Parts(first, limit, self.loop.time())
        parts.add(cycle.body)
        cycle.body = bytearray()
        try:
            yield parts
        finally:
            self.collected = None

    def _part_was_read(self, size: int) -> None:
        """`size` bytes were parsed, and more of the body follows. Wake its reader, unless it waits for all."""
        parts = self.collected
        if self._is_tiny(size):
            if parts is None:  # nobody reads it, or a plugin does
                self.send_400_response("")
                return
            parts.is_tiny = True
        if parts is None:
            self.cycle.message_event.set()
            return
        parts.read(self.loop.time())
        if parts.is_refused:
            self.cycle.message_event.set()
        elif parts.ends_turn():
            self.flow.pause_reading()
            self.loop.call_soon(self._read_more)

    def _is_tiny(self, size: int) -> bool:
        """Whether a body comes in chunks of a few bytes: each takes as long to parse as kilobytes in one piece."""
        if self._of is not self.cycle:
            self._of, self._content, self._framing = self.cycle, 0, 0
        grown, self._content = self._body - self._content, self._body
        self._framing += size - grown
        self._is_crumbs = FEW < grown < size // 2
        return (self._framing - FRAMING) * MIN_CONTENT > self._body

    def _read_more(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()
