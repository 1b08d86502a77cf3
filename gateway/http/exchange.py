"""One request on its way: what the outer guard found out about it, and how it is answered.

The head is looked at once. An answer goes out in one write where uvicorn's own `send` is at hand; through ASGI
messages where something stands in between, as in tests.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from ..access import Permits
from ..call import NEVER, ClientLeft, Patience
from ..callers import Caller
from ..early import Waiter
from ..errors import BadRequest, GatewayError
from .protocol import COPIED, PIECE, STATUS, Cycle, GuardedProtocol, write_whole

JSON = b"application/json"
REFUSED = "gateway.refused"  # in the same place: told of an error that is answered there
SEES = "gateway.sees"  # in the scope of Litestar's requests: whether a model exists for the caller
CLIENT_LEFT = 499  # nginx's status for a request whose client went away; logged, never sent
SAFE = (b"x-content-type-options", b"nosniff")  # on every answer
UNBUFFERED = (b"x-accel-buffering", b"no")  # on every stream: proxies pass on what comes, as it comes
NO_BODY = frozenset({204, 304})  # what follows the head of such an answer would be taken for the next one


_HEAD = (
    b"%bcontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\nrequest-id: %b\r\n"
    b"x-content-type-options: nosniff\r\n"
)
_WAITED = b"queue;dur=%.1f, load;dur=%.1f"  # milliseconds
_TIMES = b"queue;dur=%.1f, load;dur=%.1f, model;dur=%.1f, gateway;dur=%.1f"
_TIMES_COUNT = b"queue;dur=%.1f, load;dur=%.1f, model;dur=%.1f, count;dur=%.1f, gateway;dur=%.1f"
_TIMES_PIECE = b"queue;dur=0.0, load;dur=0.0, model;dur=%.1f, gateway;dur=%.1f"
_SECONDS = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?").fullmatch
_tasks: set[asyncio.Task[None]] = set()


def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run it in a task that is not forgotten."""
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


def sees_of(scope: Mapping[str, Any]) -> Callable[[str], bool]:
    """Whether a model exists for the caller of a request that Litestar has."""
    sees: Callable[[str], bool] = scope[SEES]
    return sees


class Watched(Protocol):
    """A call, or what stands for several."""

    @property
    def has_slot(self) -> bool:
        """Whether it has its slot, or had it."""
        ...

    @property
    def has_begun(self) -> bool:
        """Whether the model's code has begun."""
        ...

    @property
    def waited(self) -> float:
        """Seconds in the queue, whether they ended in a slot or not."""
        ...

    def client_left(self) -> None: ...

    def abandon(self, error: BaseException) -> None: ...

    def outlives(self, then: Callable[[], None]) -> bool:
        """Whether its code still runs; then `then` is called when that has stopped."""
        ...


class Exchange:
    """The request as routes see it. `headers` maps lower-case names to the last value of each."""

    __slots__ = (
        "_counted",
        "_kept_waiting",
        "_left",
        "_left_unread",
        "_over",
        "_receive",
        "_runs",
        "_send",
        "_watched",
        "also",
        "asked",
        "caller",
        "cause",
        "connection",
        "count",
        "counting",
        "credential",
        "cycle",
        "ended",
        "error",
        "has_run",
        "headers",
        "is_admin",
        "is_order",
        "load",
        "method",
        "model",
        "path",
        "permits",
        "queued",
        "reading",
        "request_id",
        "route",
        "scope",
        "sending",
        "sent",
        "started",
        "status",
        "strict",
        "tokens",
        "was_lost",
    )

    def __init__(self, scope: Any, receive: Any, send: Any, cycle: Cycle | None = None) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.connection: GuardedProtocol | None = scope.get("gateway.connection")
        self.request_id = ""
        self.also: tuple[tuple[bytes, bytes], ...] = ()  # headers of any answer to this request
        self.caller: Caller | None = None  # None where nobody has to say who it is: then everybody may do anything
        self.credential: bytes | None = None  # what let it in, which models do not see; b"" where a plugin did
        self.permits: Permits | None = None  # the caller's limits, which a call counts for
        self._counted = False
        self.is_order = False  # it needs the scope admin
        self.is_admin = False
        self.model = ""  # whose metrics this counts for
        self.route = ""  # the template of the route, never the path
        self.strict = False  # its model keeps to Truss's answers to the letter
        self.status = 0
        self.error = ""  # the code of what went wrong, also behind a status that said 200
        self.cause = self.asked = ""  # what operators are told of it, and not the client: see `GatewayError`
        self.queued = self.load = 0.0  # seconds that it waited for a slot, and before that for its model to be ready
        self.reading = self.sending = 0.0  # seconds of its client: until the body was here; until answers were taken
        self._kept_waiting = 0.0  # `sending`, when its call ended
        self.has_run = False  # code of the model has begun for it
        self.sent = self.ended = 0.0  # when its call was made, and when that had ended
        self.tokens: tuple[int, int, bool] | None = None  # of its prompt and of what was generated; whether estimated
        self.counting: asyncio.Task[None] | None = None  # finds those out, when the answer is over already
        self.count = 0.0  # seconds that its answer waited for them
        self._left: Callable[[], None] | None = None
        self._watched: Watched | None = None  # what it waits for
        self._runs: Watched | None = None  # what was last begun for it, and may run when nobody waits any more
        self._left_unread = False  # much of its answer was here still
        self.was_lost = False  # a websocket, whose client went without a word
        self._over: GatewayError | None = None  # why it may not go on
        self.started = time.monotonic()
        self.cycle = cycle  # where `send` is the server's own

    def count_in(self) -> None:
        """Count a call for the limits of its caller, and end it with the caller's key, until `count_out`.

        What an operator asks or orders ends with the key too, and counts for no limit.

        Raises:
            RateLimited: it is one too many.
        """
        if self.permits is None:
            return
        if self.is_order:
            self.permits.hold(self)
        else:
            self.also += self.permits.begin(self, self.started)
        self._counted = True

    def count_out(self) -> None:
        """The request is over. It stays one of those at once while code runs for it that does not stop: whoever hangs
        up would else have as much run as he likes."""
        if self._counted and self.permits is not None:
            self._counted = False
            self.permits.release(self)
            if not self.is_order and (self._runs is None or not self._runs.outlives(self.permits.give_back)):
                self.permits.give_back()

    def patience(self) -> float:
        """How many seconds are left of the client's `X-Request-Timeout`; without one it waits as long as it takes.

        Raises:
            BadRequest: it says something else than seconds.
        """
        given = self.headers.get(b"x-request-timeout")
        if given is None:
            return NEVER
        if not _SECONDS(given) or not (seconds := float(given)):
            raise BadRequest("X-Request-Timeout must be a positive number of seconds, such as 2.5")
        return Patience(seconds - (time.monotonic() - self.started), seconds)

    @property
    def may_know(self) -> bool:
        """Whether the caller is told what the code of models raises."""
        return self.is_admin or (self.caller is not None and self.caller.may("admin"))

    def sees(self, model: str) -> bool:
        """Whether a model exists for the caller."""
        return self.caller is None or self.caller.sees(model)

    def header(self, name: bytes, default: str = "") -> str:
        value = self.headers.get(name)
        return default if value is None else value.decode("latin-1")

    async def body(self, reader: Any, limit: int) -> bytes:
        began = time.monotonic()
        try:
            body: bytes = await reader.read(self._receive, self.headers.get(b"content-length"), limit, self.cycle)
        finally:
            self.reading = time.monotonic() - began
        if self._over is not None:  # it took its time to come
            raise self._over
        return body

    def watch(self, call: Watched) -> None:
        """Have the call hear when the client closes its connection, or may not call any more, until `unwatch`."""
        self.sent = time.monotonic()
        self._watched = self._runs = call
        if self.connection is not None:
            self.connection.left = self._left = call.client_left
        if self._over is not None:
            call.abandon(self._over)

    def unwatch(self) -> None:
        """End the watch, but not that of a next request, which may have begun when this one has just been answered."""
        self._watched = None
        if self.connection is not None and self.connection.left is self._left:
            self.connection.left = None

    async def stay(self, work: asyncio.Future[None]) -> None:
        """Await what comes behind the end of its call, for as long as somebody waits for the answer.

        The work goes on when nobody does.

        Raises:
            ClientLeft: its client has gone.
            GatewayError: its caller may not have the answer any more.
        """
        if self.client_is_gone:
            raise ClientLeft
        waiter = self._watched = Waiter()
        if self.connection is not None:
            self.connection.left = self._left = waiter.client_left
        if self._over is not None:
            waiter.abandon(self._over)
        try:
            await asyncio.wait([work, waiter.woken], return_when=asyncio.FIRST_COMPLETED)
            if waiter.woken.done():
                waiter.woken.result()
        finally:
            self.unwatch()

    def measure(self) -> None:
        """Learn how long its call waited for a slot: once it has something to say, or when the request is over."""
        if self._runs is not None and not self.has_run:
            self.queued, self.has_run = self._runs.waited, self._runs.has_begun

    @property
    def had_slot(self) -> bool:
        """A call of it had its slot."""
        return self._runs is not None and self._runs.has_slot

    @property
    def ran(self) -> float:
        """Seconds from the call to its end, or to now, less those in its queue and those in which the client took
        nothing: `preprocess` counts, which runs before there is a slot."""
        if not self.has_run:
            return 0.0
        if self.ended:
            seconds = self.ended - self.sent - self.queued - self._kept_waiting
        else:
            seconds = time.monotonic() - self.sent - self.queued - self.sending
        return seconds if seconds > 0.0 else 0.0  # not max(): a call costs as much as all the rest

    def end_call(self) -> None:
        """The model has said all that it says; what follows is ours, or the client's."""
        self.ended, self._kept_waiting = time.monotonic(), self.sending

    def client_left(self) -> None:
        """Tell what is watched, where it is not the connection that does."""
        if self._watched is not None:
            self._watched.client_left()

    def end(self, error: GatewayError) -> None:
        """Stop what is under way, with this as its error. An answer that is no model's call is broken off."""
        self._over = error
        if self._watched is not None:
            self._watched.abandon(error)
        elif self.status:
            self.break_off()

    @property
    def is_local(self) -> bool:
        """Whether it came over the admin socket."""
        return self.connection is not None and self.connection.is_local

    @property
    def was_cut_off(self) -> bool:
        """Whether we closed its connection, for its client took too little of what waited."""
        return self.connection is not None and self.connection.was_cut_off

    @property
    def client_is_gone(self) -> bool:
        """Whether it left before the end, as far as one sees: what is in buffers of the system counts as taken."""
        if self._left_unread or self.was_lost:
            return True
        return self.cycle is not None and self.cycle.disconnected and not self.cycle.response_complete

    async def taken(self) -> None:
        """Wait until its client has taken most of what waits for it, or is gone."""
        if self.cycle is None or self.connection is None:
            return
        began = time.monotonic()
        try:
            await self.cycle.flow.drain()
        finally:
            self.sending += time.monotonic() - began
            self._left_unread = self.connection.lost_unread and not self.was_cut_off

    @property
    def is_over(self) -> bool:
        return self._over is not None

    async def reply(
        self,
        status: int,
        body: bytes | memoryview,
        content_type: bytes = JSON,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Send a whole answer, if its caller may still have one.

        Raises:
            ClientLeft: nobody is there to have it.
            GatewayError: its caller may not.
        """
        if not self.error:
            if self._over is not None:
                raise self._over
            if self.client_is_gone:
                raise ClientLeft
        if self.reply_now(status, body, content_type, headers):
            return
        pairs = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *headers]
        self.ended = self.ended or time.monotonic()
        self.unwatch()  # the call has said all: from here on it is the answer that ends with a key, or a client
        await self.start(status, pairs)
        await self.write(body, last=True)

    def reply_now(
        self,
        status: int,
        body: bytes | memoryview,
        content_type: bytes = JSON,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> bool:
        """Send a whole answer at once; False when that must go through ASGI instead, or in pieces."""
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
                if name == b"connection":  # write_whole says it
                    cycle.keep_alive = cycle.keep_alive and value != b"close"
                else:
                    head += b"%b: %b\r\n" % (name, value)
        self.status = status
        write_whole(cycle, head, body)
        return True

    def _timing(self, now: float) -> bytes:
        """Where the time went, of a call that has ended; and of one that goes on, how long it waited."""
        if not self.ended:
            return _WAITED % (self.queued * 1e3, self.load * 1e3)
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
        """Send status and headers of an answer whose body follows in `write`s."""
        self.status = status
        if status in NO_BODY:
            headers = [(name, value) for name, value in headers if name != b"content-length"]
        await self.send({"type": "http.response.start", "status": status, "headers": [*headers, *self.common]})

    async def send(self, message: Any) -> None:
        """Send an ASGI message, and count the time for which the client takes nothing."""
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
        """A write of any size is taken, and holds the loop until all of it is encrypted, or copied: so each piece waits
        until there is room, and others have their turn before the next, until there is nobody to take it."""
        body, more = memoryview(message["body"]), message.get("more_body", False)
        size = PIECE if self.scope["scheme"] == "https" else COPIED
        for start in range(0, len(body), size):
            if self.cycle is not None and self.cycle.disconnected:
                return
            is_last = start + size >= len(body)
            await self.send({**message, "body": body[start : start + size], "more_body": more or not is_last})
            if not is_last:
                await asyncio.sleep(0)

    @property
    def common(self) -> list[tuple[bytes, bytes]]:
        """The headers that every answer to this request has."""
        request_id = self.request_id.encode()
        headers = [(b"x-request-id", request_id), (b"request-id", request_id), SAFE, *self.also]
        if self.sent and not self.error:
            headers.append((b"server-timing", self._timing(time.monotonic())))
        return headers

    async def write(self, chunk: bytes | memoryview, last: bool = False) -> None:
        body = b"" if self.status in NO_BODY else chunk
        waits = self.cycle is not None and self.cycle.flow.write_paused
        goes_at_once = not waits and len(body) <= PIECE
        send = self._send if goes_at_once else self.send  # a coroutine less for each chunk
        await send({"type": "http.response.body", "body": body, "more_body": not last})

    def break_off(self) -> None:
        """End the connection in the middle of a body, behind what was written: a stream that failed must not look
        finished."""
        if self.cycle is not None and self.connection is not None:
            self.connection.break_off(self.cycle)
