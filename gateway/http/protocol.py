"""uvicorn's HTTP/1.1 protocol with additional guards: one connection, from its first byte to its end.

It adds to httptools_impl: limits on the head (431, 414), a deadline for the head, refusals in our error format,
trailers that never become headers, notice to the running request when its client disconnects, and unchunked answers for
HTTP/1.0. It depends on uvicorn's internals, so uvicorn's minor version is pinned and tests/http/test_protocol.py checks
each update.

`request_heads.py` checks heads, `read_ahead.py` bounds what is read behind a request, `request_cycle.py` holds a
request and writes whole answers, `collected_body.py` keeps bodies, `connection_endings.py` ends connections,
`refused_connections.py` answers input that is not a request, and `declined_upgrades.py` reads the body of a request
whose `Upgrade` is ignored.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .collected_body import CollectingProtocol
from .declined_upgrades import parser_of_body
from .read_ahead import MAX_PIPELINED, SLICE, Flow, is_far_ahead
from .refused_connections import REASON_OF, Refused, refusal
from .request_cycle import cycle_of_head
from .request_heads import MAX_HEAD, MAX_HEADERS, MAX_URL, has_body, length_in, take_host_of
from .turns import Turn, Turns

SURE = MAX_HEAD - 8 * 1024  # a head of up to so many bytes read is surely within the limit
GOODBYE = 0.5  # seconds that idle connections stay open at shutdown: a request may be on its way


class GuardedProtocol(CollectingProtocol):
    """One connection. `left` is called when the client of the running request disconnects."""

    head_timeout = 10.0  # seconds
    body_timeout = 60.0  # seconds for the rest of a body whose request was already answered
    max_connections = 0  # 0: no limit

    refused, turns = Refused(), Turns()  # of all connections; the first counts those without a valid request

    begin: Callable[[Any, RequestResponseCycle], bool] | None = None  # answers some requests without creating a task

    left: Callable[[], None] | None = None
    flow: Flow
    _bytes = 0  # bytes of the head, or since the last bytes of a body
    _in_head = True
    _is_upgrade = False  # the request asks to upgrade the protocol, and may
    _unparsed, _parsed = b"", 0  # data read, and how much of it is parsed
    _ahead = 0  # bytes of the requests in `pipeline`, since it was empty
    _later: asyncio.Handle | Turn | None = None
    _timer: asyncio.TimerHandle | None = None
    _idle_since = 0.0
    _idle_timer: asyncio.TimerHandle | None = None
    _held: tuple[RequestResponseCycle, Any] | None = None  # a request to start once this read is parsed
    _running: RequestResponseCycle | None = None  # the request being answered; newer ones wait in `pipeline`
    _refusal: bytes | None = None  # sent once the requests before it are answered
    _stopping = False
    lost_unread = False  # the connection ended while much of an answer was unsent
    is_local = False  # it came over the admin socket
    _unread: asyncio.TimerHandle | None = None
    _status = 400

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = Flow(transport)
        if self.scheme == "https":
            transport.set_write_buffer_limits(HIGH_WATER_LIMIT)  # same as without TLS; the default is 8 times larger
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
            self._arm()  # an earlier response is still being sent (pipelining): check again later
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
        if self.is_lingering or self._refusal is not None:
            return  # the connection is closing
        if self._unparsed:
            self._unparsed += data
        elif len(data) > SLICE or self.pipeline:
            self._unparsed = data
            self._read_on()
        elif self._feed(data):
            self._begin_held()

    def _read_on(self) -> None:
        """Parse the data read, until it is far ahead. Parse the rest when a request is answered."""
        self._later, waiting = None, self.pipeline
        while self._parsed < len(self._unparsed) and not (waiting and is_far_ahead(waiting, self._ahead)):
            start, self._parsed = self._parsed, self._parsed + self._next()
            if not self._feed(self._unparsed[start : self._parsed]):
                self._unparsed = b""
                return
            if waiting:
                self._ahead += self._parsed - start
            if self.is_lingering or self._refusal is not None or self.transport.is_closing():
                self._parsed = len(self._unparsed)
            elif self._is_crumbs:
                self._is_crumbs, self._later = False, self.turns.join(self.loop, self._read_on)
                break
        if self._parsed >= len(self._unparsed):
            self._forget_unparsed()
        else:
            self.flow.is_held = True
            self.flow.pause_reading()
        self._begin_held()

    def _next(self) -> int:
        """Return how many bytes to parse next, so that they contain the start of at most one or a few requests."""
        if self._in_head:
            end = self._unparsed.find(b"\r\n\r\n", self._parsed)
            return SLICE if end < 0 else end + 4 - self._parsed
        length = length_in(self.headers)
        return length - self._body if length > self._body else SLICE

    def _forget_unparsed(self) -> None:
        self._unparsed, self._parsed = b"", 0
        if self.flow.is_held:
            self.flow.is_held = False
            self.flow.resume_reading()

    def _feed(self, data: bytes) -> bool:
        """Parse data. Return False if the connection switches to another protocol."""
        while data:
            self._bytes += len(data)
            try:
                self.parser.feed_data(data)
                if self._body and not self._in_head:
                    self._part_was_read(len(data))
            except httptools.HttpParserError:
                self.send_400_response("")
            except httptools.HttpParserUpgrade as upgrade:
                if not self._is_upgrade and self.parser.get_method() != b"CONNECT":
                    self._decline_upgrade()
                    data = data[upgrade.args[0] :]
                    continue
                if not self._is_upgrade:
                    self.cycle.more_body = True  # so that the request is not run
                elif not self._unanswered():
                    self._disarm()
                    if self._idle_timer is not None:
                        self._idle_timer.cancel()
                    self.handle_websocket_upgrade()
                    return False
                self.send_400_response("")
            return True
        return True

    def _decline_upgrade(self) -> None:
        """Continue the request in HTTP. The parser has called `on_message_complete` at the end of its head: if a body
        follows, this is undone, before any other code has run.
        """
        if has_body(self.headers):
            self._in_head = False
            self.cycle.more_body = True
            self.cycle.message_event.clear()
            self.parser = parser_of_body(self)

    def _should_upgrade(self) -> bool:
        return self.parser.get_method() == b"GET" and super()._should_upgrade()

    def _begin_held(self) -> None:
        """Start the request that was parsed, and check the size of the head that is being read."""
        if self._held is not None:
            cycle, app = self._held
            self._held = None
            if self.transport.is_closing():  # refused after its head
                return
            # If the body is complete, some answers need no task.
            self._running = cycle
            if cycle.more_body or self.begin is None or not self.begin(cycle.scope, cycle):
                super()._start_asgi_task(cycle, app)
        if not self._bytes or self.transport.is_closing():  # the data ended together with the request
            return
        if self._bytes > MAX_HEAD:  # a head, or framing between and after the chunks of a body
            self._refuse_now(431)
        elif self._in_head and self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._arm()  # part of a head, or only blank lines on a kept-alive connection

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._held is None and self.begin is not None:
            self._held = cycle, app
        else:
            self._running = cycle
            super()._start_asgi_task(cycle, app)

    def on_message_begin(self) -> None:
        self._body = 0
        HttpToolsProtocol.on_message_begin(self)  # not super(): that call would cost half as much as its work
        self.scope["gateway.connection"] = self  # type: ignore[typeddict-unknown-key]

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: it would bypass the application's checks of headers
        if len(self.headers) >= MAX_HEADERS:
            self._refuse(431)
        # below: same as the base class; calling it would cost as much as its work
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._bytes = 0
        self._body += len(body)
        cycle = self.cycle  # as the base class, but `_feed` wakes the application, once for each read
        if self._is_upgrade or cycle.response_complete:
            return
        if self.collected is not None:
            self.collected.add(body)
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()

    # One timer for each connection instead of one for each request. It checks how long the connection has been idle.

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self.is_lingering:
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
            self._arm()  # part of a head came after the request that has just been answered
        if self._stopping:
            self.shutdown()
            return
        if self.cycle is not None and self.cycle.more_body:
            self._unread = self.loop.call_later(self.body_timeout, self.transport.close)
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._close_if_idle)

    def _unset_keepalive_if_required(self) -> None:
        """Called by uvicorn for every read. The timer stays."""

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
        """Announce that the next answer is the last one. An idle connection is closed soon."""
        self._stopping = True
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(GOODBYE, self._close_unless_busy)
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False
        # Otherwise the head already promised keep-alive, and the client may send another request.

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
            take_host_of(self.url, self.headers, self.parser.get_http_version())
        self._is_upgrade = self.parser.should_upgrade() and self._should_upgrade()
        if self._is_upgrade:
            if has_body(self.headers):  # nothing would read it or bound the time for it
                self._refuse(400)
            if self.parser.get_http_version() != "1.1":  # RFC 6455, 4.1
                self._refuse(400)
            super().on_headers_complete()
            return  # the head deadline stays until the upgrade is done
        if self._timer is not None:
            self._disarm()
        last, self.cycle = self.cycle, cycle_of_head(self)
        if last is None or last.response_complete:
            self._start_asgi_task(self.cycle, self.app)
            return
        if not self.pipeline:
            self._ahead = 0
        self.pipeline.appendleft((self.cycle, self.app))
        if len(self.pipeline) < MAX_PIPELINED:
            self.flow.resume_reading()  # otherwise a disconnect would not be noticed
        else:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        self._in_head, self._bytes, self.collected = True, 0, None  # what follows is another request's
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        # below: same as the base class
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
        for cycle in self._unanswered():  # the base class notifies only the newest
            cycle.disconnected = True
            cycle.message_event.set()
        self.pipeline.clear()
        self._held = None
        if self.left is not None:
            left, self.left = self.left, None
            left()

    def _unanswered(self) -> list[RequestResponseCycle]:
        """Return the requests without a complete answer, oldest first."""
        held = [self._held[0]] if self._held is not None else []
        running = [self._running] if self._running is not None and self._running not in held else []
        waiting = [cycle for cycle, _ in reversed(self.pipeline)]
        return [cycle for cycle in (*running, *held, *waiting) if not cycle.response_complete]

    def stop_reading(self) -> None:
        self.pipeline.clear()
        self._forget_unparsed()
        self.flow.resume_reading()

    def _refuse(self, status: int) -> None:
        """Called in the parser's callbacks. The error makes uvicorn call send_400_response."""
        self._status = status
        raise ValueError(status)

    def _refuse_now(self, status: int) -> None:
        self._status = status
        self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Refuse the data read last, after the answers to the requests before it, and close."""
        newest = self.cycle
        broken = newest if newest is not None and newest.more_body else None  # the error is in its body
        if broken is not None:
            if self._held is not None and self._held[0] is broken:
                self._held = None
            for entry in [entry for entry in self.pipeline if entry[0] is broken]:
                self.pipeline.remove(entry)
        before = [cycle for cycle in self._unanswered() if cycle is not broken]
        if before:
            self._refusal = self._refused(self._status)
        elif broken is not None and broken.response_started:
            self.refused.note(REASON_OF[self._status], self._client_address())
            self.transport.close()  # a second answer would end up inside the first
        else:
            self.transport.write(self._refused(self._status))
            self.transport.close()

    def _refused(self, status: int) -> bytes:
        """Count a refusal and return its answer."""
        request_id = f"{random.getrandbits(128):032x}"
        self.refused.note(REASON_OF[status], self._client_address(), request_id)
        return refusal(status, request_id.encode())
