"""Server-sent events: whole events only, everything that is queued in one write, pings in silence.

Nothing here watches for the client: its leaving ends the call, and with that the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

from .exchange import UNBUFFERED, Exchange, spawn

PING_INTERVAL = 15  # seconds; idle proxies cut at 30 and more
HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"), UNBUFFERED]


class _Pings:
    """What keeps a connection alive while a stream is silent: a comment, or an event of the dialect."""

    def __init__(self, exchange: Exchange, ping: bytes) -> None:
        self._exchange, self._ping = exchange, ping
        self._loop = asyncio.get_running_loop()
        self.is_silent = True  # nothing of the stream is being written, and there may be more of it
        self._wait()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(PING_INTERVAL, self._remind)

    def _remind(self) -> None:
        self._wait()
        spawn(self._send())

    async def _send(self) -> None:
        cycle = self._exchange.cycle
        if self.is_silent and (cycle is None or not cycle.flow.write_paused):
            await self._exchange.write(self._ping)

    def end(self) -> None:
        self.is_silent = False
        self._timer.cancel()


async def stream(exchange: Exchange, events: AsyncIterable[bytes], ping: bytes) -> None:
    """Answer with a stream of framed events, until they end or the client leaves."""
    await exchange.start(200, HEADERS)
    cycle, pings = exchange.cycle, _Pings(exchange, ping)
    try:
        async for chunk in events:
            pings.is_silent = False
            await exchange.write(chunk)
            pings.is_silent = True
            if cycle is not None and cycle.disconnected:  # a call that had ended by then ends nothing
                return
    finally:
        pings.end()
    await exchange.write(b"", last=True)
