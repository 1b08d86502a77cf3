"""Run a call: choose its thread or task, and hold its slot.

    sync method, generator      one job on a slot's thread does it all: read, call, iterate, encode
    async, or with hooks        a task on the event loop; sync parts of it run on a thread

A cancel stops a generator at its next item and a coroutine at its next await; a sync method runs to its end. Code that
asks its Request whether the client has disconnected is first given time to stop by itself.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Any

from ...wire import frames
from ...wire.values import WireError, encode
from .. import log_records
from ..bodies import inputs, responses
from ..bodies.failures import BadInput, Unhandled, places_of
from ..bodies.rules import IMPROVED, rules_of
from ..direct_reading import DirectReading
from ..loading.descriptor import Descriptor, Method
from ..loading.loader import Loaded
from ..thread_channel import ThreadChannel
from . import websocket
from .answers import Answers
from .delivery import Delivery, final_resp, is_sync_stream, needs_loop
from .invoke import invoke
from .missing_return import Nothing
from .questions import Questions
from .run import Run, call_id
from .slots import Slots
from .threads import Found, Outbox, Pool

ITS_SHARE = 0.9  # share of `cancel_grace` to stop by itself; the rest is for the cancellation
IN_A_ROW = 16  # runs of one thread before the event loop has a turn: their answers are lost if the process dies
LARGE = 256 * 1024  # bytes; decoding a larger body takes more than 1 ms, so it runs on a thread


class Executor:
    """Run the calls of one loaded model. Questions of the gateway itself go to `questions`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: ThreadChannel,
        outbox: Outbox,
        aux: Pool,
        loaded: Loaded,
        hello: frames.Hello,
        mark: Callable[[int], None],
        direct: DirectReading,
    ) -> None:
        self._direct = direct
        self._loop, self._outbox, self._aux = loop, outbox, aux
        self._descriptor = loaded.descriptor
        self._rules = rules_of(loaded.spec.parity)
        self._grace = hello.cancel_grace * ITS_SHARE
        self._runs: dict[int, Run] = {}
        self._answers = Answers(loop, channel, self._ended, self._runs, spec=loaded.spec, debug=hello.debug)
        self._pool = Pool(hello.slots, "predict", outbox, self._read_next)
        self._counting = Pool(1, "tokens", outbox)  # one thread: tokenizers are not thread-safe
        # Streams from postprocess hold no slot; a slow client must not delay hooks and health checks.
        tails = Pool(hello.slots + hello.max_waiting, "stream", outbox)
        self.questions = Questions(loop, self._answers, outbox, aux, loaded, hello, self._use)
        self.pools: tuple[Pool, ...] = (self._pool, self.questions.probes, self._counting, tails)
        self._nothing = Nothing(loaded.spec.name, places_of(loaded.spec))
        self._start_batches()
        self._delivery = Delivery(loop, outbox, self._answers, self._pool, tails, self._nothing)
        tell = self._tell if self._descriptor.has_hooks else None
        self.slots = Slots(hello.slots, hello.queue_timeout, loop, tell, self._waited_too_long, mark)
        self._sockets: dict[int, websocket.Socket] = {}
        self._drained: asyncio.Future[None] | None = None

    # ── frames of the gateway ────────────────────────────────────────────────────────────────────────────────────

    def start(self, call: int, head: frames.Req, body: bytes | memoryview) -> None:
        socket = self._descriptor.websocket if head.method == frames.SOCKET else None
        if socket is not None:
            method = Method(frames.SOCKET, socket, "async", "request")
        else:
            method = self._descriptor.methods.get(head.method) or self._missing(head.method)
        rules = self._rules if head.mode == frames.BYTES else IMPROVED
        run = self._runs[call] = Run(call, head, body, method, rules)
        if head.deadline is not None:
            run.until = self._loop.time() + head.deadline
        if socket is not None:
            self._sockets[call] = self._socket(run)
            self._spawn(run, self._websocket)
        elif method.name == "predict" and self._descriptor.has_hooks:
            self._spawn(run, self._pipeline)
        elif not method.needs_slot:
            self._counting.submit(self._work, run)
        elif method.kind in ("sync", "generator"):
            run.is_job = True
            if self._direct.alone and len(self._runs) == 1:
                self._direct.begin()
            self.slots.acquire(run, partial(self._pool.submit, self._work, run))
        else:
            self.slots.acquire(run, partial(self._spawn, run, self._single))

    def _use(self, descriptor: Descriptor) -> None:
        """Use the new code of a swapped class for calls that begin from now on."""
        self._descriptor = descriptor
        self._start_batches()
        self._nothing.renew()
        for run in tuple(self._runs.values()):  # threads remove theirs
            method = descriptor.methods.get(run.head.method)
            if run.go is not None and method is not None and method.kind == run.method.kind:
                run.method = method

    def _start_batches(self) -> None:
        batcher = self._descriptor.batcher
        if batcher is not None and not batcher.has_started:
            self.pools += batcher.start(self._loop, self._outbox, self._tell_batch)

    def _tell_batch(self, calls: list[int], waits: list[float], is_again: bool) -> None:
        self._answers.send(frames.BATCH, 0, encode(frames.Batch(calls, waits, is_again)))

    def _missing(self, name: str) -> Method:
        """Return a method that raises "no such method" after the body has been decoded, which is Truss's order."""
        text, own = f"`{name}` must only be called if model has it.", list(self._descriptor.methods)
        is_assertion = name == "predict" and self._descriptor.websocket is not None
        if own and not (is_assertion or self._descriptor.strict):
            text = f"the model has no `{name}`, it has {', '.join(own)}; GET /v1/models lists the routes of each model"

        def refuse(inputs: Any) -> None:
            if is_assertion:
                raise Unhandled(AssertionError(text))
            raise BadInput(text, "model", "route_not_supported", 404)

        return self._descriptor.typed(Method(name, refuse, "sync", "inputs"))

    def grant(self, call: int, items: int, size: int) -> None:
        run = self._runs.get(call)
        if run is not None:
            run.window.grant(items, size)

    def message(self, call: int, payload: bytes) -> None:
        """Pass on a websocket message of the client."""
        socket = self._sockets.get(call)
        if socket is not None:
            socket.put(payload)

    def cancel(self, call: int) -> None:
        run = self._runs.get(call)
        if run is None:
            if not self.questions.cancel(call):  # it has ended, or its request never arrived whole
                self._answers.send(frames.END, call)
            return
        if run.looks:
            run.leave_by = monotonic() + self._grace
        run.window.close()
        run.cancellation.set()
        if run.task is not None and run.has_begun:
            self._stop_by(run)
        elif run.task is not None or self.slots.leave(run):  # none of its code has run
            self._answers.end(run)

    def recall(self, call: int) -> None:
        """Give a call back to the gateway, unless it has begun or ended."""
        run = self._runs.get(call)
        if run is not None and self.slots.leave(run):
            self._answers.give_back(run)
            if run.task is not None:
                run.task.cancel()

    def _stop_by(self, run: Run) -> None:
        """Cancel its task, now or when its time to stop by itself is over."""
        assert run.task is not None
        if run.may_go_on:
            run.timer = self._loop.call_later(run.leave_by - monotonic(), run.task.cancel)
        else:
            run.task.cancel()

    def hurry(self, seconds: float) -> None:
        """Limit the time of code that stops by itself: the process is about to end."""
        limit = monotonic() + seconds
        for run in tuple(self._runs.values()):
            if run.leave_by > limit:
                run.leave_by = limit
                if run.timer is not None and run.task is not None:
                    run.timer.cancel()
                    self._stop_by(run)

    async def drained(self) -> None:
        """Wait until no call and no question is left."""
        self._drained = self._loop.create_future()  # before the look: a thread that ends the last call looks afterwards
        if self._runs:
            await self._drained
        if self._descriptor.batcher is not None:
            await self._descriptor.batcher.drained()
        await self.questions.drained()

    # ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, run: Run) -> None:
        self._answers.send(frames.SLOT if run.holds_slot else frames.WAITS, run.id)

    def _waited_too_long(self, run: Run) -> None:
        text = "the call's time limit was over before it got a slot"
        self._answers.refuse(run, frames.Failure(503, "queue_timeout", text))
        if run.task is not None:
            run.task.cancel()

    def _ended(self, run: Run) -> None:
        """Clean up after the last frame of a run."""
        self._runs.pop(run.id, None)
        self._sockets.pop(run.id, None)
        if run.go is not None or run.timer is not None:
            self.slots.leave(run)
        self.slots.release(run)
        if self._drained is not None and not self._runs and not self._drained.done():
            self._drained.set_result(None)

    # ── on a slot's thread ───────────────────────────────────────────────────────────────────────────────────────

    def _work(self, run: Run, row: int = 1) -> tuple[Run, int] | None:
        """Run a sync method from its input to its last item. Never raises.

        `row` is the number of runs in a row on this thread. Returns the run that got the slot, with its number.
        """
        outbox, answers = self._outbox, self._answers  # do not bind `put`: it differs in a forked process
        log_records.request_id.set(run.head.request_id)
        try:
            if run.cancelled:
                outbox.put(answers.end, run)
                return None
            method = run.method
            run.begin(method)
            value = method.function(*method.arguments(*inputs.read(run, method)))
            run.rules.check(value, run.head.content_type)
            if is_sync_stream(value):
                self._delivery.pump(run, value)
            elif needs_loop(value):
                outbox.put(self._adopt, run, value)
            else:
                if value is None:
                    self._nothing.seen(run)
                return self._answer(run, final_resp(run, value), row)
        except BaseException as error:
            outbox.put(answers.fail, run, error)
        return None

    def _answer(self, run: Run, payload: bytes, row: int) -> tuple[Run, int] | None:
        """Send a whole answer. The thread itself does that if it is the only call, else the event loop."""
        is_small = len(payload) <= frames.MAX_FRAME  # otherwise the slot is released when all of it has been sent
        following = self.slots.pass_on(run) if is_small and row < IN_A_ROW else None
        if following is not None:
            self._outbox.put(self._answers.reply, run, payload)
            return following, row + 1
        if is_small and len(self._runs) == 1 and self._answers.reply_now(run, payload):
            self._direct.alone += 1
            self._runs.pop(run.id, None)
            if not self.slots.leave_free(run):
                self._outbox.put(self.slots.release, run)
            if self._drained is not None:
                self._outbox.put(self._ended, run)
        else:
            self._direct.alone = 0
            self._outbox.put(self._answers.reply, run, payload)
        return None

    def _read_next(self) -> Found | None:
        """Wait for the next call on this thread, if calls come one at a time."""
        if not self._direct.is_on or self._runs or (taken := self._direct.take()) is None:
            return None
        run = self._job_of(*taken)
        if run is None:
            self._direct.refuse()
            return None
        self._direct.accept()
        return self._work, (run,)

    def _job_of(self, call: int, payload: memoryview) -> Run | None:
        """Return the run of a call that this thread can run at once; None if the event loop must start it."""
        try:
            head, body = frames.split(frames.Req, payload)
        except WireError:
            return None
        method = self._descriptor.methods.get(head.method)
        if method is None or method.kind != "sync" or not method.needs_slot:
            return None
        if head.deadline is not None and head.deadline <= 0:
            return None
        run = Run(call, head, bytes(body), method, self._rules if head.mode == frames.BYTES else IMPROVED)
        run.is_job = True
        self._runs[call] = run
        if self.slots.take(run):
            return run
        del self._runs[call]
        return None

    # ── on the loop ──────────────────────────────────────────────────────────────────────────────────────────────

    def _spawn(self, run: Run, step: Callable[[Run], Awaitable[None]]) -> None:
        run.has_begun = False
        run.task = self._loop.create_task(self._serve(run, step))

    async def _serve(self, run: Run, step: Callable[[Run], Awaitable[None]]) -> None:
        if run.ended:  # cancelled before its first turn
            return
        run.has_begun = True
        log_records.request_id.set(run.head.request_id)
        call_id.set(run.id)
        try:
            await step(run)
        except asyncio.CancelledError as error:
            if run.cancelled or run.ended:
                self._answers.end(run)
            else:  # the model's own code cancelled itself
                self._answers.fail(run, error)
        except BaseException as error:
            self._answers.fail(run, error)

    def _adopt(self, run: Run, value: Any) -> None:
        """Continue on the event loop: a sync method returned a coroutine, an async generator or a Response."""
        if run.cancelled:
            if inspect.iscoroutine(value):
                value.close()
            self._answers.end(run)
        else:
            self._spawn(run, partial(self._delivery.deliver, value=value))

    async def _single(self, run: Run) -> None:
        value, request = await self._read(run, run.method)
        await self._delivery.deliver(run, await self._step(run, run.method, value, request, self._pool))

    async def _pipeline(self, run: Run) -> None:
        """Run preprocess, predict and postprocess. Only predict holds the slot."""
        before, after = self._descriptor.preprocess, self._descriptor.postprocess
        value, request = await self._read(run, self._descriptor.pipeline_input or run.method)
        if before is not None:
            value = await self._step(run, before, value, request, self._aux)
            if value is None:
                self._nothing.seen(run)
        await self.slots.wait(run)
        value = await self._step(run, run.method, value, request, self._pool)
        if after is not None:
            if value is None:
                self._nothing.seen(run)
            if is_sync_stream(value) or hasattr(value, "__aiter__") or responses.is_response(value):
                if (close := getattr(value, "aclose", None)) is not None:
                    await close()
                raise ModelReturnedStream(
                    "`predict` returned a generator or a Response, which `postprocess` cannot take"
                )
            self.slots.release(run)
            run.head.gather = False  # Truss collects the items of predict, never those of postprocess
            value = await self._step(run, after, value, request, self._aux)
        await self._delivery.deliver(run, value)

    def _socket(self, run: Run) -> websocket.Socket:
        async def send(payload: bytes) -> None:
            responses.check_size(len(payload))
            await run.window.wait_async()
            run.window.count(len(payload))
            self._answers.send(frames.MESSAGE, run.id, payload)

        def taken(size: int) -> None:
            self._answers.send(frames.CREDIT, run.id, encode(frames.Credit(1, size)))

        return websocket.Socket(send, taken)

    async def _websocket(self, run: Run) -> None:
        """Run a websocket; it holds its slot until the method returns."""
        await self.slots.wait(run)
        self._answers.send(frames.RESP, run.id, frames.join(frames.Resp(200, frames.DATA, False, False, "")))
        assert run.head.scope is not None
        await websocket.run(run.method.function, run.head.scope, self._sockets[run.id], run.head.request_id)
        self._answers.end(run)

    async def _read(self, run: Run, method: Method) -> tuple[Any, Any]:
        """Decode the inputs; large bodies on a thread, so that they do not block the event loop."""
        if len(run.body) <= LARGE:
            return inputs.read(run, method)
        return await self._aux.run(inputs.read, run, method)

    async def _step(self, run: Run, method: Method, value: Any, request: Any, pool: Pool) -> Any:
        """Call a method. Raises CancelledError if the run was cancelled during the step before."""
        if run.cancelled:
            raise asyncio.CancelledError
        run.begin(method)
        return await invoke(method, pool, value, request)


class ModelReturnedStream(TypeError):
    """predict returned a stream, which postprocess cannot take; only known at request time."""
