"""uvicorn's websocket protocol with additional guards.

It adds to websockets_sansio_impl: pings as configured in a model's config.yaml, the model's message size limit, limits
on the number of fragments of a message and on pings, and a timeout for clients that do not read.

Everything that was read counts in the room of all websocket messages, see `gateway/admission/messages.py`. While there
is none, reading stops.

It parses a little at a time and stops when a message is ready, because parsed small messages take many times their
size. Before a connection is accepted, nothing is parsed, and reading stops after the first bytes: a waiting client
sends nothing, and its disconnect is noticed. Reading also stops while the client does not read. Callers check
`client_is_gone` meanwhile. Like `protocol.py`, it depends on uvicorn's internals.

`runtime.transport.ping_interval_seconds` and `.ping_timeout_seconds` mean the same as under Truss's server, which
passes them to uvicorn. There they apply to the whole server, here to the connections of one model.
"""

from __future__ import annotations

import asyncio
import random
import select
import socket
import sys
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.http11 import MAX_LINE_LENGTH

from ..admission.messages import Arriving
from ..errors import Overloaded, TooLarge
from .refused_connections import Refused, refusal
from .slow_clients import SEND_TIMEOUT, Stall
from .turns import Turn, Turns

if TYPE_CHECKING:
    from websockets.frames import Frame
    from websockets.http11 import Request

    from ..spec import ModelSpec

TERMS = "gateway.terms"  # key in our accept message: the result of `terms_of`
ROOM = "gateway.room"  # key in our accept message: the `Messages` that count, and the seconds that a message may wait
TAKEN = "gateway.taken"  # key in messages from clients: to be called when somebody else counts the message
GOES_ON = "gateway.goes_on"  # key in our send messages: True for the parts of a message before its last one
SWITCHED = 101  # the status of a connection that was upgraded
SLICE = 4096  # bytes parsed before checking for a complete message
MAX_PIECES, SMALL_PIECE = 4096, 256  # this many fragments may be smaller than this on average, as for HTTP bodies
TURN = 0.002  # seconds of parsing before other tasks get their turn
PINGS, PINGS_A_SECOND = 100, 10  # unsolicited pings and pongs: in a burst, and per second in the long run
PIECE = 64  # bytes that a fragment takes beside its content
NOTHING = memoryview(b"")
BAD_TEXT, POLICY, TOO_BIG, LATER = 1007, 1008, 1009, 1013
TOO_MANY_PINGS, PING_TIMEOUT, BAD_FRAME = "too_many_pings", "ping_timeout", "invalid_request"  # error codes for the log
FAILURES = {POLICY: TOO_MANY_PINGS, TOO_BIG: TooLarge.code, LATER: Overloaded.code}  # by close code
# TCP keepalive finds vanished clients while nothing is read: first after 30 seconds, then three probes.
KEPT_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
LINGER = 5.0  # seconds for which further input of a refused client is discarded


def terms_of(spec: ModelSpec) -> tuple[float | None, float | None, int]:
    """Return the ping interval and the pong timeout in seconds, and the maximum message size in bytes.

    A time that is None, or 0 as under Truss, keeps uvicorn's default.
    """
    transport = (spec.config.get("runtime") or {}).get("transport") or {}
    return transport.get("ping_interval_seconds"), transport.get("ping_timeout_seconds"), spec.limits.max_message


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """One connection. `read_paused` is true while received data must be handled first."""

    send_timeout = 30.0  # seconds within which a client must read some of the buffered data
    refused = Refused()  # counts connections without a valid request
    turns = Turns()

    sends_parts = True  # it understands GOES_ON

    _unparsed = NOTHING
    _arriving: Arriving | None = None  # None before the connection is accepted
    _lingering = _is_amid = False  # `_is_amid`: parts of a message have been sent, but not its last
    _later: asyncio.Handle | Turn | None = None
    _pings, _pinged = float(PINGS), 0.0
    _stall: Stall | None = None
    _failure = ""
    was_lost = False  # the client vanished without a close frame from either side

    @property
    def client_is_gone(self) -> bool:
        """Whether the client has disconnected, also while reading is paused."""
        if self.disconnected or self.transport.is_closing():
            return True
        look = select.poll()
        look.register(self.transport.get_extra_info("socket"), select.POLLRDHUP)
        return bool(look.poll(0))

    @property
    def failure(self) -> str:
        """The error code, if the connection was ended because of a mistake of the client."""
        return SEND_TIMEOUT if self._stall is not None and self._stall.has_cut_off else self._failure

    @property
    def cause(self) -> str:
        """The limit behind `failure`, if it is one of the gateway."""
        return "max_queued_bytes" if self.failure == Overloaded.code else ""

    async def send(self, message: Any) -> None:
        if GOES_ON in message:
            await self._send_part(message)
            return
        interval, timeout, limit = message.get(TERMS, (None, None, None))
        self.ping_interval = interval or self.ping_interval
        self.ping_timeout = timeout or self.ping_timeout
        if limit is not None:
            self.conn.max_message_size = limit
        await self.writable.wait()
        if self.close_sent and message["type"] == "websocket.send":
            raise ClientDisconnected  # we have ended the connection; uvicorn would call that the application's mistake
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # it was refused; uvicorn would log an error for each refusal
        if ROOM in message and not self.disconnected:
            room, patience = message[ROOM]
            self._arriving = Arriving(room, patience, self._resume, self._give_up)
            self._arriving.read(self._unfinished())
        self._read_on()

    async def _send_part(self, message: Any) -> None:
        """Send a part of a message as a frame. Between two frames the connection may be closed properly."""
        await self.writable.wait()
        if self.disconnected or self.close_sent:
            raise ClientDisconnected
        text, data, is_last = message.get("text"), message.get("bytes"), not message[GOES_ON]
        try:
            if self._is_amid:
                self.conn.send_continuation(data if text is None else text, is_last)
            elif text is None:
                self.conn.send_binary(data, is_last)
            else:
                self.conn.send_text(text, is_last)
        except InvalidState:
            raise ClientDisconnected from None
        self._is_amid = not is_last
        self.transport.write(b"".join(self.conn.data_to_send()))

    async def receive(self) -> Any:
        message = await self.queue.get()
        self._read_on()
        return message

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code != SWITCHED:
            self.refused.note("invalid_handshake", self.client[0] if self.client else None)

    def _refuse_head(self, head: bytes) -> None:
        """Answer a head that only the HTTP parser takes: the websocket library allows shorter lines."""
        request_id = f"{random.getrandbits(128):032x}"
        is_long = max(map(len, head.split(b"\r\n"))) + 2 > MAX_LINE_LENGTH
        self.refused.note("invalid_handshake", self.client[0] if self.client else None, request_id)
        self.transport.write(refusal(431 if is_long else 400, request_id.encode()))
        self.handshake_complete = self.close_sent = True
        self.transport.close()

    def shutdown(self) -> None:
        """The stop of the gateway. An exception would end it for all other connections too."""
        try:
            super().shutdown()
        except InvalidState:  # both sides are about to close
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:  # to find clients that vanish
            for level, option, value in KEPT_ALIVE:
                sock.setsockopt(level, option, value)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stall is not None:
            self._stall.cancel()
        self.was_lost = self.handshake_complete and not self.close_sent and self.conn.close_rcvd is None
        arriving, self._arriving = self._arriving, None
        try:
            super().connection_lost(exc)  # first: it ends the call, which holds a slot
        finally:
            if arriving is not None:
                arriving.close()

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:  # the head, passed on by the HTTP protocol
            super().data_received(data)
            if not self.handshake_initiated:  # the library has refused the head, and reports it by no event
                self._refuse_head(data)
            return
        if self._lingering:
            return
        self._unparsed = memoryview(bytes(self._unparsed) + data if self._unparsed else data)
        if self._arriving is not None:
            self._arriving.read(self._unfinished())
        self._read_on()

    def _read_on(self, *, is_its_turn: bool = False) -> None:
        """Parse the received data up to the next message, then resume reading if the application is ready for more."""
        if self._later is not None:
            return
        end = self.loop.time() + TURN
        while self._unparsed and self._may_read() and not self._lingering:
            if self.loop.time() > end or (self.turns and not is_its_turn):
                self._pause()
                self._later = self.turns.join(self.loop, self._read_later)
                return
            piece, self._unparsed = self._unparsed[:SLICE], self._unparsed[SLICE:] or NOTHING
            super().data_received(bytes(piece))
        if self._arriving is not None:
            self._arriving.parsed(self._unfinished())
        if not self._may_read():
            if self.handshake_complete or self._unparsed:  # otherwise only a disconnect can arrive
                self._pause()
        elif self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()

    def _read_later(self) -> None:
        self._later = None
        self._read_on(is_its_turn=True)

    def _may_read(self) -> bool:
        if self.transport.is_closing() or not self.handshake_complete or not self.writable.is_set():
            return False
        if self.close_sent:  # nothing counts as a message any more
            return True
        return self.queue.empty() and (self._arriving is None or not self._arriving.waits)

    def _unfinished(self) -> int:
        """Return the bytes that are held of messages which are not complete, or not parsed."""
        read: Any = self._unparsed.obj  # all of it is held until its last byte is parsed
        pieces = (self.conn.current_size or 0) + PIECE * len(self.frames)
        return len(read) + len(self.conn.reader.buffer) + pieces

    def _resume(self) -> None:
        if self._later is None:
            self._later = self.loop.call_soon(self._read_later)

    def _give_up(self, reason: str) -> None:
        """Drop an unfinished message, and close the connection."""
        try:
            if self.close_sent:  # it is about to be closed anyway
                self._drop()
            else:
                self._fail(LATER, reason)
            self._read_on()
        except Exception:
            self.transport.abort()  # what it holds counts no more
            raise

    def _drop(self) -> None:
        self._lingering, self._unparsed, self.frames = True, NOTHING, []
        self.conn.reader.discard()
        self.conn.current_size = None

    def _pause(self) -> None:
        if not self.read_paused and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()

    def _fail(self, code: int, reason: str) -> None:
        if not self._lingering:  # otherwise the same read contained more of it
            self.conn.fail(code, reason)
            self.handle_parser_exception()

    def handle_parser_exception(self) -> None:
        """Send the close frame, then discard further input. Closing at once would reset the connection and lose the
        frame.
        """
        assert self.conn.close_sent is not None
        code, reason = self.conn.close_sent.code, self.conn.close_sent.reason
        self._failure = FAILURES.get(code, BAD_FRAME)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self._drop()
        self.stop_keepalive()
        if self.transport.can_write_eof() and not self.transport.is_closing():
            self.transport.write_eof()
        self.close_timer = self.loop.call_later(LINGER, self.transport.close)

    def send_receive_event_to_app(self) -> None:
        """Same as the base class, except that invalid UTF-8 is the client's error and is not logged as ours."""
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
        if self._arriving is not None:
            message[TAKEN] = self._arriving.taken
            self._arriving.completed(sys.getsizeof(message.get("text", data)))
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
        """Count frames that cost work and carry no message. A client that keeps sending them is disconnected."""
        now = self.loop.time()
        self._pings = min(PINGS, self._pings + (now - self._pinged) * PINGS_A_SECOND) - 1
        self._pinged = now
        if self._pings >= 0:
            return True
        self._fail(POLICY, "too many pings")
        return False

    # ── clients that do not read, or do not answer pings ─────────────────────────────────────────────────────────────

    def pause_writing(self) -> None:
        super().pause_writing()
        self._pause()  # more input would make us answer its pings
        self.watch_rest()

    def watch_rest(self) -> None:
        """Require that the client reads what is buffered. Also called for a connection that was closed."""
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
            # Its pong may be queued behind messages that the model has not taken.
            assert self.ping_timeout is not None
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
            return
        self._failure = PING_TIMEOUT
        super().keepalive_timeout()
