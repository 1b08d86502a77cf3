"""How a call is run: which thread or task, when it holds its slot, how its result becomes frames.

    sync method, generator      one job on a slot's thread does it all: read, call, iterate, encode
    async, or with hooks        a task on the loop; what is sync in it goes to a thread

A slot is held from before the method is called until its code has stopped: a generator is exhausted or closed, a
cancelled coroutine has really ended. Slots go first come, first served. Everything that touches `Run` besides its
window and its cancellation happens on the loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

from .. import wire
from ..channel import Channel
from . import responses, results, truss
from .adapter import Method
from .failures import BadInput, Unserializable, log, to_failure
from .loader import Loaded
from .request import Cancellation, build
from .threads import Outbox, Pool
from .window import Window

BURST = 0.001  # seconds an async generator may produce without a turn of the loop before its items are sent


class Run:
    """One call in this worker."""

    __slots__ = (
        "batch",
        "batch_since",
        "body",
        "cancellation",
        "ended",
        "head",
        "holds_slot",
        "id",
        "method",
        "task",
        "waiting",
        "window",
    )

    def __init__(self, call: int, head: wire.Req, body: bytes, method: Method) -> None:
        self.id, self.head, self.body, self.method = call, head, body, method
        self.cancellation = Cancellation()
        self.window = Window()
        self.task: asyncio.Task[None] | None = None
        self.waiting: Callable[[], None] | None = None  # called with the slot, while it waits for one
        self.holds_slot = self.ended = False
        self.batch: list[bytes] = []  # items of this turn of the loop
        self.batch_since = 0.0

    @property
    def cancelled(self) -> bool:
        return self.window.closed


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
        self._loop, self._channel, self._outbox, self._aux = loop, channel, outbox, aux
        self._descriptor, self._root = loaded.descriptor, str(loaded.spec.root)
        self._pool = Pool(hello.slots, "predict", outbox)
        self._free, self._queue = hello.slots, deque[Run]()
        self._queue_timeout, self._debug = hello.queue_timeout, hello.debug
        self._runs: dict[int, Run] = {}
        self._dirty: list[Run] = []
        self._drained: asyncio.Future[None] | None = None

    # ── frames of the gateway ────────────────────────────────────────────────────────────────────────────────────

    def start(self, call: int, head: wire.Req, body: bytes) -> None:
        method = self._descriptor.methods.get(head.method)
        if head.method == "is_healthy" and self._descriptor.is_healthy is not None:
            method = self._descriptor.is_healthy
        if method is None:
            text = f"`{head.method}` must only be called if model has it."
            self._send(wire.ERROR, call, wire.encode(wire.Failure(404, "route_not_supported", text, truss_code=700)))
            return
        run = self._runs[call] = Run(call, head, body, method)
        if method.name == "is_healthy":
            run.task = self._loop.create_task(self._serve(run, self._check_health(run)))
        elif method.name == "predict" and self._descriptor.has_hooks:
            run.task = self._loop.create_task(self._serve(run, self._pipeline(run)))
        elif method.kind in ("sync", "generator"):
            self._acquire(run, lambda: self._pool.submit(self._work, run))
        else:
            run.task = self._loop.create_task(self._serve(run, self._single(run)))

    def grant(self, call: int, items: int, size: int) -> None:
        run = self._runs.get(call)
        if run is not None:
            run.window.grant(items, size)

    def cancel(self, call: int) -> None:
        run = self._runs.get(call)
        if run is None:  # it has ended, or its body never came through
            self._send(wire.END, call, wire.encode(wire.End()))
            return
        run.window.close()
        run.cancellation.set()
        if run.task is not None:
            run.task.cancel()
        elif run.waiting is not None:
            self._end(run)

    async def drained(self) -> None:
        """Return when no call is left."""
        if self._runs:
            self._drained = self._loop.create_future()
            await self._drained

    # ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _acquire(self, run: Run, go: Callable[[], None]) -> None:
        if self._free > 0 and not self._queue:
            self._free -= 1
            run.holds_slot = True
            go()
        else:
            run.waiting = go
            self._queue.append(run)

    def _release(self, run: Run) -> None:
        if not run.holds_slot:
            return
        run.holds_slot = False
        self._free += 1
        while self._free > 0 and self._queue:
            following = self._queue.popleft()
            go, following.waiting = following.waiting, None
            if go is None or following.ended:
                continue
            self._free -= 1
            following.holds_slot = True
            go()

    async def _slot(self, run: Run) -> None:
        """Wait for a slot, as a task that may be cancelled meanwhile."""
        granted: asyncio.Future[None] = self._loop.create_future()

        def grant() -> None:
            if not granted.done():
                granted.set_result(None)

        self._acquire(run, grant)
        if not granted.done():
            async with asyncio.timeout(self._queue_timeout):
                await granted
        if self._descriptor.has_hooks:
            self._send(wire.SLOT, run.id)

    # ── on a slot's thread ───────────────────────────────────────────────────────────────────────────────────────

    def _work(self, run: Run) -> None:
        """A sync method from its input to its last item. Never raises."""
        try:
            if run.cancelled:
                self._outbox.put(self._end, run)
                return
            method = run.method
            value = method.function(*method.arguments(*self._inputs(run, method)))
            if _is_sync_stream(value):
                self._pump(run, value)
            elif _needs_loop(value):
                self._outbox.put(self._adopt, run, value)
            else:
                self._outbox.put(self._reply, run, self._encode(run, value))
        except BaseException as error:
            self._outbox.put(self._fail, run, error)

    def _pump(self, run: Run, stream: Any) -> None:
        """Run an iterator to its end, or to the cancellation, and close it on this very thread. Never raises."""
        error: BaseException | None = None
        try:
            if run.head.gather:
                text = b"".join(_gathered(item) for item in stream if not run.cancelled).decode()
                self._outbox.put(self._reply, run, self._encode(run, text))
                return
            self._outbox.put(self._stream_head, run)
            pack, window, put, item_ready = self._packer(run), run.window, self._outbox.put, self._item
            source = _with_return_value(stream) if run.head.mode == wire.DATA else stream
            for item in source:
                packed = pack(item)
                if not window.wait():
                    break
                window.count(len(packed))
                put(item_ready, run, packed)
        except BaseException as raised:
            error = raised
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                try:
                    close()
                except BaseException as raised:
                    error = error or raised
            if error is not None:
                self._outbox.put(self._fail, run, error)
            elif not run.head.gather:
                self._outbox.put(self._end, run)

    # ── on the loop ──────────────────────────────────────────────────────────────────────────────────────────────

    def _adopt(self, run: Run, value: Any) -> None:
        """A sync method returned something that lives on the loop: a coroutine, an async generator, a Response."""
        run.task = self._loop.create_task(self._serve(run, self._deliver(run, value)))
        if run.cancelled:
            run.task.cancel()

    async def _serve(self, run: Run, work: Any) -> None:
        try:
            await work
        except asyncio.CancelledError as error:
            if run.cancelled:
                self._end(run)
            else:  # the model's own code cancelled itself
                self._fail(run, error)
        except BaseException as error:
            self._fail(run, error)

    async def _single(self, run: Run) -> None:
        method = run.method
        await self._slot(run)
        await self._deliver(run, await self._invoke(method, *self._inputs(run, method), self._pool))

    async def _pipeline(self, run: Run) -> None:
        """preprocess, predict, postprocess: only predict holds the slot."""
        before, after = self._descriptor.preprocess, self._descriptor.postprocess
        inputs, request = self._inputs(run, self._descriptor.pipeline_input or run.method)
        if before is not None:
            inputs = await self._invoke(before, inputs, request, self._aux)
        await self._slot(run)
        value = await self._invoke(run.method, inputs, request, self._pool)
        if inspect.isawaitable(value):
            value = await value
        if after is not None:
            if _is_sync_stream(value) or hasattr(value, "__aiter__") or responses.is_response(value):
                raise ModelReturnedStream(
                    "`predict` returned a generator or a Response, which `postprocess` cannot be given"
                )
            self._release(run)
            value = await self._invoke(after, value, request, self._aux)
        await self._deliver(run, value)

    async def _check_health(self, run: Run) -> None:
        value = await self._invoke(run.method, None, None, self._aux)
        self._reply(run, self._encode(run, None if value is None else bool(value)))

    async def _invoke(self, method: Method, inputs: Any, request: Any, pool: Pool) -> Any:
        arguments = method.arguments(inputs, request)
        if method.kind == "async":
            return await method.function(*arguments)
        if method.kind == "sync":
            return await pool.run(method.function, *arguments)
        return method.function(*arguments)  # making a generator runs none of its code

    async def _deliver(self, run: Run, value: Any) -> None:
        if inspect.isawaitable(value):
            value = await value
        if hasattr(value, "__aiter__"):
            await self._iterate(run, value)
        elif _is_sync_stream(value):
            # Its thread ends the run; a stream out of postprocess holds no slot, and must not take a slot's thread.
            run.task = None
            (self._pool if run.holds_slot else self._aux).submit(self._pump, run, value)
        elif responses.is_response(value):
            await self._respond(run, value)
        else:
            self._reply(run, self._encode(run, value))

    async def _iterate(self, run: Run, stream: AsyncIterator[Any]) -> None:
        pack, window, now = self._packer(run), run.window, self._loop.time
        gathered: list[bytes] = []
        try:
            if not run.head.gather:
                self._stream_head(run)
            async for item in stream:
                if run.head.gather:
                    gathered.append(_gathered(item))
                    continue
                packed = pack(item)
                if not window.has_room:
                    await window.wait_async()
                window.count(len(packed))
                self._item(run, packed)
                if now() - run.batch_since > BURST:
                    await asyncio.sleep(0)  # it computes without a pause: let its items, and a cancel, through
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()
        if run.head.gather:
            self._reply(run, self._encode(run, b"".join(gathered).decode()))
        else:
            self._end(run)

    async def _respond(self, run: Run, response: Any) -> None:
        """A Response object of the user: its status, headers and bytes, untouched."""
        plain = responses.as_plain(response)
        if plain is not None:
            status, headers, body = plain
            head = wire.Resp(status, wire.BYTES, False, True, "", headers, raw=True)
            self._reply(run, wire.join(head, body))
            return

        async def send_head(status: int, headers: list[tuple[str, str]]) -> None:
            self._send(wire.RESP, run.id, wire.join(wire.Resp(status, wire.BYTES, True, False, "", headers, raw=True)))

        async def send_chunk(chunk: bytes) -> None:
            await run.window.wait_async()
            packed = wire.encode(chunk)
            run.window.count(len(packed))
            self._item(run, packed)

        await responses.play(response, run.cancellation, send_head, send_chunk)
        self._end(run)

    # ── inputs and results ───────────────────────────────────────────────────────────────────────────────────────

    def _inputs(self, run: Run, method: Method) -> tuple[Any, Any]:
        head = run.head
        request = None
        if head.scope is not None:
            request = build(head.scope, run.body, run.cancellation, head.request_id)
        if not method.wants_inputs:
            return None, request
        if head.mode == wire.BYTES:
            return truss.read(run.body, head.content_type, method), request
        inputs = wire.decode(run.body)
        return (truss.validate(inputs, method.input_type) if method.input_type is not None else inputs), request

    def _encode(self, run: Run, value: Any) -> bytes:
        """The payload of a final resp."""
        if run.head.mode == wire.DATA:
            return wire.join(wire.Resp(200, wire.DATA, False, True, ""), results.pack(value))
        body, content_type = truss.write(value, truss.is_binary(run.head.content_type))
        return wire.join(wire.Resp(200, wire.BYTES, False, True, content_type), body)

    def _packer(self, run: Run) -> Callable[[Any], bytes]:
        if run.head.mode == wire.DATA:
            return results.pack
        return lambda item: wire.encode(truss.chunk(item))

    # ── frames to the gateway ────────────────────────────────────────────────────────────────────────────────────

    def _stream_head(self, run: Run) -> None:
        head = wire.Resp(200, run.head.mode, True, False, truss.BINARY)
        self._send(wire.RESP, run.id, wire.join(head))

    def _item(self, run: Run, packed: bytes) -> None:
        if not run.batch:
            run.batch_since = self._loop.time()
            if not self._dirty:
                self._loop.call_soon(self._flush_all)
            self._dirty.append(run)
        run.batch.append(packed)

    def _flush_all(self) -> None:
        dirty, self._dirty = self._dirty, []
        for run in dirty:
            self._flush(run)

    def _flush(self, run: Run) -> None:
        if run.batch:
            batch, run.batch = run.batch, []
            if not run.cancelled:
                self._send(wire.ITEMS, run.id, wire.join_items(batch))

    def _reply(self, run: Run, payload: bytes) -> None:
        if run.cancelled:
            self._end(run)
        else:
            self._finish(run, wire.RESP, payload)

    def _end(self, run: Run) -> None:
        self._flush(run)
        self._finish(run, wire.END, wire.encode(wire.End()))

    def _fail(self, run: Run, error: BaseException) -> None:
        self._flush(run)
        if isinstance(error, TimeoutError) and run.waiting is not None:
            text = f"the call waited {self._queue_timeout:g} s for a slot"
            self._finish(run, wire.ERROR, wire.encode(wire.Failure(503, "queue_timeout", text)))
            return
        failure = to_failure(error, self._debug)
        if failure.status >= 500 or not isinstance(error, BadInput | Unserializable):
            log(error, run.head.request_id, self._root)
        self._finish(run, wire.ERROR, wire.encode(failure))

    def _finish(self, run: Run, kind: int, payload: bytes) -> None:
        """The last frame of a call: its code has stopped."""
        if run.ended:
            return
        run.ended = True
        run.waiting = None
        self._runs.pop(run.id, None)
        self._send(kind, run.id, payload)
        self._release(run)
        if self._drained is not None and not self._runs and not self._drained.done():
            self._drained.set_result(None)

    def _send(self, kind: int, call: int, payload: bytes = b"") -> None:
        try:
            self._channel.send_split(kind, call, payload)
        except ConnectionError:
            pass  # the gateway is gone, and so is this process in a moment


class ModelReturnedStream(TypeError):
    """predict and postprocess do not fit together; seen at request time only."""


def _is_sync_stream(value: Any) -> bool:
    return isinstance(value, Generator) or (hasattr(value, "__next__") and hasattr(value, "__iter__"))


def _needs_loop(value: Any) -> bool:
    return inspect.isawaitable(value) or hasattr(value, "__aiter__") or responses.is_response(value)


def _with_return_value(stream: Iterator[Any]) -> Iterator[Any]:
    """A generator's items, then what it returned, so that authors can end with `return {"usage": ...}`."""
    if not isinstance(stream, Generator):
        yield from stream
        return
    value = yield from stream
    if value is not None:
        yield value


def _gathered(item: Any) -> bytes:
    return bytes(item) if isinstance(item, (bytes, bytearray)) else str(item).encode()
