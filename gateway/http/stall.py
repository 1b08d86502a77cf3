"""A client that does not take what waits for it is cut off; one that takes it slowly is not."""

from __future__ import annotations

import asyncio

SOME = 16 * 1024  # bytes of what waits that must be taken in each span: less would hold an answer for ever


class Stall:
    """Begins when a connection takes no more, and is cancelled when it does again. Until then it must get on."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, span: float) -> None:
        self._transport, self._loop, self._span = transport, loop, span
        self._watch()

    def _watch(self) -> None:
        self._waits = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(self._span, self._look)

    def _look(self) -> None:
        if self._waits - self._transport.get_write_buffer_size() < SOME:
            self._transport.abort()
        else:
            self._watch()

    def cancel(self) -> None:
        self._timer.cancel()
