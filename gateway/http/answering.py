"""How a request is answered.

A whole answer is one write if uvicorn's own `send` is available. It goes through ASGI messages if something wraps
`send`, as in tests, and in pieces if it is large. Each answer reports its timing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import GatewayError
from ..runners.pending import ClientLeft
from .request_cycle import COPIED, PIECE, STATUS, Cycle, write_chunks, write_whole

if TYPE_CHECKING:
    from .protocol import GuardedProtocol

JSON = b"application/json"
SAFE = (b"x-content-type-options", b"nosniff")  # on every answer
UNBUFFERED = (b"x-accel-buffering", b"no")  # on every stream: proxies must not buffer it
NO_BODY = frozenset({204, 304})  # a body would be read as the start of the next response


_HEAD = (
    b"%bcontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\nrequest-id: %b\r\n"
    b"x-content-type-options: nosniff\r\n"
)
_WAITED = b"queue;dur=%.1f, load;dur=%.1f"  # milliseconds
_TIMES = b"queue;dur=%.1f, load;dur=%.1f, model;dur=%.1f, gateway;dur=%.1f"
_TIMES_COUNT = b"queue;dur=%.1f, load;dur=%.1f, model;dur=%.1f, count;dur=%.1f, gateway;dur=%.1f"
_TIMES_PIECE = b"queue;dur=0.0, load;dur=0.0, model;dur=%.1f, gateway;dur=%.1f"


class Answering:
    """The part of `Exchange` that sends answers. The fields are explained where `Exchange` sets them."""

    __slots__ = (
        "_kept_waiting",
        "_left_unread",
        "_over",
        "_send",
        "also",
        "batched_at",
        "connection",
        "count",
        "cycle",
        "ended",
        "error",
        "has_run",
        "load",
        "method",
        "queued",
        "request_id",
        "scope",
        "sending",
        "sent",
        "started",
        "status",
        "was_lost",
    )
    _kept_waiting: float
    _left_unread: bool
    _over: GatewayError | None
    _send: Any
    also: tuple[tuple[bytes, bytes], ...]
    batched_at: float
    connection: GuardedProtocol | None
    count: float
    cycle: Cycle | None
    ended: float
    error: str
    has_run: bool
    load: float
    method: str
    queued: float
    request_id: str
    scope: Any
    sending: float
    sent: float
    started: float
    status: int
    was_lost: bool

    def unwatch(self) -> None:
        """Stop watching the call: it yields nothing more."""
        raise NotImplementedError

    @property
    def ran(self) -> float:
        """Seconds of the call so far, without its time in the queue and the time in which the client did not read.

        It includes `preprocess`, which runs before the call has a slot.
        """
        if not self.has_run:
            return 0.0
        if self.ended:
            seconds = self.ended - self.sent - self.queued - self._kept_waiting
        else:
            seconds = time.monotonic() - self.sent - self.queued - self.sending
        return seconds if seconds > 0.0 else 0.0  # not max(): its call would cost as much as the rest

    @property
    def was_cut_off(self) -> bool:
        """Whether the gateway closed the connection because the client read too slowly."""
        return self.connection is not None and self.connection.was_cut_off

    @property
    def client_is_gone(self) -> bool:
        """Whether the client left early, as far as known: bytes in the system's buffers count as read."""
        if self._left_unread or self.was_lost:
            return True
        return self.cycle is not None and self.cycle.disconnected and not self.cycle.response_complete

    async def taken(self) -> None:
        """Wait until the client has read most of the buffered answer, or has disconnected."""
        if self.cycle is None or self.connection is None:
            return
        began = time.monotonic()
        try:
            await self.cycle.flow.drain()
        finally:
            self.sending += time.monotonic() - began
            self._left_unread = self.connection.lost_unread and not self.was_cut_off

    async def reply(
        self,
        status: int,
        body: bytes | memoryview,
        content_type: bytes = JSON,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Send a whole answer, if the caller may still get it.

        Raises:
            ClientLeft: the client has disconnected.
            GatewayError: the caller has lost its permission.
        """
        if not self.error:
            self.check_permission()
            if self.client_is_gone:
                raise ClientLeft
        if self.reply_now(status, body, content_type, headers):
            return
        pairs = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *headers]
        self.ended = self.ended or time.monotonic()
        await self.start(status, pairs)
        await self.write(body, last=True)

    def reply_now(
        self,
        status: int,
        body: bytes | memoryview,
        content_type: bytes = JSON,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> bool:
        """Send a whole answer at once. Return False if it must go through ASGI or in pieces instead."""
        cycle = self.cycle
        if cycle is None or self.method == "HEAD" or status in NO_BODY or cycle.flow.write_paused:
            return False
        if len(body) > PIECE and (len(body) > COPIED or self.scope["scheme"] == "https"):
            return False
        request_id = self.request_id.encode()
        head = _HEAD % (
            STATUS.get(status) or b"HTTP/1.1 %d \r\n" % status,
            content_type,
            len(body),
            request_id,
            request_id,
        )
        if self.sent and not self.error:
            now = time.monotonic()
            self.ended = self.ended or now
            head += b"server-timing: %b\r\n" % self._timing(now)
        if headers or self.also:
            for name, value in (*headers, *self.also):
                if name == b"connection":  # write_whole writes that header
                    cycle.keep_alive = cycle.keep_alive and value != b"close"
                else:
                    head += b"%b: %b\r\n" % (name, value)
        self.status = status
        write_whole(cycle, head, body)
        return True

    def _timing(self, now: float) -> bytes:
        """Return the timing of a finished call, or only the waiting times of a call that is still running."""
        if not self.ended:
            return _WAITED % (self.queued * 1e3, self.load * 1e3)
        if self.batched_at:
            began, self.batched_at = self.batched_at, 0.0
            return b"%b, batch;dur=%.1f" % (self._timing(now), max(0.0, self.ended - began) * 1e3)
        waited, ran = self.queued + self.load + self.count, self.ran
        ours = now - self.started - waited - ran
        if ours < 0.0:
            ours = 0.0
        if not waited:
            return _TIMES_PIECE % (ran * 1e3, ours * 1e3)
        if self.count:
            return _TIMES_COUNT % (self.queued * 1e3, self.load * 1e3, ran * 1e3, self.count * 1e3, ours * 1e3)
        return _TIMES % (self.queued * 1e3, self.load * 1e3, ran * 1e3, ours * 1e3)

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the status and headers of an answer whose body follows with `write`.

        Raises:
            GatewayError: the caller has lost its permission.
        """
        self.check_permission()
        self.status = status
        if status in NO_BODY:
            headers = [(name, value) for name, value in headers if name != b"content-length"]
        await self.send({"type": "http.response.start", "status": status, "headers": [*headers, *self.common]})

    async def send(self, message: Any) -> None:
        """Send an ASGI message, and measure how long the client does not read."""
        size = len(message.get("body", b""))
        if size > PIECE and (size > COPIED or self.scope["scheme"] == "https"):
            await self._send_in_pieces(message)
            return
        if self.cycle is None or not self.cycle.flow.write_paused:
            await self._send(message)
            return
        began = time.monotonic()
        try:
            await self._send(message)
        finally:
            self.sending += time.monotonic() - began

    async def _send_in_pieces(self, message: Any) -> None:
        """Send a large body in pieces, waiting for room before each.

        One large write would block the loop until all of it is encrypted or copied. Between two pieces other requests
        get their turn. Sending stops when the client disconnects or the caller loses its permission.
        """
        body, more = memoryview(message["body"]), message.get("more_body", False)
        size = PIECE if self.scope["scheme"] == "https" else COPIED
        for start in range(0, len(body), size):
            self.check_permission()
            if self.cycle is not None and self.cycle.disconnected:
                return
            is_last = start + size >= len(body)
            await self.send({**message, "body": body[start : start + size], "more_body": more or not is_last})
            if not is_last:
                await asyncio.sleep(0)

    @property
    def common(self) -> list[tuple[bytes, bytes]]:
        """The headers of every answer to this request."""
        request_id = self.request_id.encode()
        headers = [(b"x-request-id", request_id), (b"request-id", request_id), SAFE, *self.also]
        if self.sent and not self.error:
            headers.append((b"server-timing", self._timing(time.monotonic())))
        return headers

    def check_permission(self) -> None:
        """Break off an answer whose caller has lost its permission, unless it says so itself.

        Raises:
            GatewayError: why the caller has lost it.
        """
        if self._over is not None and not self.error:
            if self.status:
                self.break_off()
            raise self._over

    async def write(self, chunk: bytes | memoryview, last: bool = False) -> None:
        """Send a part of the body.

        Raises:
            GatewayError: it is the last, or a large one, and the caller has lost its permission.
        """
        if last:
            self.check_permission()
        body = b"" if self.status in NO_BODY else chunk
        waits = self.cycle is not None and self.cycle.flow.write_paused
        goes_at_once = not waits and len(body) <= PIECE
        send = self._send if goes_at_once else self.send  # saves a coroutine for each chunk
        await send({"type": "http.response.body", "body": body, "more_body": not last})

    async def write_each(self, parts: Sequence[bytes]) -> None:
        """Send parts of the body. With the chunked encoding each is a chunk, and all are written together."""
        cycle = self.cycle
        if (
            len(parts) > 1
            and cycle is not None
            and cycle.chunked_encoding
            and not cycle.flow.write_paused
            and sum(map(len, parts)) <= PIECE
            and self.status not in NO_BODY
        ):
            write_chunks(cycle, parts)
            return
        for part in parts:
            if part:
                await self.write(part)

    def break_off(self) -> None:
        """Close the connection in mid-body, after the data written so far: a failed stream must not look complete."""
        if self.cycle is not None and self.connection is not None:
            self.connection.break_off(self.cycle)
