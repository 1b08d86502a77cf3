"""One call as the gateway sees it: a replica fills it, a route reads it.

    waiting ──open──> running ──resp(final) / end / error / lost──> ended
       └────────── abandon(error): client left, time-out, drain ──────┘

A call waits in its model's queue or runs on a replica. If calls are short, the first ones in the queue are sent ahead
and wait in the worker. The task that made a call sleeps meanwhile and is woken by the first answer. `pending.py` has
cancellation and the end of a call; its slot stays taken until it has `ended`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import GatewayError, InvalidOutput, QueueTimeout
from ..wire.frames import BYTES, DATA, MESSAGES, WINDOW_BYTES, WINDOW_ITEMS, Req, Resp
from ..wire.values import WireError
from ..wording import counted
from .pending import NEVER, ClientLeft, Pending

if TYPE_CHECKING:
    from ..spec import Limits
    from .batches import Batch

log = logging.getLogger("gateway.models")

CLIENTS = "x_request_timeout"  # the cause if the client's own time limit is over
HOOKED = "predict"  # the method around which hooks run
OCTETS = "application/octet-stream"  # of a stream whose type is not known yet


class Patience(float):
    """The seconds that are left of a client's time limit; `given` is the whole limit."""

    __slots__ = ("given",)
    given: float

    def __new__(cls, left: float, given: float) -> Patience:
        self = super().__new__(cls, left)
        self.given = given
        return self


class Owner(Protocol):
    """The current holder of a call: its model while it waits, its replica while it runs."""

    def cancel(self, call: Call) -> None: ...

    def grant(self, call: Call) -> None: ...

    def message(self, call: Call, payload: bytes) -> None: ...


class Call(Pending):
    """`req` and `body` go to the worker unchanged. Times are seconds of the event loop's clock.

    `patience` is the client's time limit for the whole call, independent of the model's limits.
    """

    __slots__ = (
        "_on_ready",
        "arrived",
        "batch",
        "batched_at",
        "body",
        "bound",
        "got_slot",
        "head",
        "is_ahead",
        "is_recalled",
        "items",
        "kind",
        "on_credit",
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
        Pending.__init__(self, limits, loop)
        self.req, self.body = req, body
        self.seat: Any = None  # where it runs; set by the limiter
        self.head: Resp | None = None
        self.kind = DATA  # of its items, taken from the head
        self.reply: Any = b""  # a whole answer: a value of DATA, or bytes
        self.items: list[Any] = []
        self.size = 0  # bytes of the items not yet taken
        self.taken = 0  # bytes of the items already taken, or of a whole answer
        self.batch: Batch | None = None  # the one that its items are in, or were in last
        self.batched_at = 0.0  # when the first of them began
        self.is_ahead = self.is_recalled = False
        self.got_slot = True  # False until a worker reports it, if hooks run outside the slot
        self.queued = 0.0  # seconds it waited for a slot, here or in the worker
        self.waits_since = NEVER  # start of the present wait for a slot
        self.arrived = now = loop.time()
        self.started = 0.0  # when it was sent to a worker; 0 while it waits
        self.patience = patience
        self.until = until = now + patience  # the client's deadline; it never extends a limit
        self.bound = until  # for a whole answer also bounded by the model's limit
        deadline = now + limits.queue_timeout
        self.deadline = deadline if deadline < until else until  # not min(), which is slow
        self.owner: Owner | None = None
        self._on_ready: Callable[[Call], None] | None = None
        self.then: Callable[[], None] | None = None  # for `let_go`
        self.on_credit: Callable[[int], None] | None = None  # websocket: this many messages were read
        self.unread = self.unread_size = 0  # messages not read yet, and their bytes
        self.owed = self.owed_size = 0  # taken by the client, not yet granted to the worker

    # ── the route's side ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def on_ready(self) -> Callable[[Call], None] | None:
        """Called once, with the call, when `first` would return or raise; for routes without a task."""
        return self._on_ready

    @on_ready.setter
    def on_ready(self, callback: Callable[[Call], None] | None) -> None:
        self._on_ready = callback
        if self.error is not None or self.ended or self.items:  # it is ready already
            self._loop.call_soon(self._wake)

    @property
    def has_slot(self) -> bool:
        """It runs or has run; False if it waits in a queue or ended in one."""
        return self.started > 0 and self.got_slot

    @property
    def is_wanted(self) -> bool:
        """Nobody has given it up."""
        return self.cancelled_at == NEVER

    @property
    def has_begun(self) -> bool:
        """Code of the model has started: with its slot, or in a `preprocess`, which needs none."""
        return self.started > 0 and (self.got_slot or self.req.method == HOOKED)

    @property
    def waited(self) -> float:
        """Seconds in a queue; 0 if it got its slot at once.

        A wait that is not over counts until now or until the cancellation.
        """
        if self.waits_since == NEVER:
            return self.queued
        return self.queued + min(self.cancelled_at, self._loop.time()) - self.waits_since

    async def first(self) -> Resp:
        """Wait for the head of the answer: with the whole answer in `reply`, or with a first item to take.

        Raises:
            GatewayError: the call ended without an answer.
            ClientLeft: the client has disconnected.
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
        """Return every item that has arrived, or None at the end of the stream.

        Raises:
            GatewayError: the stream failed. Earlier items have been returned already.
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

    def streams(self) -> None:
        """Apply the time limits of a stream, because the answer is passed on as it arrives."""
        self.deadline = self.bound = self.until

    def _own_limit(self, now: float) -> float:
        """Return until when its code may run without being late; never later than the limits allow."""
        limit = self.deadline
        if self.head is not None and limit >= self.until:  # between two items only the client's limit applies
            limit = min(limit, now + self.limits.gap_timeout)
        return limit if limit < NEVER else now  # websockets have no limit

    @property
    def may_run_until(self) -> float:
        return self.overdue if self.batch is None else max(self.overdue, self.batch.overdue)

    def _send_cancel(self) -> None:
        if self.owner is not None:
            self.owner.cancel(self)

    def send_message(self, payload: bytes) -> None:
        """Send one websocket message of the client."""
        if not self.ended and self.owner is not None:
            self.unread += 1
            self.unread_size += len(payload)
            self.owner.message(self, payload)

    def client_left(self) -> None:
        self.abandon(ClientLeft())

    def outlives(self, then: Callable[[], None]) -> bool:
        """Return whether its code still runs; if so, `then` is called when it has stopped."""
        if self.ended:
            return False
        self.then = then
        return True

    def let_go(self) -> None:
        """Its slot has been released."""
        if self.then is not None:
            then, self.then = self.then, None
            try:
                then()
            except Exception as error:  # it runs in the channel's reader, where it would break the replica
                log.error("request %s: its end could not be handled", self.req.request_id, exc_info=error)

    def _wake(self) -> None:
        if self._on_ready is not None:
            ready, self._on_ready = self._on_ready, None
            ready(self)
        elif self._future is not None and not self._future.done():  # same as in `Pending`, inlined for speed
            self._future.set_result(None)

    # ── the replica's side ───────────────────────────────────────────────────────────────────────────────────────

    def sent(self, owner: Owner, call_id: int) -> None:
        """It waits in a worker now, and is still to be `opened`. It keeps its body, for another worker may get it."""
        self.owner, self.id = owner, call_id

    def opened(self, owner: Owner, call_id: int) -> None:
        """It has left the queue and runs; the deadline is now that of the answer."""
        self.owner, self.id = owner, call_id
        self.started = now = self._loop.time()
        if self.waits_since != NEVER:
            self.queued += now - self.waits_since
            self.waits_since = NEVER
        limits, until, req = self.limits, self.until, self.req
        deadline = now + (limits.first_item_timeout if req.stream else limits.request_timeout)
        self.deadline = deadline = deadline if deadline < until else until
        if req.mode == DATA and not req.stream:  # even if the answer arrives as items
            self.bound = deadline

    def on_waits(self) -> None:
        """It now waits for a slot inside the worker; before, it ran or was on its way."""
        if not self.got_slot and self.waits_since == NEVER:
            self.waits_since = self._loop.time()
            self.seat.waiting += 1

    def on_slot(self) -> None:
        """It got its slot inside the worker; the time limit of its method starts now."""
        if self.got_slot:
            return
        self.got_slot = True
        self.waits_no_more()
        if self.cancelled_at == NEVER and self.owner is not None:
            self.opened(self.owner, self.id)

    def waits_no_more(self) -> None:
        """It no longer waits inside the worker: it got a slot or has ended."""
        if self.waits_since != NEVER:
            self.queued, self.waits_since = self.waited, NEVER
            self.seat.waiting -= 1

    def on_resp(self, head: Resp, reply: Any, size: int = 0) -> None:
        """Take the head of the answer. A whole answer is in `reply`: bytes, or a value of DATA that had
        `size` bytes.
        """
        if self.head is not None and not _says_what_it_is(self.head, head, self.items):
            raise WireError("a second resp for one call")
        self.head, self.reply, self.taken = head, reply, size
        self.kind = head.kind if head.stream or head.final else MESSAGES
        if head.final:
            self.ended = True
        if not head.stream or head.final:
            self._wake()
        elif self.cancelled_at == NEVER:
            if head.raw:  # a Response streams in any case
                self.bound = self.until
            self.deadline = min(self.started + self.limits.first_item_timeout, self.bound)

    def on_items(self, items: list[Any], size: int) -> None:
        """Take items of `size` bytes together. The last may exceed the window: see `worker/calls/credit_window.py`."""
        if self.head is None:
            raise WireError("items before the resp of their call")
        if not items:
            raise WireError("items without an item")
        if self.error is not None or self.cancelled_at != NEVER:  # they are not needed any more
            return
        self._check_credit()
        self.items += items
        self.size += size
        if len(self.items) + self.owed > WINDOW_ITEMS:
            raise WireError(f"more than {WINDOW_ITEMS} items without credit")
        self.deadline = self.bound
        self._wake()

    def on_unread(self, size: int) -> None:
        """Count items of `size` bytes that arrive after the client has left. They need credit, and are not decoded."""
        self._check_credit()
        self.size += size

    def _check_credit(self) -> None:
        if self.size + self.owed_size >= WINDOW_BYTES:
            raise WireError(f"items beyond {WINDOW_BYTES} bytes without credit")

    def on_taken(self, messages: int, size: int) -> None:
        """The model has read this many messages of the client, with this many bytes."""
        if messages > self.unread or size > self.unread_size:
            raise WireError(
                f"credit for {counted(messages, 'message')} of {counted(size, 'byte')}, outstanding are {self.unread}"
            )
        self.unread -= messages
        self.unread_size -= size
        if self.on_credit is not None:
            try:
                self.on_credit(messages)
            except Exception as error:  # raised in the channel's reader, it would break the replica
                log.error("request %s: taken messages could not be counted", self.req.request_id, exc_info=error)
                self.abandon(GatewayError("the gateway could not go on with this connection"))

    def on_end(self) -> None:
        if self.head is None and self.error is None:
            gone = self.cancelled_at != NEVER
            self.error = ClientLeft() if gone else InvalidOutput("the model ended the call without an answer")
        self.ended = True
        self._wake()

    def on_error(self, error: BaseException) -> None:
        if isinstance(error, QueueTimeout) and (
            self.is_ahead or not self.got_slot
        ):  # the worker's queue does not know the cause
            error.cause = CLIENTS if self.until <= self._loop.time() else error.code
        super().on_error(error)


def _says_what_it_is(first: Resp, second: Resp, items: list[Any]) -> bool:
    """Return whether a second head only adds the content type of a stream that began without one."""
    streams = first.stream and second.stream and not (first.raw or second.raw or second.final or items)
    return streams and first.kind == second.kind == BYTES and first.content_type == OCTETS != second.content_type
