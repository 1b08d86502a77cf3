"""Let the thread of a slot read its own next call, while calls come one at a time.

A call that the event loop reads and hands to a thread wakes two threads, which then take turns in the interpreter.
After some calls of which each came alone, the thread that has sent the last answer waits for the next frame itself:

    the thread waits       the loop does not watch the socket, and sleeps
    the thread runs a call the loop watches the socket, so that a cancel or another call is read at once
    anything else arrives  the loop gets it, and reads again until calls have come alone for some time

Frames are never read by two threads: a thread reads only while it holds `_reads`, and the loop reads only when it has
ended the direct reading, for which it needs the same lock.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading

from ..wire.channel import HEADER_SIZE
from ..wire.frames import HEADER, REQ
from .calls.threads import Outbox
from .thread_channel import ThreadChannel

AFTER, AT_MOST = 8, 1024  # calls that came alone, before the first direct reading, and after many that were short
BUFFER = 64 << 10  # bytes; the loop reads what is larger


class DirectReading:
    """`is_on` may be read anywhere; it is changed on the event loop only.

    `alone` is the number of calls in a row that came alone. Create it before the model is loaded, because a process
    that the model forks must get none of its descriptors.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: ThreadChannel, outbox: Outbox) -> None:
        self._loop, self._channel, self._outbox = loop, channel, outbox
        self._socket = channel.descriptor
        self._for_loop = select.epoll()  # what the loop watches: a thread can switch it on and off
        self._for_loop.register(self._socket, 0)
        self._for_thread = select.poll()
        self._for_thread.register(self._socket, select.POLLIN)
        self._reads = threading.Lock()
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._size = 0
        self.is_on = False
        self.alone = 0
        self._after = AFTER
        self._taken = 0  # calls since it is on

    # ── on the event loop ────────────────────────────────────────────────────────────────────────────────────────

    def begin(self) -> None:
        """Begin, when the only call has been read and enough others came alone before it."""
        if self.is_on or self.alone < self._after or not self._channel.is_between_frames:
            return
        self._channel.transport.pause_reading()
        self._for_loop.modify(self._socket, select.EPOLLIN)
        self._loop.add_reader(self._for_loop.fileno(), self._end_for_another)
        self._taken = 0
        self.is_on = True

    def _end_for_another(self) -> None:
        """End because something has arrived while a call runs."""
        if self._reads.acquire(blocking=False):  # otherwise a thread has come back and reads it
            self._end(b"")

    def _end(self, data: bytes) -> None:
        """Let the loop read again, beginning with `data`. `_reads` is held."""
        self._loop.remove_reader(self._for_loop.fileno())
        # Beginning costs as much as some calls save.
        self._after = AFTER if self._taken > self._after else min(2 * self._after, AT_MOST)
        self.alone = 0
        self.is_on = False
        self._reads.release()
        if not self._channel.transport.is_closing():
            self._channel.transport.resume_reading()
            if data:
                self._channel.feed(data)

    # ── on the thread of a slot ──────────────────────────────────────────────────────────────────────────────────

    def take(self) -> tuple[int, memoryview] | None:
        """Wait for the next frame. Return the id and the payload of a call, which are valid until the next `take`.

        Call `accept` or `refuse` afterwards. None if another thread reads, or if the loop has to handle what came.
        """
        if not self._reads.acquire(blocking=False):
            return None
        if not self.is_on:
            self._reads.release()
            return None
        self._for_loop.modify(self._socket, 0)
        self._size = 0
        self._for_thread.poll()
        try:
            self._size = size = os.readv(self._socket, (self._buffer,))
        except OSError:  # the loop finds out
            size = 0
        if size >= HEADER_SIZE:
            length, kind, call = HEADER.unpack_from(self._buffer)
            if kind == REQ and size == HEADER_SIZE + length:
                return call, self._view[HEADER_SIZE:size]
        self.refuse()
        return None

    def accept(self) -> None:
        """The thread runs the call; meanwhile the loop watches the socket."""
        self._taken += 1
        self._for_loop.modify(self._socket, select.EPOLLIN)
        self._reads.release()

    def refuse(self) -> None:
        """Let the event loop handle what has been read, and everything that follows."""
        self._outbox.put(self._end, bytes(self._view[: self._size]))
