"""uvicorn's HTTP/1.1 protocol with the guards it lacks, and the shortest way out for a whole answer.

Adds to httptools_impl: limits on the head (431, 414), a deadline for it, refusals in our error shape, trailers that
never become headers, a limit for readers that do not read, a word to the running request when its client leaves,
answers without chunks for HTTP/1.0. Leans on uvicorn's internals, so its minor version is pinned and
tests/http/test_protocol.py gates each bump.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .refused import Refused
from .stall import Stall

MAX_HEAD = 64 * 1024  # bytes of request line and headers together
MAX_HEADERS = 100
MAX_URL = 8 * 1024
MAX_PIPELINED = 16  # requests read ahead; beyond, reading pauses, and with it the notice that the client has left
SURE = MAX_HEAD - 8 * 1024  # bytes that were read for a head which is surely not too large, whatever they began with
DIGITS = 20  # of a length that the parser takes; zeros before them may be without end, which Python does not read
SLICE = 4096  # bytes that are parsed at once of what may hold many requests: each takes a hundred times its bytes
GOODBYE = 0.5  # seconds that idle connections stay when the server stops: a request may be on its way on one
LINGER = 5.0  # seconds in which the rest of a refused body is thrown away before the connection is closed
# seconds between the last bytes of an answer that breaks off and its end: a page in a browser that learns of both at
# once is never given what it has not read by then
PARTING = 0.1
# bytes of an answer that TLS gets at once: it says then that it is full, and keeps the loop until they are encrypted
PIECE = HIGH_WATER_LIMIT + 1
COPIED = 1 << 20  # bytes of a body that are put behind its head, or written, at once
Cycle = RequestResponseCycle  # what the server knows of one request
STATUS = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus}

_TEXTS = {
    400: ("invalid_request", "the request is not valid HTTP"),
    414: ("request_too_large", f"the URL is longer than {MAX_URL} bytes"),
    431: ("request_too_large", f"the head is larger than {MAX_HEAD} bytes or {MAX_HEADERS} headers"),
    403: ("permission_denied", "what the gateway has started, or is bound as models are, does not operate it"),
    503: ("model_unavailable", "the gateway has as many connections as it may hold"),
}

_REASONS = {400: "invalid_http", 414: "url_too_long", 431: "head_too_large"}
_REASONS[503] = "too_many_connections"
_AUTHORITY = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)").match
_UPGRADE = re.compile(rb"^upgrade:(?!.*websocket)(?=[^\n]*\n|[ \t]*[^w\s])", re.IGNORECASE | re.MULTILINE)
_ANY_UPGRADE = re.compile(rb"^upgrade:", re.IGNORECASE | re.MULTILINE)


class _Flow(FlowControl):
    """Whether the connection is read. `is_held`: there is something that must be parsed first."""

    is_held = False

    def resume_reading(self) -> None:
        if self.read_paused and not self.is_held:
            super().resume_reading()


class GuardedProtocol(HttpToolsProtocol):
    """One connection. `left` is what the running request wants called when the client is gone."""

    head_timeout = 10.0  # seconds
    body_timeout = 60.0  # seconds in which the rest of a body must come whose request was answered already
    send_timeout = 30.0  # seconds in which a client must take some of what waits for it
    max_connections = 0  # 0 is no bound

    refused = Refused()  # what counts those that are no requests

    begin: Callable[[Any, RequestResponseCycle], bool] | None = None  # answers some requests without a task

    left: Callable[[], None] | None = None
    flow: _Flow
    _bytes = 0  # of a head, or since there was some of a body
    _body = 0  # bytes of the body so far
    _in_head = True
    _is_upgrade = False  # the request asks for another protocol than HTTP, and may
    _unparsed, _parsed = b"", 0  # what was read, and how much of that is parsed
    _later: asyncio.Handle | None = None
    _timer: asyncio.TimerHandle | None = None
    _idle_since = 0.0
    _idle_timer: asyncio.TimerHandle | None = None
    _held: tuple[RequestResponseCycle, Any] | None = None  # a request to start when this read is parsed
    _running: RequestResponseCycle | None = None  # the one that is being answered; newer ones wait behind it
    _refusal: bytes | None = None  # goes out when the requests before it are answered
    _lingering = False
    _stopping = False
    lost_unread = False  # it ended while much of an answer waited for its client
    is_local = False  # it came over the admin socket
    stall: Stall | None = None
    _unread: asyncio.TimerHandle | None = None
    _status = 400

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport)
        if self.scheme == "https":
            transport.set_write_buffer_limits(HIGH_WATER_LIMIT)  # as without TLS; its own are eight times as large
        sock = transport.get_extra_info("socket")
        self.is_local = sock is not None and sock.family == socket.AF_UNIX
        if self.max_connections and len(self.connections) > self.max_connections and not self.is_local:
            self._refuse_now(503)
            return
        self._arm()

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.head_timeout, self._late)

    def _late(self) -> None:
        self._timer = None
        if self.cycle is not None and not self.cycle.response_complete:
            self._arm()  # an earlier response is still going out (pipelining): look again later
        else:
            self.refused.note("head_timeout" if self._bytes else "nothing_sent", self._client_address())
            self.transport.close()

    def _client_address(self) -> str | None:
        return "admin-socket" if self.is_local else self.client[0] if self.client else None

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def data_received(self, data: bytes) -> None:
        if self._lingering or self._refusal is not None:
            return  # nothing that follows is read any more
        if self._unparsed:
            self._unparsed += data
        elif len(data) > SLICE:
            self._unparsed = data
            self._read_on()
        elif self._feed(data):
            self._begin_held()

    def _read_on(self) -> None:
        """Parse what was read, until so many requests wait that no more may; the rest when one is answered."""
        self._later = None
        while self._parsed < len(self._unparsed) and len(self.pipeline) < MAX_PIPELINED:
            start, self._parsed = self._parsed, self._parsed + self._next()
            if not self._feed(self._unparsed[start : self._parsed]):
                self._unparsed = b""
                return
            if self._lingering or self._refusal is not None or self.transport.is_closing():
                self._parsed = len(self._unparsed)
        if self._parsed >= len(self._unparsed):
            self._forget_unparsed()
        else:
            self.flow.is_held = True
            self.flow.pause_reading()
        self._begin_held()

    def _next(self) -> int:
        """How many bytes to parse next, so that one request begins at most, or a few."""
        if self._in_head:
            end = self._unparsed.find(b"\r\n\r\n", self._parsed)
            return SLICE if end < 0 else end + 4 - self._parsed
        lengths = (value for name, value in self.headers if name == b"content-length" and value.isdigit())
        length = int(next(lengths, b"0")[-DIGITS:])
        return length - self._body if length > self._body else SLICE

    def _forget_unparsed(self) -> None:
        self._unparsed, self._parsed = b"", 0
        if self.flow.is_held:
            self.flow.is_held = False
            self.flow.resume_reading()

    def _feed(self, data: bytes) -> bool:
        """Parse it. False: the connection is another protocol's from here on."""
        self._bytes += len(data)
        if self._in_head and data.lower().find(b"pgrade") >= 0:  # `in` makes an error first, and drops it
            is_get = data.startswith(b"GET ") if self._bytes == len(data) else self.parser.get_method() == b"GET"
            data = _ignore_upgrade(data, is_get)
        try:
            self.parser.feed_data(data)
            if self._body and not self._in_head:  # there is more to come of it, and somebody may wait for what is here
                self.cycle.message_event.set()
        except httptools.HttpParserError:
            self.send_400_response("")
        except httptools.HttpParserUpgrade:
            if not self._should_upgrade():
                # Split so that it went unseen: the parser took the body for the new protocol's, nobody may run it.
                self.cycle.more_body = True
            elif not self._unanswered():
                self._disarm()
                if self._idle_timer is not None:
                    self._idle_timer.cancel()
                self.handle_websocket_upgrade()
                return False
            self.send_400_response("")
        return True

    def _begin_held(self) -> None:
        """Start the request that was parsed, and see to it that no more of its head is to come than may."""
        if self._held is not None:
            cycle, app = self._held
            self._held = None
            if self.transport.is_closing():  # refused behind its head
                return
            # With the body at hand, some answers need no task of their own.
            self._running = cycle
            if cycle.more_body or self.begin is None or not self.begin(cycle.scope, cycle):
                super()._start_asgi_task(cycle, app)
        if not self._bytes or self.transport.is_closing():  # the read ended with the message
            return
        if self._bytes > MAX_HEAD:  # a head, or what stands between the pieces of a body and behind them
            self._refuse_now(431)
        elif self._in_head and self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._arm()  # half a head, or only blank lines on a kept-alive connection

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._held is None and self.begin is not None:
            self._held = cycle, app
        else:
            self._running = cycle
            super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        self._body = 0
        HttpToolsProtocol.on_message_begin(self)  # not super(), whose call would cost half as much as its work
        self.scope["gateway.connection"] = self  # type: ignore[typeddict-unknown-key]

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: it would reach the application behind its own checks
        if len(self.headers) >= MAX_HEADERS:
            self._refuse(431)
        # from here on as in the base class, whose call would cost as much as its work
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._bytes = 0
        self._body += len(body)
        # from here on as in the base class, but for its word to who waits: `_feed` has one for each read
        cycle = self.cycle
        if self._is_upgrade or cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    # One timer a connection instead of one a request: it looks how long the connection has been idle.

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._lingering:
            return
        if self._unparsed and self._later is None:
            self._later = self.loop.call_soon(self._read_on)
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._running, app = self.pipeline.pop()
            super()._start_asgi_task(self._running, app)
            return
        if self._refusal is not None:
            self.transport.write(self._refusal)
            self.transport.close()
            return
        if self._bytes and self._timer is None:
            self._arm()  # half a head came behind the request that has just been answered
        if self._stopping:
            self.shutdown()
            return
        if self.cycle is not None and self.cycle.more_body:
            self._unread = self.loop.call_later(self.body_timeout, self.transport.close)
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def _unset_keepalive_if_required(self) -> None:
        """Called for every read; the timer stays."""

    def _close_if_idle(self) -> None:
        self._idle_timer = None
        if self.transport.is_closing():
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        left = self.timeout_keep_alive if busy else self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_later(left, self._close_if_idle)

    def shutdown(self) -> None:
        """The server stops: the next answer says that it is the last. A connection without a request is closed soon."""
        self._stopping = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(GOODBYE, self._close_unless_busy)
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False
        # else its head has promised to keep the connection, and a client may use it again at once

    def _close_unless_busy(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def on_headers_complete(self) -> None:
        if len(self.url) > MAX_URL:
            self._refuse(414)
        if self._bytes > SURE and sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD:
            self._refuse(431)
        self._in_head, self._bytes = False, 0
        if self.url[:1] != b"/":
            self._name_target()
        self._is_upgrade = self.parser.should_upgrade() and self._should_upgrade()
        if self._is_upgrade:
            if self._has_body():  # which nobody would read, nor wait for only so long
                self._refuse(400)
            super().on_headers_complete()
            return  # its deadline goes on until it is a websocket
        if self._timer is not None:
            self._disarm()
        HttpToolsProtocol.on_headers_complete(self)
        if self.scope["http_version"] == "1.0" and self.cycle is not None:
            self.cycle.__class__ = _UnmeasuredCycle
        if 0 < len(self.pipeline) < MAX_PIPELINED:
            self.flow.resume_reading()  # or the end of the connection would not be seen either

    def _name_target(self) -> None:
        """Of an address in the place of a path, the host counts, whatever the header says (RFC 9112, 3.2.2): or one
        would be answered that the guard has not seen."""
        found = _AUTHORITY(self.url)
        if found is None:
            return
        self.headers[:] = [(name, found[1] if name == b"host" else value) for name, value in self.headers]
        if self.parser.get_http_version() == "1.0" and all(name != b"host" for name, _ in self.headers):
            self.headers.append((b"host", found[1]))

    def _has_body(self) -> bool:
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t") != b"")
            for name, value in self.headers
        )

    def on_message_complete(self) -> None:
        self._in_head, self._bytes = True, 0
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        # from here on as in the base class
        cycle = self.cycle
        if self._is_upgrade or cycle.response_complete:
            return
        cycle.more_body = False
        cycle.message_event.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        for timer in (self._idle_timer, self.stall, self._unread, self._later):
            if timer is not None:
                timer.cancel()
        self._unparsed = b""
        self.lost_unread = self.flow.write_paused
        super().connection_lost(exc)
        for cycle in self._unanswered():  # the base class tells the newest only
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        self._held = None
        if self.left is not None:
            left, self.left = self.left, None
            left()

    def _unanswered(self) -> list[RequestResponseCycle]:
        """Requests that have no whole answer yet, oldest first."""
        held = [self._held[0]] if self._held is not None else []
        running = [self._running] if self._running is not None and self._running not in held else []
        waiting = [cycle for cycle, _ in reversed(self.pipeline)]
        return [cycle for cycle in (*running, *held, *waiting) if not cycle.response_complete]

    # A client that does not read: the transport says when it is full, and when there is room again.

    def pause_writing(self) -> None:
        super().pause_writing()
        self.watch_rest()

    def watch_rest(self) -> None:
        """What waits for the client must be taken. Called for a connection that was closed, too."""
        if self.stall is None:
            self.stall = Stall(self.transport, self.loop, self.send_timeout)

    @property
    def was_cut_off(self) -> bool:
        """Its client took too little of what waited for it."""
        return self.stall is not None and self.stall.has_cut_off

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.stall is not None:
            self.stall.cancel()
            self.stall = None

    def linger(self) -> None:
        """Close once the client has stopped sending: closed at once, it would learn of a reset, not of the answer."""
        self._ignore_what_comes()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)

    def break_off(self, cycle: RequestResponseCycle) -> None:
        """End in the middle of an answer, behind what was written of it. Nothing more is written."""
        cycle.disconnected = cycle.response_complete = True
        cycle.message_event.set()
        self._ignore_what_comes()
        self.watch_rest()
        self.loop.call_later(PARTING, self._part)

    def _part(self) -> None:
        if self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size():  # a slow client has yet to take it
            self.loop.call_later(PARTING, self._part)
        elif self.transport.can_write_eof():
            self.linger()
        else:
            self.transport.close()

    def _ignore_what_comes(self) -> None:
        self._lingering = True
        self.pipeline.clear()
        self._forget_unparsed()
        self.flow.resume_reading()

    def _refuse(self, status: int) -> None:
        """Called by the parser's callbacks: the error makes uvicorn call send_400_response."""
        self._status = status
        raise ValueError(status)

    def _refuse_now(self, status: int) -> None:
        self._status = status
        self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Refuse what was read last, behind the answers to the requests before it, and close."""
        newest = self.cycle
        broken = newest if newest is not None and newest.more_body else None  # its own body is what went wrong
        if broken is not None:
            if self._held is not None and self._held[0] is broken:
                self._held = None
            for entry in [entry for entry in self.pipeline if entry[0] is broken]:
                self.pipeline.remove(entry)
        before = [cycle for cycle in self._unanswered() if cycle is not broken]
        if before:
            self._refusal = self._refused(self._status)
        elif broken is not None and broken.response_started:
            self.refused.note(_REASONS[self._status], self._client_address())
            self.transport.close()  # a second answer would land inside the one under way
        else:
            self.transport.write(self._refused(self._status))
            self.transport.close()

    def _refused(self, status: int) -> bytes:
        """The answer to what is refused, which is counted."""
        request_id = f"{random.getrandbits(128):032x}"
        self.refused.note(_REASONS[status], self._client_address(), request_id)
        return refusal(status, request_id.encode())


class _UnmeasuredCycle(RequestResponseCycle):
    """A request in HTTP/1.0, which knows no chunks: an answer without a length ends with its connection."""

    _is_measured = True

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._is_measured = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if not self._is_measured:
                self.chunked_encoding = False
        elif not self._is_measured:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


def refusal(status: int, request_id: bytes) -> bytes:
    """The whole answer to a request that never reached the application."""
    code, text = _TEXTS[status]
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = f'{{"error":{{"message":"{text}","type":"{kind}","param":null,"code":"{code}"}}}}'.encode()
    return b"%bcontent-type: application/json\r\n%bx-request-id: %b\r\nrequest-id: %b\r\n%b%b" % (
        STATUS[status],
        b"retry-after: 1\r\n" if status == 503 else b"",
        request_id,
        request_id,
        b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body),
        body,
    )


def _ignore_upgrade(data: bytes, is_get: bool) -> bytes:
    """A head whose wish for another protocol is under another name, where nobody can grant it.

    The parser ends a message at an `Upgrade` and takes the body for the new protocol; Java's client sends one with
    every first request. Only a GET may become a websocket.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    wish = _UPGRADE if is_get else _ANY_UPGRADE
    return wish.sub(b"x-ignored-upgrade:", head + end) + rest


def cycle_of(send: Any) -> RequestResponseCycle | None:
    """The request's cycle, when `send` is uvicorn's own."""
    cycle = getattr(send, "__self__", None)
    return cycle if isinstance(cycle, RequestResponseCycle) else None


def write_whole(cycle: RequestResponseCycle, head: bytes, body: bytes | memoryview) -> None:
    """Send a complete response at once: what two `send` calls do, less their checks of headers we made ourselves.

    `head` is everything from the status line to the last header, without the blank line. Over TLS the body
    has at most a PIECE, without it so many that they may be copied.
    """
    if cycle.disconnected:
        return
    cycle.response_started = cycle.response_complete = True
    end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
    cycle.transport.write(b"".join((head, end, body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        connection = cycle.scope.get("gateway.connection")
        if cycle.more_body and isinstance(connection, GuardedProtocol):
            connection.linger()
        else:
            cycle.transport.close()
    cycle.on_response()
