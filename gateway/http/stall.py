"""A client that does not take what waits for it is cut off; one that takes it slowly is not."""

from __future__ import annotations

import asyncio

SOME = 16 * 1024  # bytes of what waits that must be taken in each span: less would hold an answer for ever
UNSEEN = 64 * 1024  # bytes that may wait below TLS, of which its transport does not say


class Stall:
    """Begins when a connection takes no more, and is cancelled when it does again. Until then it must get on.

    It also begins when a connection is closed, which ends when what waits is taken.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, span: float) -> None:
        self._transport, self._loop, self._span = transport, loop, span
        self._unseen = UNSEEN if transport.get_extra_info("sslcontext") is not None else 0
        self._watch()

    def _watch(self) -> None:
        self._waits = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(self._span, self._look)

    def _look(self) -> None:
        waits = self._transport.get_write_buffer_size()
        if not waits and self._unseen:
            self._unseen -= SOME
        elif self._waits - waits < SOME:
            self._transport.abort()
            return
        self._watch()

    def cancel(self) -> None:
        self._timer.cancel()
