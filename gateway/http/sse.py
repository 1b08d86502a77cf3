"""Server-sent events: whole events, everything that is ready in one write, and pings while a stream is silent.

This module does not watch for a disconnect: that ends the call, and with it the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

from .answering import UNBUFFERED
from .exchange import Exchange, spawn

PING_INTERVAL = 15  # seconds; proxies close idle connections after 30 or more
HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"), UNBUFFERED]


class _Pings:
    """Keeps a connection alive while a stream is silent, with a comment or an event of the dialect."""

    def __init__(self, exchange: Exchange, ping: bytes) -> None:
        self._exchange, self._ping = exchange, ping
        self._loop = asyncio.get_running_loop()
        self.is_silent = True  # no event is being written, and more may follow
        self._wait()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(PING_INTERVAL, self._remind)

    def _remind(self) -> None:
        self._wait()
        spawn(self._send())

    async def _send(self) -> None:
        cycle = self._exchange.cycle
        if self.is_silent and not self._exchange.is_over and (cycle is None or not cycle.flow.write_paused):
            await self._exchange.write(self._ping)

    def end(self) -> None:
        self.is_silent = False
        self._timer.cancel()


async def stream(exchange: Exchange, events: AsyncIterable[bytes], ping: bytes) -> None:
    """Answer with a stream of framed events, until they end or the client disconnects."""
    await exchange.start(200, HEADERS)
    cycle, pings = exchange.cycle, _Pings(exchange, ping)
    try:
        async for chunk in events:
            pings.is_silent = False
            await exchange.write(chunk)
            pings.is_silent = True
            if cycle is not None and cycle.disconnected:  # events of a finished call do not stop by themselves
                exchange.check_permission()
                return
    finally:
        pings.end()
    await exchange.write(b"", last=True)
