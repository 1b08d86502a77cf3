"""uvicorn's websocket protocol with the guards it lacks.

Adds to websockets_sansio_impl: pings as a model's config.yaml asks for them, the model's limit of a message, a bound
for the pieces that one is sent in and for pings, a limit for clients that do not read. It parses a little at a time and
stops when there is a message to be taken: a read of small messages would be many times its size. Before a connection is
accepted nothing is parsed, and after the first bytes nothing more is read: a client that waits sends none, and is heard
when it leaves. Nor is anything read while what we have to say is not read. Whether a client has left meanwhile is for
others to ask, see `client_is_gone`. Leans on uvicorn's internals, as does `protocol.py`.

`runtime.transport.ping_interval_seconds` and `.ping_timeout_seconds` mean what they mean under Truss's server, which
passes them to uvicorn; there they hold for the whole server, here for the connections of one model.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ..errors import TooLarge
from .refused import Refused
from .stall import SEND_TIMEOUT, Stall

if TYPE_CHECKING:
    from websockets.frames import Frame
    from websockets.http11 import Request

    from ..spec import ModelSpec

TERMS = "gateway.terms"  # of our accept message: what `terms_of` says
SWITCHED = 101  # the status of a connection that became a websocket
SLICE = 4096  # bytes that are parsed before somebody looks whether they were a message
MAX_PIECES, SMALL_PIECE = 4096, 256  # so many pieces may be smaller than this, as those of a body
TURN = 0.002  # seconds of parsing after which others have their turn
PINGS, PINGS_A_SECOND = 100, 10  # of pings and pongs that nobody asked for, at once and in the long run
BAD_TEXT, POLICY, TOO_BIG = 1007, 1008, 1009
TOO_MANY_PINGS, PING_TIMEOUT, BAD_FRAME = "too_many_pings", "ping_timeout", "invalid_request"  # codes for the log
FAILURES = {POLICY: TOO_MANY_PINGS, TOO_BIG: TooLarge.code}  # by the code that we close with
# Whether a client is still there is asked by the system, while nothing is read: after 30 seconds, then three times.
KEPT_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
LINGER = 5.0  # seconds in which the rest of what was refused is thrown away


def terms_of(spec: ModelSpec) -> tuple[float | None, float | None, int]:
    """The seconds between two pings, those that a pong may take, and the bytes of a message.

    A time that is None, or 0 as under Truss, leaves uvicorn's own.
    """
    transport = (spec.config.get("runtime") or {}).get("transport") or {}
    return transport.get("ping_interval_seconds"), transport.get("ping_timeout_seconds"), spec.limits.max_message


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection. `read_paused` is true whenever there is something to be taken first."""

    send_timeout = 30.0  # seconds in which a client must take some of what waits for it
    refused = Refused()  # what counts those that are no requests

    _unparsed = memoryview(b"")
    _lingering = False
    _later: asyncio.Handle | None = None
    _pings, _pinged = float(PINGS), 0.0
    _stall: Stall | None = None
    _failure = ""
    was_lost = False  # its client went without a close, of either side

    @property
    def client_is_gone(self) -> bool:
        """Whether nobody is at the other end any more, though nothing may be read that would say so."""
        if self.disconnected or self.transport.is_closing():
            return True
        look = select.poll()
        look.register(self.transport.get_extra_info("socket"), select.POLLRDHUP)
        return bool(look.poll(0))

    @property
    def failure(self) -> str:
        """The code of what its client did wrong, if we ended the connection for it."""
        return SEND_TIMEOUT if self._stall is not None and self._stall.has_cut_off else self._failure

    async def send(self, message: Any) -> None:
        interval, timeout, limit = message.get(TERMS, (None, None, None))
        self.ping_interval = interval or self.ping_interval
        self.ping_timeout = timeout or self.ping_timeout
        if limit is not None:
            self.conn.max_message_size = limit
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # it was refused; uvicorn would log an error for each
        self._read_on()

    async def receive(self) -> Any:
        message = await self.queue.get()
        self._read_on()
        return message

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code != SWITCHED:
            self.refused.note("invalid_handshake", self.client[0] if self.client else None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:  # those who go without a word
            for level, option, value in KEPT_ALIVE:
                sock.setsockopt(level, option, value)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stall is not None:
            self._stall.cancel()
        self.was_lost = self.handshake_complete and not self.close_sent and self.conn.close_rcvd is None
        super().connection_lost(exc)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:  # the head, from the HTTP protocol
            super().data_received(data)
            return
        if self._lingering:
            return
        self._unparsed = memoryview(bytes(self._unparsed) + data if self._unparsed else data)
        self._read_on()

    def _read_on(self) -> None:
        """Parse what was read, up to the next message, then read more: if somebody is there to take it."""
        if self._later is not None:
            return
        end = self.loop.time() + TURN
        while self._unparsed and self._may_read() and not self._lingering:
            if self.loop.time() > end:
                self._pause()
                self._later = self.loop.call_soon(self._read_later)
                return
            piece, self._unparsed = self._unparsed[:SLICE], self._unparsed[SLICE:]
            super().data_received(bytes(piece))
        if not self._may_read():
            if self.handshake_complete or self._unparsed:  # else there is only its leaving to be read
                self._pause()
        elif self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def _read_later(self) -> None:
        self._later = None
        self._read_on()

    def _may_read(self) -> bool:
        if self.transport.is_closing() or not self.handshake_complete or not self.writable.is_set():
            return False
        return self.close_sent or self.queue.empty()  # behind our close nothing is a message any more

    def _pause(self) -> None:
        if not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()

    def _fail(self, code: int, reason: str) -> None:
        if not self._lingering:  # else there was more of it in the same piece
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Say what is wrong, and throw away what still comes: closed at once, its client would learn of a reset."""
        assert self.conn.close_sent is not None
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self._failure = FAILURES.get(code, BAD_FRAME)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = self._lingering = True
        self.stop_keepalive()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(LINGER, self.transport.close)

    def send_receive_event_to_app(self) -> None:
        """As in the base class, but that a text which is not UTF-8 is its client's error, and none of ours to log."""
        data, self.frames = b"".join(self.frames), []
        if self.close_sent:
            return
        message: Any = {"type": "websocket.receive"}
        if self.curr_msg_data_type == "bytes":
            message["bytes"] = data
        else:
            try:
                message["text"] = data.decode()
            except UnicodeDecodeError:
                self._fail(BAD_TEXT, "a text that is not UTF-8")
                return
        self.queue.put_nowait(message)
        self._pause()

    def handle_cont(self, event: Frame) -> None:
        pieces = len(self.frames)
        if pieces >= MAX_PIECES and (self.conn.current_size or 0) < pieces * SMALL_PIECE:
            self._fail(TOO_BIG, "too many pieces of a message")
        else:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        if self._is_calm():
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        if bytes(event.data) == self.pending_ping_payload or self._is_calm():
            super().handle_pong(event)

    def _is_calm(self) -> bool:
        """Count what costs us work and says nothing; a client that sends it without end is turned away."""
        now = self.loop.time()
        self._pings = min(PINGS, self._pings + (now - self._pinged) * PINGS_A_SECOND) - 1
        self._pinged = now
        if self._pings >= 0:
            return True
        self._fail(POLICY, "too many pings")
        return False

    # ── clients that do not read, or cannot be heard ─────────────────────────────────────────────────────────────

    def pause_writing(self) -> None:
        super().pause_writing()
        self._pause()  # it would make us answer its pings
        self.watch_rest()

    def watch_rest(self) -> None:
        """What waits for the client must be taken. Called for a connection that was closed, too."""
        if self._stall is None:
            self._stall = Stall(self.transport, self.loop, self.send_timeout)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self._read_on()

    def keepalive_timeout(self) -> None:
        if self.read_paused and not self.close_sent and not self.transport.is_closing():
            # Its pong may be behind messages that the model has not taken.
            assert self.ping_timeout is not None
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
            return
        self._failure = PING_TIMEOUT
        super().keepalive_timeout()
