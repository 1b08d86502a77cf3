"""One call, seen from the gateway: filled by a replica, emptied by a route.

    waiting ──open──> running ──resp(final) / end / error / lost──> ended
       └────────── abandon(error): client left, time-out, drain ──────┘

A call waits in its model's queue or runs on a replica; the task that made it sleeps on one future all along, and wakes
for the first answer only. `abandon` wakes it with an error and asks the worker to stop the code; the slot stays taken
until the worker says that the code has stopped, which is `ended`. Code that does not stop is `overdue` in the end, and
its worker is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from .errors import Crashed, GatewayError, HTTPError, InvalidOutput, ModelError, OutOfMemory, QueueTimeout, Unavailable
from .wire import BYTES, DATA, MESSAGES, WINDOW_BYTES, WINDOW_ITEMS, Failure, Req, Resp, WireError
from .wording import counted

if TYPE_CHECKING:
    from .spec import Limits

NEVER = float("inf")
CLIENTS = "x_request_timeout"  # the cause where it is the client whose time is over
HOOKED = "predict"  # the method around which hooks run
OCTETS = "application/octet-stream"  # of a stream that has not said what it is
RETRY_AFTER = 1.0  # seconds, for what a worker could not do at this moment
_BY_CODE: dict[str, type[GatewayError]] = {
    cls.code: cls for cls in (ModelError, InvalidOutput, OutOfMemory, QueueTimeout, Crashed, Unavailable)
}


class Patience(float):
    """The seconds that a request has left of those that its client gave it."""

    __slots__ = ("given",)
    given: float

    def __new__(cls, left: float, given: float) -> Patience:
        self = super().__new__(cls, left)
        self.given = given
        return self


class Owner(Protocol):
    """Whoever holds the call at the moment: its model while it waits, its replica while it runs."""

    def cancel(self, call: Call) -> None: ...

    def grant(self, call: Call) -> None: ...

    def message(self, call: Call, payload: bytes) -> None: ...


class ClientLeft(Exception):
    """The client closed its connection; there is nobody to answer."""


class Call:
    """`req` and `body` go to the worker as they are. Times are seconds of the loop's clock.

    `patience` is how long the client wants to wait for the whole of it, whatever the limits are.
    """

    __slots__ = (
        "_future",
        "_loop",
        "_on_ready",
        "arrived",
        "body",
        "bound",
        "cancelled_at",
        "deadline",
        "ended",
        "error",
        "got_slot",
        "head",
        "id",
        "items",
        "kind",
        "limits",
        "on_credit",
        "overdue",
        "owed",
        "owed_size",
        "owner",
        "patience",
        "queued",
        "reply",
        "req",
        "seat",
        "size",
        "started",
        "taken",
        "then",
        "unread",
        "unread_size",
        "until",
        "waits_since",
    )

    def __init__(
        self, req: Req, body: bytes, limits: Limits, loop: asyncio.AbstractEventLoop, patience: float = NEVER
    ) -> None:
        self.req, self.body, self.limits, self._loop = req, body, limits, loop
        self.id = 0
        self.seat: Any = None  # where it runs; set by the limiter
        self.head: Resp | None = None
        self.kind = DATA  # of its items, as the head tells it
        self.reply: Any = b""  # the whole of an answer that is no stream: its value of DATA, or bytes
        self.items: list[Any] = []
        self.size = 0  # bytes of the items not yet taken
        self.taken = 0  # bytes of those that were
        self.error: BaseException | None = None
        self.ended = False  # the model's code has stopped
        self.got_slot = True  # False until the worker says so, of a model whose hooks run outside the slot
        self.queued = 0.0  # seconds that it waited for a slot, here or inside the worker
        self.waits_since = NEVER  # since when it waits for one now
        self.arrived = now = loop.time()
        self.started = 0.0  # when it was sent to a worker; 0 while it waits
        self.patience = patience
        self.until = until = now + patience  # when its client wants no more of it; it never lengthens a limit
        self.bound = until  # and of an answer that it wants whole, when the limit of its model is over as well
        deadline = now + limits.queue_timeout
        self.deadline = deadline if deadline < until else until  # not min(), whose call costs as much as all of this
        self.cancelled_at = NEVER
        self.overdue = NEVER  # when code that was cancelled and still runs has had its chance
        self.owner: Owner | None = None
        self._on_ready: Callable[[Call], None] | None = None
        self.then: Callable[[], None] | None = None  # for `let_go`
        self.on_credit: Callable[[int], None] | None = None  # websocket: so many of our messages were taken
        self.unread = self.unread_size = 0  # of those, the ones that were not, and their bytes
        self.owed = self.owed_size = 0  # taken by the client, not yet granted to the worker
        self._future: asyncio.Future[None] | None = None

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *error: object) -> None:
        self.cancel()

    # ── the route's side ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def on_ready(self) -> Callable[[Call], None] | None:
        """Called once, with the call, when `first` would return or raise; for a route that has no task."""
        return self._on_ready

    @on_ready.setter
    def on_ready(self, callback: Callable[[Call], None] | None) -> None:
        self._on_ready = callback
        if self.error is not None or self.ended or self.items:  # it happened before anybody asked
            self._loop.call_soon(self._wake)

    @property
    def has_slot(self) -> bool:
        """It runs, or has run; it waits in no queue, and has not ended in one."""
        return self.started > 0 and self.got_slot

    @property
    def has_begun(self) -> bool:
        """Code of the model has begun: with its slot, or in a `preprocess`, which needs none."""
        return self.started > 0 and (self.got_slot or self.req.method == HOOKED)

    @property
    def waited(self) -> float:
        """Seconds in a queue, 0 when it got its slot at once; until now, or until it was given up, when it got none."""
        if self.waits_since == NEVER:
            return self.queued
        return self.queued + min(self.cancelled_at, self._loop.time()) - self.waits_since

    async def first(self) -> Resp:
        """The head of the answer: with the whole of it in `reply`, or with a first item to take.

        Raises:
            GatewayError: the call ended before it had anything to say.
            ClientLeft: nobody is waiting for it any more.
        """
        while True:
            head = self.head
            if self.error is not None and not self.items:
                raise self.error
            if head is not None and (not head.stream or self.items or self.ended):
                self.deadline = self.bound
                return head
            await self._wait()

    async def take(self) -> list[Any] | None:
        """Every item that is there, or None at the end of the stream.

        Raises:
            GatewayError: the stream broke off; what came before was returned already.
        """
        while not self.items:
            if self.error is not None:
                raise self.error
            if self.ended:
                return None
            self.deadline = min(self._loop.time() + self.limits.gap_timeout, self.bound)
            await self._wait()
        self.deadline = self.bound
        items, self.items = self.items, []
        size, self.size = self.size, 0
        self.taken += size
        self.owed += len(items)
        self.owed_size += size
        if not self.ended and self.owner is not None:
            self.owner.grant(self)
        return items

    def abandon(self, error: BaseException) -> None:
        """End the caller's wait with `error`, and the code in the worker as soon as it can be stopped."""
        if self.ended or self.error is not None:
            return
        self.error = error
        self.cancel()
        self.deadline = NEVER
        self._wake()

    def cancel(self) -> None:
        """Ask for the end of the code, if it has not ended; its time limit stays in force."""
        if not self.ended and self.cancelled_at == NEVER:
            self.cancelled_at = now = self._loop.time()
            self.overdue = max(now, self._own_limit(now)) + self.limits.cancel_grace
            if self.owner is not None:
                self.owner.cancel(self)

    def _own_limit(self, now: float) -> float:
        """Until when its code may run without being late; never later than a limit that is ours says."""
        limit = self.deadline
        if self.head is not None and limit >= self.until:  # between two items, where only its client's patience ends
            limit = min(limit, now + self.limits.gap_timeout)
        return limit if limit < NEVER else now  # the code of a websocket has no limit

    def send_message(self, payload: bytes) -> None:
        """One websocket message of the client, to a call that has begun."""
        if not self.ended and self.owner is not None:
            self.unread += 1
            self.unread_size += len(payload)
            self.owner.message(self, payload)

    def client_left(self) -> None:
        self.abandon(ClientLeft())

    def outlives(self, then: Callable[[], None]) -> bool:
        """Whether its code still runs; then `then` is called when that has stopped."""
        if self.ended:
            return False
        self.then = then
        return True

    def let_go(self) -> None:
        """Its slot was given back."""
        if self.then is not None:
            then, self.then = self.then, None
            then()

    async def _wait(self) -> None:
        self._future = self._loop.create_future()
        try:
            await self._future
        finally:
            self._future = None

    def _wake(self) -> None:
        if self._on_ready is not None:
            ready, self._on_ready = self._on_ready, None
            ready(self)
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)

    # ── the replica's side ───────────────────────────────────────────────────────────────────────────────────────

    def opened(self, owner: Owner, call_id: int) -> None:
        """It has left the queue; the bound is now that of the answer."""
        self.owner, self.id = owner, call_id
        self.started = now = self._loop.time()
        if self.waits_since != NEVER:
            self.queued += now - self.waits_since
            self.waits_since = NEVER
        limits, until, req = self.limits, self.until, self.req
        deadline = now + (limits.first_item_timeout if req.stream else limits.request_timeout)
        self.deadline = deadline = deadline if deadline < until else until
        if req.mode == DATA and not req.stream:  # however many items it comes in
            self.bound = deadline

    def on_waits(self) -> None:
        """It waits for its slot inside the worker; so far it ran, or was on its way."""
        if not self.got_slot and self.waits_since == NEVER:
            self.waits_since = self._loop.time()
            self.seat.waiting += 1

    def on_slot(self) -> None:
        """It has its slot inside the worker: what came before does not count for the time limit of its method."""
        if self.got_slot:
            return
        self.got_slot = True
        self.waits_no_more()
        if self.cancelled_at == NEVER and self.owner is not None:
            self.opened(self.owner, self.id)

    def waits_no_more(self) -> None:
        """It does not wait inside the worker any longer, whether it got a slot there or has ended."""
        if self.waits_since != NEVER:
            self.queued, self.waits_since = self.waited, NEVER
            self.seat.waiting -= 1

    def on_resp(self, head: Resp, reply: Any) -> None:
        """The head of its answer, with all of it where that is whole: a value of DATA was decoded, or bytes."""
        if self.head is not None and not _says_what_it_is(self.head, head, self.items):
            raise WireError("a second resp for one call")
        self.head, self.reply = head, reply
        self.kind = head.kind if head.stream or head.final else MESSAGES
        if head.final:
            self.ended = True
        if not head.stream or head.final:
            self._wake()
        elif self.cancelled_at == NEVER:
            if head.raw:  # a Response streams, whatever was asked for
                self.bound = self.until
            self.deadline = min(self.started + self.limits.first_item_timeout, self.bound)

    def on_items(self, items: list[Any], size: int) -> None:
        """Some items and their bytes. The last one may reach beyond the window, as `worker/window.py` has it."""
        if self.head is None:
            raise WireError("items before the resp of their call")
        if self.error is not None or self.cancelled_at != NEVER:  # nobody takes them any more
            return
        if self.size + self.owed_size >= WINDOW_BYTES and items:
            raise WireError(f"items beyond {WINDOW_BYTES} bytes that nobody granted")
        self.items += items
        self.size += size
        if len(self.items) + self.owed > WINDOW_ITEMS:
            raise WireError(f"more than {WINDOW_ITEMS} items that nobody granted")
        self.deadline = self.bound
        self._wake()

    def on_taken(self, messages: int, size: int) -> None:
        """The model has read so many of the client's messages, with so many bytes."""
        if messages > self.unread or size > self.unread_size:
            raise WireError(
                f"credit for {counted(messages, 'message')} of {counted(size, 'byte')}, outstanding are {self.unread}"
            )
        self.unread -= messages
        self.unread_size -= size
        if self.on_credit is not None:
            self.on_credit(messages)

    def on_end(self) -> None:
        if self.head is None and self.error is None:
            gone = self.cancelled_at != NEVER
            self.error = ClientLeft() if gone else InvalidOutput("the model ended the call without an answer")
        self.ended = True
        self._wake()

    def on_error(self, error: BaseException) -> None:
        if (
            isinstance(error, QueueTimeout) and not self.got_slot
        ):  # of the queue inside the worker, which knows no causes
            error.cause = CLIENTS if self.until <= self._loop.time() else error.code
        if self.error is None:
            self.error = error
        self.ended = True
        self._wake()


def _says_what_it_is(first: Resp, second: Resp, items: list[Any]) -> bool:
    """Whether a second head does no more than name the type of a stream that has begun without one."""
    streams = first.stream and second.stream and not (first.raw or second.raw or second.final or items)
    return streams and first.kind == second.kind == BYTES and first.content_type == OCTETS != second.content_type


def _in_json(detail: Any) -> msgspec.Raw | None:
    """What a model's error says in place of its message, written once; None: nothing, or what JSON has no form for."""
    try:
        return None if detail is None else msgspec.Raw(msgspec.json.encode(detail))
    except (TypeError, ValueError, RecursionError):
        return None


def to_error(failure: Failure) -> GatewayError:
    """What a worker reported, as the error its client gets."""
    cls = _BY_CODE.get(failure.code)
    headers = dict(failure.headers)
    error: GatewayError
    if cls is not None and failure.status == cls.status and failure.detail is None:
        error = cls(failure.message, param=failure.param, headers=headers)
        if issubclass(cls, Unavailable):
            error.retry_after = RETRY_AFTER
    else:
        error = HTTPError(
            failure.status,
            failure.message,
            code=failure.code,
            param=failure.param,
            headers=headers,
            detail=_in_json(failure.detail),
        )
    error.truss_code = failure.truss_code
    return error
