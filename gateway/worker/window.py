"""How far a stream may run ahead of its client: items and bytes sent, against what the gateway granted back."""

from __future__ import annotations

import asyncio
import threading

from ..wire import WINDOW_BYTES, WINDOW_ITEMS


class Window:
    """One stream's credit. Sent is counted by whoever produces, granted by the loop; both only grow."""

    __slots__ = ("_async", "_granted", "_granted_size", "_sent", "_sent_size", "_sync", "closed")

    def __init__(self) -> None:
        self._sent = self._sent_size = self._granted = self._granted_size = 0
        self._sync: threading.Event | None = None
        self._async: asyncio.Future[None] | None = None
        self.closed = False  # cancelled: nobody wants more

    @property
    def has_room(self) -> bool:
        return (
            self._sent - self._granted < WINDOW_ITEMS
            and self._sent_size - self._granted_size < WINDOW_BYTES  # so the last item may reach beyond
        )

    def count(self, size: int) -> None:
        self._sent += 1
        self._sent_size += size

    def grant(self, items: int, size: int) -> None:
        self._granted += items
        self._granted_size += size
        self._wake()

    def close(self) -> None:
        self.closed = True
        self._wake()

    def wait(self) -> bool:
        """Block the producing thread until there is room; False when the stream was cancelled."""
        if not self.has_room and not self.closed:
            self._sync = event = threading.Event()
            while not (self.has_room or self.closed):
                event.wait()
                event.clear()
            self._sync = None
        return not self.closed

    async def wait_async(self) -> None:
        """The same for code on the loop, which is cancelled as a task."""
        while not self.has_room:
            self._async = asyncio.get_running_loop().create_future()
            try:
                await self._async
            finally:
                self._async = None

    def _wake(self) -> None:
        if self._sync is not None:
            self._sync.set()
        if self._async is not None and not self._async.done():
            self._async.set_result(None)
