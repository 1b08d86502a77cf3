"""How a call is run: on which thread or as which task, and when it holds its slot.

    sync method, generator      one job on a slot's thread does it all: read, call, iterate, encode
    async, or with hooks        a task on the loop; what is sync in it goes to a thread

A cancel stops a generator at its next item and a coroutine where it awaits; a sync method runs to its end. Code that
asks its Request whether the client has gone is told first, and stopped like this when it has not stopped by itself.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Any

from .. import wire
from ..channel import Channel
from . import hot_reload, inputs, looking, records, responses, websocket
from .adapter import Method, capabilities
from .answers import Answers
from .delivery import Delivery, encode, is_sync_stream, needs_loop
from .derived import derive
from .failures import BadInput, Unhandled, places_of, say
from .loader import Loaded
from .nothing import Nothing
from .parity import IMPROVED, rules_of
from .run import Run
from .slots import Slots
from .threads import Outbox, Pool
from .told import encoded

ITS_SHARE = 0.9  # of `cancel_grace`: cancelled then, it has the rest to end before its worker may be killed
OF_NO_ROUTE = frozenset(("is_healthy", "hot_reload", "websocket"))  # methods whose calls begin in a way of their own
LARGE = 256 * 1024  # bytes of a body that take a thread rather than a millisecond of the loop


class Executor:
    """Runs the calls of one loaded model."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: Channel,
        outbox: Outbox,
        aux: Pool,
        loaded: Loaded,
        hello: wire.Hello,
    ) -> None:
        self._loop, self._outbox, self._aux = loop, outbox, aux
        self._loaded, self._descriptor = loaded, loaded.descriptor
        self._rules = rules_of(loaded.spec.parity)
        self._grace = hello.cancel_grace * ITS_SHARE
        self._endpoint_methods = frozenset(hello.endpoint_methods)
        self._answers = Answers(loop, channel, self._ended, spec=loaded.spec, debug=hello.debug)
        self._pool = Pool(hello.slots, "predict", outbox)
        self._probes = Pool(1, "health", outbox)
        self._counting = Pool(1, "tokens", outbox)  # one thread: tokenizers are not made for several
        # Streams out of postprocess hold no slot; a client that does not read must not hold up hooks and health checks.
        tails = Pool(hello.slots + hello.max_waiting, "stream", outbox)
        self.pools = (self._pool, self._probes, self._counting, tails)
        self._nothing = Nothing(loaded.spec.name, places_of(loaded.spec))
        self._delivery = Delivery(loop, outbox, self._answers, self._pool, tails, self._nothing)
        tell = self._tell if self._descriptor.has_hooks else None
        self._slots = Slots(hello.slots, hello.queue_timeout, loop, tell, self._waited_too_long)
        self._runs: dict[int, Run] = {}
        self._sockets: dict[int, websocket.Socket] = {}
        self._drained: asyncio.Future[None] | None = None

    # ── frames of the gateway ────────────────────────────────────────────────────────────────────────────────────

    def start(self, call: int, head: wire.Req, body: bytes) -> None:
        method = self._descriptor.methods.get(head.method)
        if method is None or method.name in OF_NO_ROUTE:
            method = self._found(head.method)
        rules = self._rules if head.mode == wire.BYTES else IMPROVED
        run = self._runs[call] = Run(call, head, body, method, rules)
        if head.deadline is not None:
            run.until = self._loop.time() + head.deadline
        if method.name in OF_NO_ROUTE:
            self._start_of_no_route(run)
        elif method.name == "predict" and self._descriptor.has_hooks:
            self._spawn(run, self._pipeline)
        elif not method.needs_slot:
            self._counting.submit(self._work, run)
        elif method.kind in ("sync", "generator"):
            self._slots.acquire(run, partial(self._pool.submit, self._work, run))
        else:
            self._spawn(run, self._single)

    def _found(self, name: str) -> Method:
        """What is not simply a method that some route maps to."""
        descriptor = self._descriptor
        if name == "websocket" and descriptor.websocket is not None:
            return Method("websocket", descriptor.websocket, "async", "request")
        if name == "hot_reload":
            return Method("hot_reload", hot_reload.reload, "sync", "nothing")
        if name == "is_healthy" and descriptor.is_healthy is not None:
            return descriptor.is_healthy
        return descriptor.methods.get(name) or self._missing(name)

    def _start_of_no_route(self, run: Run) -> None:
        if run.method.name == "is_healthy":
            self._spawn(run, self._check_health)
        elif run.method.name == "hot_reload":
            self._spawn(run, self._hot_reload)
        else:
            self._sockets[run.id] = self._socket(run)
            self._spawn(run, self._websocket)

    def _missing(self, name: str) -> Method:
        """A method that says that there is none, to those whose body can be read: Truss's order."""
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
        """A websocket message of the client."""
        socket = self._sockets.get(call)
        if socket is not None:
            socket.put(payload)

    def cancel(self, call: int) -> None:
        run = self._runs.get(call)
        if run is None:  # it has ended, or its body never came through
            self._answers.send(wire.END, call)
            return
        if run.looks:
            run.leave_by = monotonic() + self._grace
        run.window.close()
        run.cancellation.set()
        if run.task is not None and run.has_begun:
            self._stop_by(run)
        elif run.task is not None or run.go is not None:  # none of its code has run
            self._answers.end(run)

    def _stop_by(self, run: Run) -> None:
        """Cancel its task, or let it stop by itself until it has to leave."""
        assert run.task is not None
        if run.may_go_on:
            run.timer = self._loop.call_later(run.leave_by - monotonic(), run.task.cancel)
        else:
            run.task.cancel()

    def hurry(self, seconds: float) -> None:
        """No code that has been told has longer than this: the process is about to end."""
        limit = monotonic() + seconds
        for run in self._runs.values():
            if run.leave_by > limit:
                run.leave_by = limit
                if run.timer is not None and run.task is not None:
                    run.timer.cancel()
                    self._stop_by(run)

    async def drained(self) -> None:
        """Return when no call is left."""
        if self._runs:
            self._drained = self._loop.create_future()
            await self._drained

    # ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _tell(self, run: Run) -> None:
        self._answers.send(wire.SLOT if run.holds_slot else wire.WAITS, run.id)

    def _waited_too_long(self, run: Run) -> None:
        text = "the time of the call was over before it got a slot"
        self._answers.refuse(run, wire.Failure(503, "queue_timeout", text))
        if run.task is not None:
            run.task.cancel()

    def _ended(self, run: Run) -> None:
        """Its last frame is sent."""
        self._runs.pop(run.id, None)
        self._sockets.pop(run.id, None)
        self._slots.forget(run)
        self._slots.release(run)
        if self._drained is not None and not self._runs and not self._drained.done():
            self._drained.set_result(None)

    # ── on a slot's thread ───────────────────────────────────────────────────────────────────────────────────────

    def _work(self, run: Run) -> None:
        """A sync method from its input to its last item. Never raises."""
        outbox, answers = self._outbox, self._answers  # its `put` is not kept: a forked process has another one
        records.request_id.set(run.head.request_id)
        try:
            if run.cancelled:
                outbox.put(answers.end, run)
                return
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
                outbox.put(answers.reply, run, encode(run, value))
        except BaseException as error:
            outbox.put(answers.fail, run, error)

    # ── on the loop ──────────────────────────────────────────────────────────────────────────────────────────────

    def _spawn(self, run: Run, step: Callable[[Run], Awaitable[None]]) -> None:
        run.has_begun = False
        run.task = self._loop.create_task(self._serve(run, step))

    async def _serve(self, run: Run, step: Callable[[Run], Awaitable[None]]) -> None:
        if run.ended:  # cancelled before this, its first turn
            return
        run.has_begun = True
        records.request_id.set(run.head.request_id)
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
        """A sync method returned something that lives on the loop: a coroutine, an async generator, a Response."""
        if run.cancelled:
            if inspect.iscoroutine(value):
                value.close()
            self._answers.end(run)
        else:
            self._spawn(run, partial(self._delivery.deliver, value=value))

    async def _single(self, run: Run) -> None:
        await self._slots.wait(run)
        value, request = await self._read(run, run.method)
        await self._delivery.deliver(run, await self._step(run, run.method, value, request, self._pool))

    async def _pipeline(self, run: Run) -> None:
        """preprocess, predict, postprocess: only predict holds the slot."""
        before, after = self._descriptor.preprocess, self._descriptor.postprocess
        value, request = await self._read(run, self._descriptor.pipeline_input or run.method)
        if before is not None:
            value = await self._step(run, before, value, request, self._aux)
            if value is None:
                self._nothing.seen(run)
        await self._slots.wait(run)
        value = await self._step(run, run.method, value, request, self._pool)
        if after is not None:
            if value is None:
                self._nothing.seen(run)
            if is_sync_stream(value) or hasattr(value, "__aiter__") or responses.is_response(value):
                raise ModelReturnedStream(
                    "`predict` returned a generator or a Response, which `postprocess` cannot be given"
                )
            self._slots.release(run)
            run.head.gather = False  # Truss collects what predict yields, never what postprocess does
            value = await self._step(run, after, value, request, self._aux)
        await self._delivery.deliver(run, value)

    def _socket(self, run: Run) -> websocket.Socket:
        async def send(payload: bytes) -> None:
            responses.check_size(len(payload))
            await run.window.wait_async()
            run.window.count(len(payload))
            self._answers.send(wire.MESSAGE, run.id, payload)

        def taken(size: int) -> None:
            self._answers.send(wire.CREDIT, run.id, wire.encode(wire.Credit(1, size)))

        return websocket.Socket(send, taken)

    async def _websocket(self, run: Run) -> None:
        """A connection holds its slot until the method is done with it."""
        await self._slots.wait(run)
        self._answers.send(wire.RESP, run.id, wire.join(wire.Resp(200, wire.DATA, False, False, "")))
        assert run.head.scope is not None
        await websocket.run(run.method.function, run.head.scope, self._sockets[run.id], run.head.request_id)
        self._answers.end(run)

    async def _check_health(self, run: Run) -> None:
        value = await self._invoke(run.method, None, None, self._probes)
        if value is not None and not value:
            say("Health check failed.")  # Truss's words
        self._answers.reply(run, encode(run, None if value is None else bool(value)))

    async def _hot_reload(self, run: Run) -> None:
        """New code for the same instance; the gateway is told what the model can do from now on."""
        loaded = self._loaded
        found = await self._aux.run(hot_reload.reload, loaded, self._endpoint_methods)
        found = looking.mark(found, loaded.spec)
        loaded.descriptor = self._descriptor = derive(loaded.model, found, loaded.spec)
        self._nothing.renew()
        news = encoded(capabilities(loaded.model, loaded.descriptor))
        self._answers.reply(run, wire.join(wire.Resp(200, wire.DATA, False, True, ""), news))

    async def _read(self, run: Run, method: Method) -> tuple[Any, Any]:
        """What the method is given; a large body is read where it holds up nobody."""
        if len(run.body) <= LARGE:
            return inputs.read(run, method)
        return await self._aux.run(inputs.read, run, method)

    async def _step(self, run: Run, method: Method, value: Any, request: Any, pool: Pool) -> Any:
        """What a method returns; it is not begun when its client has left while the one before it ran."""
        if run.cancelled:
            raise asyncio.CancelledError
        run.begin(method)
        return await self._invoke(method, value, request, pool)

    async def _invoke(self, method: Method, value: Any, request: Any, pool: Pool) -> Any:
        """What a method returns, awaited if it can be; a generator is not run yet."""
        arguments = method.arguments(value, request)
        if method.kind == "async":
            return await method.function(*arguments)
        if method.kind == "sync":
            result = await pool.run(method.function, *arguments)
            return await result if inspect.isawaitable(result) else result
        return method.function(*arguments)


class ModelReturnedStream(TypeError):
    """predict and postprocess do not fit together; seen at request time only."""
