"""The state of one request: what is known of it, what it waits for, and its timing. `answering.py` sends the answer.

The head is parsed once.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..access.callers import Caller, Scope
from ..access.permits import Permits
from ..admission.ready_queue import Waiter
from ..errors import BadRequest, GatewayError
from ..runners.call import Patience
from ..runners.pending import NEVER, ClientLeft
from .answering import Answering
from .request_cycle import Cycle
from .route_table import ELSEWHERE

if TYPE_CHECKING:
    from .protocol import GuardedProtocol

REFUSED = "gateway.refused"  # in the scope of Litestar's requests: a callback for errors that are answered there
SEES = "gateway.sees"  # in the scope of Litestar's requests: whether the caller may see a model
# Seconds for a request whose call was ended to tell its client why. It may wait elsewhere: for a thread, or its client.
LAST_WORDS = 1.0
CLIENT_LEFT = 499  # nginx's status for a client that disconnected; logged, never sent
_SECONDS = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?").fullmatch
_tasks: set[asyncio.Task[None]] = set()


def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run a coroutine in a task, and keep a reference to it."""
    task = asyncio.ensure_future(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


def sees_of(scope: Mapping[str, Any]) -> Callable[[str], bool]:
    """Return the predicate that says which models the caller of a Litestar request may see."""
    sees: Callable[[str], bool] = scope[SEES]
    return sees


class Watched(Protocol):
    """A call, or an object that stands for several calls."""

    @property
    def has_slot(self) -> bool:
        """Whether it has a slot, or had one."""
        ...

    @property
    def has_begun(self) -> bool:
        """Whether the model's code has started."""
        ...

    @property
    def waited(self) -> float:
        """Seconds in the queue, whether or not it got a slot."""
        ...

    @property
    def batched_at(self) -> float:
        """When its first batch began, by `time.monotonic`; 0 without batches."""
        ...

    @property
    def ended(self) -> bool:
        """Whether nobody waits for it any more: `abandon` would change nothing."""
        ...

    def client_left(self) -> None: ...

    def abandon(self, error: BaseException) -> None: ...

    def outlives(self, then: Callable[[], None]) -> bool:
        """Return whether its code still runs. If it does, `then` is called when it has stopped."""
        ...


class Exchange(Answering):
    """A request as routes get it. `headers` maps lower-case names to the last value of each."""

    __slots__ = (
        "_counted",
        "_is_reading",
        "_left",
        "_receive",
        "_runs",
        "_watched",
        "asked",
        "caller",
        "cause",
        "counted_for",
        "counting",
        "credential",
        "headers",
        "is_admin",
        "is_order",
        "named",
        "own_key",
        "path",
        "permits",
        "reading",
        "route",
        "row",
        "strict",
        "subject",
        "task",
        "tokens",
    )

    def __init__(self, scope: Any, receive: Any, send: Any, cycle: Cycle | None = None) -> None:
        self.scope, self._receive, self._send = scope, receive, send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.connection: GuardedProtocol | None = scope.get("gateway.connection")
        self.request_id = ""
        self.also: tuple[tuple[bytes, bytes], ...] = ()  # extra headers of every answer to this request
        self.caller: Caller | None = None  # None if no authentication is configured: every caller may do anything
        self.credential: bytes | None = None  # the accepted key, hidden from models; b"" if a plugin let it in
        self.own_key = b""  # the configured key of the gateway, hidden from models too
        self.permits: Permits | None = None  # the caller's limits, which calls count against
        self._counted = self._is_reading = False
        self.is_order = False  # it needs the scope admin
        self.is_admin = False
        self.named = ""  # the model in the URL, before the lookup
        self.counted_for = ""  # the model whose metrics it counts for; the requested name until the lookup
        self.subject = ""  # the model that it inspects or controls without calling it
        self.row = ELSEWHERE  # the row of the route table
        self.route = ""  # the route's template, never the path
        self.strict = False  # its model has strict Truss parity
        self.status = 0
        self.error = ""  # the error code, also if the status was sent as 200
        self.cause = self.asked = ""  # for operators, not for the client: see `GatewayError`
        self.queued = self.load = 0.0  # seconds of waiting for a slot, and before that for the model to be ready
        self.reading = self.sending = 0.0  # seconds spent on the client: receiving the body; sending answers
        self._kept_waiting = 0.0  # the value of `sending` when the call ended
        self.batched_at = 0.0  # when the first batch with an item of it began
        self.has_run = False  # code of the model has started for it
        self.sent = self.ended = 0.0  # when its call was made, and when it ended
        self.tokens: tuple[int, int, bool] | None = None  # prompt tokens, generated tokens, whether estimated
        self.counting: asyncio.Task[None] | None = None  # determines `tokens` after the end of the answer
        self.count = 0.0  # seconds that the answer waited for `tokens`
        self._left: Callable[[], None] | None = None
        self._watched: Watched | None = None  # the call that it waits for
        self._runs: Watched | None = None  # the last call made for it, which may outlive the request
        self._left_unread = False  # much of its answer was not sent yet
        self.was_lost = False  # a websocket whose client vanished without a close frame
        self._over: GatewayError | None = None  # the error that ended it
        self.task: asyncio.Task[Any] | None = None  # in which it runs; None while it needs none
        self.started = time.monotonic()
        self.cycle = cycle  # set if `send` is uvicorn's own

    @property
    def needs(self) -> Scope:
        """The scope that the request needs."""
        scope = self.row.scope
        return "infer" if scope == "open" else scope  # another spelling or verb of an open path is not open

    @property
    def about(self) -> str:
        """The model that the caller must be allowed to use for the request to continue."""
        return self.counted_for or self.subject

    def ask_about(self, model: str) -> None:
        """Record that the request inspects or controls a model, and is not a call of it."""
        self.counted_for, self.asked, self.subject = "", model, model

    def count_in(self) -> None:
        """Count the call against the caller's limits until `count_out`, and tie it to the caller's key.

        Requests of operators are also ended if their key is revoked, but count against no limit.

        Raises:
            RateLimited: over the limit.
        """
        if self.permits is None:
            return
        if self.is_order:
            self.permits.hold(self)
        else:
            self.also += self.permits.begin(self, self.started)
        self._counted = True

    def count_out(self) -> None:
        """End the request's part in the caller's limits.

        If its code keeps running, it counts until the code stops. A client could otherwise disconnect and start any
        number of calls.
        """
        if self._counted and self.permits is not None:
            self._counted = False
            self.permits.release(self)
            if not self.is_order and (self._runs is None or not self._runs.outlives(self.permits.give_back)):
                self.permits.give_back()

    def patience(self) -> float:
        """Return the seconds left of the client's `X-Request-Timeout`, or NEVER without that header.

        Raises:
            BadRequest: it is not a number of seconds.
        """
        given = self.headers.get(b"x-request-timeout")
        if given is None:
            return NEVER
        if not _SECONDS(given) or not (seconds := float(given)):
            raise BadRequest("X-Request-Timeout must be a positive number of seconds, such as 2.5")
        return Patience(seconds - (time.monotonic() - self.started), seconds)

    @property
    def may_know(self) -> bool:
        """Whether the caller may see exceptions of the model's code."""
        return self.is_admin or (self.caller is not None and self.caller.may("admin"))

    def sees(self, model: str) -> bool:
        """Whether the caller may see a model."""
        return self.caller is None or self.caller.sees(model)

    def header(self, name: bytes, default: str = "") -> str:
        value = self.headers.get(name)
        return default if value is None else value.decode("latin-1")

    async def body(self, reader: Any, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            GatewayError: the caller has lost its permission meanwhile, or the body is refused.
        """
        began = time.monotonic()
        self._is_reading = True
        try:
            length = self.headers.get(b"content-length")
            body: bytes = await reader.read(self._receive_part, length, limit, self.cycle, self.connection)
        finally:
            self._is_reading = False
            self.reading = time.monotonic() - began
        return body

    async def _receive_part(self) -> Any:
        """Receive the next part of the body. `end` wakes it."""
        message = await self._receive()
        if self._over is not None:
            if self.cycle is not None and self.cycle.more_body:
                self.cycle.keep_alive = False  # the rest of the body is not read
            raise self._over
        return message

    def watch(self, call: Watched) -> None:
        """Notify the call if the client disconnects or loses its permission, until `unwatch`."""
        self.sent = time.monotonic()
        self._watched = self._runs = call
        if self.connection is not None:
            self.connection.left = self._left = call.client_left
        if self._over is not None:
            call.abandon(self._over)

    def unwatch(self) -> None:
        """End the watch. The next request on the connection may already have its own watch, which stays."""
        self._watched = None
        if self.connection is not None and self.connection.left is self._left:
            self.connection.left = None

    async def stay(self, work: asyncio.Future[None]) -> None:
        """Wait for work that follows the end of the call, as long as the client waits for the answer.

        The work itself continues if the client leaves.

        Raises:
            ClientLeft: the client has disconnected.
            GatewayError: the caller has lost its permission.
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
        """Record how long the call waited for a slot, at its first output or at the end of the request."""
        if self._runs is not None and not self.has_run:
            self.queued, self.has_run = self._runs.waited, self._runs.has_begun
            self.batched_at = self._runs.batched_at

    @property
    def had_slot(self) -> bool:
        """Whether one of its calls got a slot."""
        return self._runs is not None and self._runs.has_slot

    def end_call(self) -> None:
        """Record that the model has finished. The rest of the time is the gateway's or the client's."""
        self.ended, self._kept_waiting = time.monotonic(), self.sending

    def client_left(self) -> None:
        """Notify the watched call, where the connection does not do it."""
        if self._watched is not None:
            self._watched.client_left()

    def end(self, error: GatewayError) -> None:
        """End the request with this error, whatever it waits for.

        A call that runs ends with it, and so does its answer. An answer is broken off at once if its model has
        finished or there is none. If nothing that it waits for hears of the error, its task is cancelled; see `lost`.
        """
        if self._over is not None:  # its task would be cancelled while it answers
            return
        self._over = error
        watched, cycle = self._watched, self.cycle
        hears = watched is not None and not watched.ended
        if watched is not None:
            watched.abandon(error)
        if self.status:
            if not hears:
                self.break_off()
        elif cycle is not None and cycle.more_body:
            if self._is_reading:
                cycle.message_event.set()
                hears = True
            else:  # a route of a plugin reads it
                self.break_off()
        if self.task is None:
            return
        if hears:
            asyncio.get_running_loop().call_later(LAST_WORDS, self._cut, self.task)
        else:
            self.task.cancel()

    def _cut(self, task: asyncio.Task[Any]) -> None:
        """End a request that has not told its client in time why it ends."""
        if not task.done():
            if self.status:
                self.break_off()
            task.cancel()

    def lost(self) -> GatewayError:
        """Return why the task of the request was cancelled. Call it where CancelledError is handled.

        Raises:
            CancelledError: it was not `end` that cancelled the task: the gateway stops.
        """
        if self._over is None:
            raise asyncio.CancelledError
        if self.task is not None:
            self.task.uncancel()
        return self._over

    @property
    def is_local(self) -> bool:
        """Whether it came over the admin socket."""
        return self.connection is not None and self.connection.is_local

    @property
    def is_over(self) -> bool:
        return self._over is not None
