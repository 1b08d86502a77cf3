"""Run batches: collect the items of all calls, start a batch when one is due and may run, and hand out its results.

    call ──submit──> items ──collector──> batch ──isolation──> outcome of each item ──ticket──> call

A full batch of a plain method is prepared while another runs, so that the thread begins it without waiting for the
event loop. A cancelled call takes its items out of the queue and out of a batch that has not begun. An item that is in
a batch stays until the batch ends, and its result is dropped; if nobody waits for any item of a batch, the batch is
cancelled like a single call.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ...spec import Batching
from .. import log_records
from ..bodies.failures import say, text_of
from ..calls.delivery import is_sync_stream
from ..calls.run import call_id
from ..calls.threads import Outbox, Pool
from .collector import NEVER, Bounds, Collector, Item
from .isolation import Isolation, Items, Unusable, give_all
from .measures import Measures
from .streams import Stream, play, stepped
from .tickets import MISSING, Ticket
from .work import Work

# Seconds. A batch that is not full starts beside another only when that has run for so long. Of short batches the next
# one then has more items, and their threads do not take turns in one interpreter.
BESIDE = 0.002
Tell = Callable[[list[int], list[float], bool], None]  # calls, waits of their items, whether they run one by one


@dataclass(slots=True, eq=False)
class _Batch:
    items: Items
    task: asyncio.Task[None] | None = None
    streams: list[Stream] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)  # of all its items, until they are handed out
    over: asyncio.Event = field(default_factory=asyncio.Event)
    is_cancelled: bool = False
    is_ahead: bool = False  # it was prepared while all threads were busy
    has_begun: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)  # for `items` until the thread begins

    @property
    def is_wanted(self) -> bool:
        """Whether somebody reads one of its streams, or waits for the outcome of one of its items."""
        if any(stream.is_open for stream in self.streams):
            return True
        return any(item.owner.is_wanted and item.owner.results[item.index] is MISSING for item in self.items)


class Batcher:
    """The batches of one model. `works` are its methods by the name of the served method; a reload replaces them."""

    def __init__(self, settings: Batching, concurrency: int) -> None:
        self._settings, self._concurrency = settings, concurrency
        self.works: dict[str, Work] = {}
        self._bounds: dict[str, Bounds] = {}
        self._collector = Collector()
        self._free = concurrency
        self._ahead: _Batch | None = None  # full, and the next one for the thread
        self._prepares = False  # plain methods have returned a list
        self._has_streamed = False  # the steps of a stream take turns on the thread
        self._running: set[_Batch] = set()
        self._will_look = False
        self._started = -NEVER  # when the last batch did
        self._timer: asyncio.TimerHandle | None = None
        self.has_started = False

    def start(self, loop: asyncio.AbstractEventLoop, outbox: Outbox, tell: Tell) -> tuple[Pool, ...]:
        """Begin to take calls, before the first one. Returns the pools of its threads."""
        self.has_started = True
        self._loop, self._outbox, self._tell = loop, outbox, tell
        self._pool = Pool(self._concurrency, "batch", outbox)
        self._measures = Measures(Pool(1, "measure", outbox))
        return (self._pool,)

    def serve(self, work: Work) -> Callable[..., Any]:
        """Return the function for single inputs that is answered by this work."""
        name = work.serves
        self.works[name] = work
        self._bounds.setdefault(name, Bounds(work.size, self._settings.budget or NEVER))
        return partial(self.submit, name) if work.is_batched else lambda *arguments: self.submit(name, arguments)

    async def drained(self) -> None:
        """Wait until no code of a batch runs. A stream may have ended before its batch."""
        while self._running:
            await next(iter(self._running)).over.wait()

    # ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────────

    async def submit(self, name: str, value: Any, request: Any = None) -> Any:
        """Return the result for one request, or its stream. Runs in the task of its call.

        Raises:
            Exception: the error of its first item that failed.
        """
        work = self.works[name]
        parts = work.split(value)
        values = [value] if parts is None else parts
        measured = await self._measures.of(work, values)
        ticket = Ticket(self._loop, call_id.get(), log_records.request_id.get(), request, len(values))
        self._add(work, ticket, values, measured)
        try:
            await ticket.settled
        except asyncio.CancelledError:
            ticket.is_gone = True
            self._drop(ticket)
            await ticket.stopped()
            raise
        if ticket.error is not None:
            raise ticket.error
        return ticket.results[0] if parts is None else work.join(ticket.results)

    def _add(self, work: Work, ticket: Ticket, values: list[Any], measured: list[tuple[float, Any]]) -> None:
        bounds, delay = self._bounds[work.serves], self._settings.delay if work.is_batched else 0.0
        now = self._loop.time()
        for index, (value, (cost, key)) in enumerate(zip(values, measured, strict=True)):
            request = ticket.request_id or None
            self._collector.add(Item(ticket, value, (work.serves, key), bounds, now, delay, cost, index, request))
        if not self._will_look and (self._free > 0 or self._may_prepare):
            self._will_look = True  # once for all calls of this turn of the event loop
            self._loop.call_soon(self._look)

    def _drop(self, ticket: Ticket) -> None:
        """Run no more items of a call that is not wanted any more."""
        if ticket.waits:
            ticket.missing -= self._collector.remove(ticket)
        for batch in tuple(self._running):
            if any(item.owner is ticket for item in batch.items):
                self._take_out(ticket, batch)
                self._cancel_unwanted(batch)

    def _take_out(self, ticket: Ticket, batch: _Batch) -> None:
        """Take the items of a call out of a batch, unless that has begun."""
        with batch.lock:
            if not batch.is_ahead or batch.has_begun:
                return
            kept = [item for item in batch.items if item.owner is not ticket]
            count = len(batch.items) - len(kept)
            batch.items[:] = kept
        ticket.missing -= count
        ticket.running -= count

    def _cancel_unwanted(self, batch: _Batch) -> None:
        if not batch.is_wanted and not batch.is_cancelled and batch.task is not None:
            batch.is_cancelled = True
            batch.task.cancel()

    # ── batches ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _look(self, at: float = 0.0) -> None:
        """Start the batches that are due. `at` is the time for which a timer was set, which may fire a bit early."""
        self._will_look = False
        now = max(self._loop.time(), at)
        while self._free > 0 and (items := self._collector.take(now, only_full=self._beside > now)):
            self._started = now
            self._begin(_Batch(items), now)
        if self._may_prepare and (items := self._collector.take(now, only_full=True)):
            self._ahead = _Batch(items, is_ahead=True)
            self._begin(self._ahead, now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._free > 0 and (due := self._collector.due) < NEVER:
            due = max(due, self._beside)
            self._timer = self._loop.call_at(due, self._look, due)

    def _begin(self, batch: _Batch, now: float) -> None:
        self._free -= 1
        for item in batch.items:
            item.owner.running += 1
        self._running.add(batch)
        batch.task = self._loop.create_task(self._run(batch, now))

    @property
    def _may_prepare(self) -> bool:
        """Whether a full batch may be passed to a thread that is still busy. It would be the next one anyway."""
        return self._prepares and self._ahead is None and not self._free and not self._settings.delay

    @property
    def _beside(self) -> float:
        """Until when only a full batch may start, because others run."""
        return self._started + BESIDE if self._running else -NEVER

    async def _run(self, batch: _Batch, now: float) -> None:
        items = batch.items
        work = self.works[items[0].key[0]]
        log_records.request_id.set(items[0].owner.request_id if len(items) == 1 else "")
        if self._settings.sort and work.is_batched:
            items.sort(key=lambda item: item.cost, reverse=True)
        if not batch.is_ahead:
            self._tell_begin(work, items, now)
        isolation = Isolation(
            attempt=partial(self._attempt, batch, work),
            give=self._give,
            wanted=lambda item: bool(item.owner.is_wanted),
            isolates=self._settings.on_error == "isolate",
            on_isolated=partial(self._isolated, work),
            on_halved=partial(self._halved, work),
        )
        try:
            await isolation.run(items)
        except BaseException as error:  # a cancellation, or one that the model's code raised, such as SystemExit
            if not batch.is_cancelled:
                give_all(self._give, items, error)
        finally:
            self._running.discard(batch)
            self._free += 1
            if self._ahead is batch:
                self._ahead = None
            for item, result in zip(items, batch.results, strict=False):
                if isinstance(result, BaseException):  # the rest of its request must not enter the next batch
                    self._give(item, result)
            self._look()  # before the calls go on, which would delay the next batch
            for item, result in zip(items, batch.results, strict=False):
                self._give(item, result)
            for item in items:
                item.owner.release(item.index)
            batch.over.set()

    def _give(self, item: Item, outcome: Any) -> None:
        ticket = item.owner
        ticket.give(item.index, outcome)
        if not ticket.is_wanted and ticket.waits:
            ticket.missing -= self._collector.remove(ticket)

    async def _attempt(self, batch: _Batch, work: Work, items: Items) -> None:
        """Call the method once, and give each item its result or its stream."""
        if work.kind == "sync":
            found = await self._pool.run(self._call, batch, work, items)
        else:
            found = work.function(*_arguments(work, items))
        if inspect.isawaitable(found):
            found = await found
        if is_sync_stream(found):
            await self._stream(batch, work, items, stepped(self._pool, found))
        elif hasattr(found, "__aiter__"):
            await self._stream(batch, work, items, found)
        else:
            are_plain = all(each.kind == "sync" and each.is_batched for each in self.works.values())
            self._prepares = are_plain and not self._has_streamed
            results = work.results(found, len(items))
            if len(items) == len(batch.items):
                batch.results = results
                return
            for item, result in zip(items, results, strict=True):
                self._give(item, result)

    async def _stream(self, batch: _Batch, work: Work, items: Items, steps: AsyncIterator[Any]) -> None:
        self._prepares, self._has_streamed = False, True
        if work.form is not None:
            raise Unusable(
                f"{work.name} must return a list: its results are parts of one answer, which is not streamed"
            )
        streams = [Stream(partial(self._leave, batch)) for _ in items]

        def begin() -> None:
            batch.streams += streams
            for item, stream in zip(items, streams, strict=True):
                if item.owner.is_wanted:
                    self._give(item, stream)
                else:
                    stream.is_gone = True

        await play(work.name, steps, streams, begin, work.is_batched)

    async def _leave(self, batch: _Batch) -> None:
        """Wait for the end of a batch of which one stream is not read any more."""
        self._cancel_unwanted(batch)
        await batch.over.wait()

    def _isolated(self, work: Work, items: Items, error: Exception) -> None:
        if self._is_told(work):
            self._tell(_calls(items), [], True)
        say(
            f"WARNING gateway: {work.name} raised for {len(items)} items together, each is now run by itself: "
            f"{text_of(error)}"
        )

    def _halved(self, work: Work, items: Items, error: Exception) -> None:
        bounds, half = self._bounds[work.serves], (len(items) + 1) // 2
        if bounds.budget < NEVER:
            bounds.budget = min(bounds.budget, sum(item.cost for item in items) / 2)
            told = f"a batch may cost {bounds.budget:g}"
        else:
            bounds.size = min(bounds.size, half)
            told = f"a batch has at most {bounds.size}"
        say(
            f"WARNING gateway: {work.name} ran out of memory with {len(items)} items; from now on {told}: "
            f"{text_of(error)}"
        )

    def _call(self, batch: _Batch, work: Work, items: Items) -> Any:
        """Call the method, on a thread."""
        with batch.lock:
            is_first, batch.has_begun = not batch.has_begun, True
        if is_first and batch.is_ahead:
            self._outbox.put(self._has_begun, batch, work, self._loop.time())
        return work.function(*_arguments(work, items)) if items else []

    def _has_begun(self, batch: _Batch, work: Work, now: float) -> None:
        """A batch that was prepared runs: prepare the next one."""
        if batch.items:
            self._tell_begin(work, batch.items, now)
        if self._ahead is batch:
            self._ahead, self._started = None, now
        self._look()

    def _tell_begin(self, work: Work, items: Items, now: float) -> None:
        if self._is_told(work):
            self._tell(_calls(items), [max(0.0, now - item.arrived) for item in items], False)

    def _is_told(self, work: Work) -> bool:
        return work.is_batched and self._settings.size is not None


def _arguments(work: Work, items: Items) -> tuple[Any, ...]:
    return work.arguments([item.value for item in items], [item.owner.request for item in items])


def _calls(items: Items) -> list[int]:
    return list(dict.fromkeys(item.owner.call for item in items))
