"""Server-sent events: whole events only, LF only, everything that is queued in one write.

The only file that knows sse-starlette. Its own shutdown logic is off, for it cuts streams without an end; the drain is
ours. Its private send hook is replaced, for a cancel scope around every send costs more than the send.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Coroutine
from typing import Any

from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import AppStatus, EventSourceResponse

from .exchange import Exchange

PING_INTERVAL = 15  # seconds; idle proxies cut at 30 and more

AppStatus.disable_automatic_graceful_drain()  # type: ignore[no-untyped-call]


class LeanEventSourceResponse(EventSourceResponse):
    exchange: Exchange

    def _send_with_timeout(self, send: Any, message: Any) -> Coroutine[Any, Any, None]:
        """The server's own `send`, with nothing around it while the client takes what comes."""
        exchange = self.exchange
        if exchange.cycle is not None and exchange.cycle.flow.write_paused:
            return exchange.send(message)
        sent: Coroutine[Any, Any, None] = send(message)
        return sent


class _Ping(ServerSentEvent):
    """A ping that is framed already: a comment, or an event of the dialect."""

    def __init__(self, framed: bytes) -> None:
        super().__init__()
        self._framed = framed

    def encode(self) -> bytes:
        return self._framed


async def stream(exchange: Exchange, events: AsyncIterable[bytes], ping: bytes) -> None:
    """Answer with a stream of framed events; the iterator is closed when the client leaves."""
    response = LeanEventSourceResponse(events, ping=PING_INTERVAL, ping_message_factory=lambda: _Ping(ping), sep="\n")
    del response.headers["connection"]  # whether it stays open is the server's to say
    response.raw_headers += exchange.common
    response.exchange = exchange
    exchange.status = 200
    await exchange.hand_to(response)
