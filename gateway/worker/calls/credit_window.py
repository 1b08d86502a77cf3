"""Flow control of a stream: how many items and bytes it may send before the gateway grants credit."""

from __future__ import annotations

import asyncio
import threading

from ...wire.frames import WINDOW_BYTES, WINDOW_ITEMS


class Window:
    """The credit of one stream. The producer counts what is sent, the event loop what is granted; both only grow."""

    __slots__ = ("_async", "_granted", "_granted_size", "_sent", "_sent_size", "_sync", "closed")

    def __init__(self) -> None:
        self._sent = self._sent_size = self._granted = self._granted_size = 0
        self._sync: threading.Event | None = None
        self._async: asyncio.Future[None] | None = None
        self.closed = False  # cancelled

    @property
    def sent(self) -> int:
        """The number of items sent."""
        return self._sent

    @property
    def has_room(self) -> bool:
        return (
            self._sent - self._granted < WINDOW_ITEMS
            and self._sent_size - self._granted_size < WINDOW_BYTES  # checked before an item, so the last may exceed it
        )

    def count(self, size: int) -> None:
        self._sent += 1
        self._sent_size += size

    def grant(self, items: int, size: int) -> None:
        """Add credit that the client has consumed.

        The gateway counts whole frames, a few bytes more than their items.
        """
        self._granted = min(self._granted + items, self._sent)
        self._granted_size = min(self._granted_size + size, self._sent_size)
        self._wake()

    def close(self) -> None:
        self.closed = True
        self._wake()

    def wait(self) -> bool:
        """Block the producing thread until there is room; False if the stream was cancelled."""
        if not self.has_room and not self.closed:
            self._sync = event = threading.Event()
            while not (self.has_room or self.closed):  # check again: a grant may have come before the event
                event.wait()
                event.clear()
            self._sync = None
        return not self.closed

    async def wait_async(self) -> None:
        """Like `wait`, for code on the event loop, which is cancelled as a task."""
        while not (self.has_room or self.closed):
            self._async = asyncio.get_running_loop().create_future()
            try:
                await self._async
            finally:
                self._async = None

    def _wake(self) -> None:
        event, future = self._sync, self._async  # read once: the producer's thread clears it
        if event is not None:
            event.set()
        if future is not None and not future.done():
            future.set_result(None)
