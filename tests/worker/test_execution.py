"""Every call ends with one last frame when its code has stopped, and holds its slot exactly as long as it runs."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from gateway.spec import ModelSpec
from gateway.wire import frames as wire
from gateway.wire.frames import (
    ANSWER,
    BYTES,
    DATA,
    END,
    ERROR,
    ITEMS,
    RESP,
    SLOT,
    WAITS,
    WINDOW_ITEMS,
    Failure,
    HTTPScope,
    Req,
    Resp,
)
from gateway.wire.values import decode, encode
from gateway.worker.bodies import responses
from gateway.worker.calls import answers
from gateway.worker.calls.executor import Executor
from gateway.worker.calls.threads import Outbox, Pool
from gateway.worker.loading.descriptor import describe
from gateway.worker.loading.loader import Loaded

pytestmark = pytest.mark.anyio
LAST = (END, ERROR, ANSWER)


class Wire:
    """The gateway's end: every frame decoded, and somebody who waits for one."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, Any]] = []
        self.changed = asyncio.Event()
        self.is_open = asyncio.Event()  # for the parts of large payloads
        self.is_open.set()
        self.in_parts = 0  # large payloads on their way

    def send_split(self, kind: int, call: int, payload: bytes) -> None:
        value: Any = None
        if kind == RESP:
            head, body = wire.split(Resp, payload)
            value = (head, decode(body) if head.kind == DATA and head.final else bytes(body))
        elif kind == ITEMS:
            value = wire.split_items(payload)[0]
        elif kind == ERROR:
            value = wire.decode_head(Failure, payload)
        elif kind == ANSWER:
            value = decode(payload)
        self.frames.append((kind, call, value))
        self.changed.set()

    send_soon = send_split

    def send_now(self, kind: int, call: int, payload: bytes) -> bool:
        return False

    async def send_large(self, kind: int, call: int, payload: bytes, is_wanted: Callable[[], bool]) -> bool:
        self.in_parts += 1
        self.changed.set()
        await self.is_open.wait()
        self.in_parts -= 1
        if not is_wanted():
            return False
        self.send_split(kind, call, payload)
        return True

    def of(self, call: int) -> list[tuple[int, Any]]:
        return [(kind, value) for kind, of, value in self.frames if of == call]

    def items(self, call: int) -> list[Any]:
        return [item for kind, value in self.of(call) if kind == ITEMS for item in value]

    def is_over(self, call: int) -> bool:
        return any(kind in LAST or (kind == RESP and value[0].final) for kind, value in self.of(call))

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    async def over(self, call: int) -> list[tuple[int, Any]]:
        await self.until(lambda: self.is_over(call))
        return self.of(call)

    async def reply(self, call: int) -> Any:
        """The body of a whole answer."""
        kind, value = (await self.over(call))[-1]
        assert kind == RESP, value
        return value[1]

    async def answer(self, question: int) -> Any:
        """What is said to a question."""
        kind, value = (await self.over(question))[-1]
        assert kind == ANSWER, value
        return value

    async def error(self, call: int) -> Failure:
        kind, value = (await self.over(call))[-1]
        assert kind == ERROR
        return value  # type: ignore[no-any-return]


class NotDirect:
    """The event loop reads all calls."""

    is_on = False
    alone = 0


class Worker:
    """An executor for one class, in this process."""

    def __init__(self, cls: Any, slots: int = 1, queue_timeout: float = 30.0, methods: tuple[str, ...] = ()) -> None:
        loop = asyncio.get_running_loop()
        self.model = cls()
        descriptor = describe(self.model, frozenset({"chat_completions", "embeddings", *methods}))
        loaded = Loaded(ModelSpec(name="m", target="", root=Path("/nowhere")), self.model, descriptor)
        hello = wire.Hello(1, {}, slots, 8, {}, None, queue_timeout=queue_timeout)
        self.wire, outbox = Wire(), Outbox(loop)
        aux = Pool(4, "hook", outbox)
        self.began: list[int] = []
        channel: Any = self.wire
        direct: Any = NotDirect()
        self.executor = Executor(loop, channel, outbox, aux, loaded, hello, self.began.append, direct)
        self._calls = 0

    def call(self, value: Any = None, method: str = "predict", **head: Any) -> int:
        """Start a call; its id."""
        self._calls += 1
        mode = DATA if method != "predict" else BYTES
        defaults = {"method": method, "mode": mode, "stream": False, "content_type": "", "request_id": "r"}
        req = Req(**{**defaults, **head})
        body = value if isinstance(value, bytes) else encode(value) if req.mode == DATA else json.dumps(value).encode()
        self.executor.start(self._calls, req, body)
        return self._calls

    def ask(self, what: wire.What = "is_healthy") -> int:
        """Put a question; its id."""
        self._calls += 1
        self.executor.questions.ask(self._calls, wire.Ask(what))
        return self._calls

    def chat(self, value: Any = None, **head: Any) -> int:
        return self.call(value, "chat_completions", stream=True, **head)

    @property
    def free_slots(self) -> int:
        return self.executor.slots._free

    async def idle(self) -> None:
        await self.executor.drained()


class Gate:
    """Where code of a model waits until the test lets it go on; the test waits until it got there."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._here = asyncio.Event()
        self._go = threading.Event()
        self._go_async = asyncio.Event()

    def wait(self) -> None:
        self._loop.call_soon_threadsafe(self._here.set)
        self._go.wait()

    async def wait_async(self) -> None:
        self._here.set()
        await self._go_async.wait()

    async def reached(self) -> None:
        await self._here.wait()
        self._here.clear()

    def open(self) -> None:
        self._go.set()
        self._go_async.set()


# ── whole answers ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_sync_method_answers_in_one_frame() -> None:
    class Model:
        def predict(self, x: Any) -> Any:
            return {"got": x, "thread": threading.current_thread().name}

    worker = Worker(Model)
    assert json.loads(await worker.wire.reply(worker.call([1]))) == {"got": [1], "thread": "predict-1"}
    assert len(worker.wire.frames) == 1
    assert worker.free_slots == 1


async def test_an_async_method_answers_from_the_loop() -> None:
    class Model:
        async def predict(self, x: Any) -> Any:
            await asyncio.sleep(0)
            return threading.current_thread() is threading.main_thread()

    worker = Worker(Model)
    assert await worker.wire.reply(worker.call(1)) == b"true"
    assert worker.free_slots == 1


async def test_a_dialect_method_takes_and_gives_values() -> None:
    class Model:
        def chat_completions(self, request_: Any) -> Any:
            return {"echo": request_}

    worker = Worker(Model)
    assert await worker.wire.reply(worker.chat({"a": b"bytes"})) == {"echo": {"a": b"bytes"}}


async def test_what_a_sync_method_returns_may_live_on_the_loop() -> None:
    class Model:
        def predict(self, kind: str) -> Any:
            async def coroutine() -> str:
                await asyncio.sleep(0)
                return "awaited"

            async def generator() -> Any:
                yield "a"
                yield "b"

            return {"coroutine": coroutine, "generator": generator, "response": lambda: Response("x", 418)}[kind]()

    worker = Worker(Model)
    assert await worker.wire.reply(worker.call("coroutine")) == b'"awaited"'
    generator = worker.call("generator")
    await worker.wire.over(generator)
    assert worker.wire.items(generator) == [b"a", b"b"]
    ((_, (head, body)),) = await worker.wire.over(worker.call("response"))
    assert (head.status, head.raw, body) == (418, True, b"x")
    assert worker.free_slots == 1


async def test_a_method_without_inputs_does_not_read_the_body() -> None:
    class Model:
        def predict(self) -> str:
            return "fine"

    worker = Worker(Model)
    assert await worker.wire.reply(worker.call(b"{no json")) == b'"fine"'


async def test_a_missing_method_is_404_with_trusss_code() -> None:
    class Model:
        def predict(self, x: Any) -> Any: ...

    worker = Worker(Model)
    failure = await worker.wire.error(worker.chat())
    assert (failure.status, failure.truss_code) == (404, 700)
    said = "the model has no `chat_completions`, it has predict; GET /v1/models lists the routes of each model"
    assert failure.message == said


async def test_a_large_answer_leaves_in_parts_and_one_that_nobody_wants_stops() -> None:
    class Model:
        def predict(self, x: Any) -> bytes:
            return b"x" * 1_000_000

    worker = Worker(Model)
    assert len(await worker.wire.reply(worker.call())) == 1_000_000
    worker.wire.is_open.clear()
    call = worker.call()
    await worker.wire.until(lambda: bool(worker.executor._answers._sending))
    worker.executor.cancel(call)
    worker.wire.is_open.set()
    assert [kind for kind, _ in await worker.wire.over(call)] == [END]
    await worker.idle()
    assert worker.free_slots == 1


async def test_no_more_is_on_its_way_in_parts_than_the_gateway_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        async def predict(self, x: Any) -> bytes:
            return b"x" * 1_000_000

    monkeypatch.setattr(answers, "LARGE", 500_000)
    worker = Worker(Model, slots=4)
    worker.wire.is_open.clear()
    calls = [worker.call() for _ in range(4)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(worker.executor._answers._sending) == 4
    assert worker.wire.in_parts == 2
    worker.wire.is_open.set()
    for call in calls:
        assert len(await worker.wire.reply(call)) == 1_000_000


async def test_an_answer_that_is_too_large_is_an_error_of_its_call(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def predict(self, x: Any) -> Any:
            return iter([b"x" * 2000]) if x else b"x" * 2000

    monkeypatch.setattr(responses, "MAX_BODY", 1000)
    monkeypatch.setattr(wire, "MAX_ITEM", 1000)
    worker = Worker(Model)
    for streamed in (False, True):
        failure = await worker.wire.error(worker.call(streamed))
        assert (failure.status, failure.code) == (500, "invalid_model_output")
        assert "at most; yield them in parts" in failure.message


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def sync_counter(self: Any, n: int) -> Iterator[str]:
    yield from map(str, range(n))


async def async_counter(self: Any, n: int) -> Any:
    for number in range(n):
        yield str(number)


@pytest.mark.parametrize("function", [sync_counter, async_counter])
async def test_a_generator_is_a_head_its_items_and_an_end(function: Any) -> None:
    worker = Worker(type("Model", (), {"predict": function}))
    call = worker.call(5)
    frames = await worker.wire.over(call)
    assert frames[0][0] == RESP
    assert frames[0][1][0].stream
    assert not frames[0][1][0].final
    assert frames[-1][0] == END
    assert worker.wire.items(call) == [b"0", b"1", b"2", b"3", b"4"]
    assert worker.free_slots == 1


@pytest.mark.parametrize("function", [sync_counter, async_counter])
async def test_a_generator_stops_after_one_window_until_its_items_are_taken(function: Any) -> None:
    worker = Worker(type("Model", (), {"predict": function}))
    call = worker.call(1000)
    await worker.wire.until(lambda: len(worker.wire.items(call)) >= WINDOW_ITEMS)
    await asyncio.sleep(0.01)
    assert len(worker.wire.items(call)) == WINDOW_ITEMS
    worker.executor.grant(call, 10, 100)
    await worker.wire.until(lambda: len(worker.wire.items(call)) >= WINDOW_ITEMS + 10)
    await asyncio.sleep(0.01)
    assert len(worker.wire.items(call)) == WINDOW_ITEMS + 10
    for taken in range(WINDOW_ITEMS + 10, 1000):
        worker.executor.grant(call, 1, 2)
        await worker.wire.until(lambda taken=taken: len(worker.wire.items(call)) > taken)  # type: ignore[misc]
    await worker.wire.over(call)
    assert len(worker.wire.items(call)) == 1000


async def test_what_a_generator_returns_is_its_last_value_in_dialects() -> None:
    class Model:
        def chat_completions(self, x: Any) -> Any:
            yield "text"
            return {"usage": 3}

        def predict(self, x: Any) -> Any:
            yield "text"
            return "dropped"

    worker = Worker(Model)
    chat, predict = worker.chat(), worker.call()
    await worker.wire.over(chat)
    await worker.wire.over(predict)
    assert worker.wire.items(chat) == ["text", {"usage": 3}]
    assert worker.wire.items(predict) == [b"text"]


async def test_large_items_leave_one_by_one() -> None:
    class Model:
        async def predict(self, x: Any) -> Any:
            for _ in range(2):
                yield b"x" * 200_000

    worker = Worker(Model)
    frames = [value for kind, value in await worker.wire.over(worker.call()) if kind == ITEMS]
    assert [list(map(len, items)) for items in frames if items != [b""]] == [[200_000], [200_000]]


async def test_any_iterator_streams() -> None:
    class Model:
        def predict(self, x: Any) -> Any:
            return map(str, [1, 2])

    worker = Worker(Model)
    call = worker.call()
    await worker.wire.over(call)
    assert worker.wire.items(call) == [b"1", b"2"]


@pytest.mark.parametrize("function", [sync_counter, async_counter])
async def test_a_gathered_generator_is_one_json_string(function: Any) -> None:
    worker = Worker(type("Model", (), {"predict": function}))
    assert await worker.wire.reply(worker.call(3, gather=True)) == b'"012"'


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_item_that_cannot_be_encoded_ends_the_stream_and_closes_the_generator(is_async: bool) -> None:
    closed = []

    class Sync:
        def chat_completions(self, x: Any) -> Any:
            try:
                yield "good"
                yield object()
                yield "never"
            finally:
                closed.append(True)

    class Async:
        async def chat_completions(self, x: Any) -> Any:
            try:
                yield "good"
                yield object()
                yield "never"
            finally:
                closed.append(True)

    worker = Worker(Async if is_async else Sync)
    call = worker.chat()
    failure = await worker.wire.error(call)
    assert failure.code == "invalid_model_output"
    assert worker.wire.items(call) == ["good"]
    assert closed == [True]
    assert worker.free_slots == 1


@pytest.mark.parametrize(
    "error", [ValueError("x"), StopIteration(), KeyboardInterrupt(), SystemExit(3), GeneratorExit()]
)
@pytest.mark.parametrize("kind", ["sync", "async", "generator", "async_generator"])
async def test_whatever_a_method_raises_is_an_error_of_its_call_alone(error: BaseException, kind: str) -> None:
    def sync(self: Any, x: Any) -> Any:
        raise error

    async def coroutine(self: Any, x: Any) -> Any:
        raise error

    def generator(self: Any, x: Any) -> Any:
        yield "one"
        raise error

    async def async_generator(self: Any, x: Any) -> Any:
        yield "one"
        raise error

    function = {"sync": sync, "async": coroutine, "generator": generator, "async_generator": async_generator}[kind]
    worker = Worker(type("Model", (), {"predict": function, "embeddings": lambda self, x: "alive"}))
    failure = await worker.wire.error(worker.call())
    assert (failure.status, failure.code) == (500, "model_error")
    assert worker.free_slots == 1
    assert await worker.wire.reply(worker.call(None, "embeddings")) == "alive"


async def test_an_error_after_items_comes_after_them() -> None:
    class Model:
        def predict(self, x: Any) -> Any:
            yield "a"
            raise ValueError("boom")

    worker = Worker(Model)
    call = worker.call()
    kinds = [kind for kind, _ in await worker.wire.over(call)]
    assert kinds == [RESP, ITEMS, ERROR]


async def test_a_lost_device_is_reported_for_the_call_and_then_for_the_worker() -> None:
    class Model:
        def predict(self, x: Any) -> Any:
            raise RuntimeError("CUDA error: device-side assert triggered")

    worker = Worker(Model)
    await worker.wire.error(worker.call())
    ((kind, failure),) = worker.wire.of(0)
    assert kind == ERROR
    assert "CUDA error: device-side assert triggered" in failure.reason


# ── cancelling ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_call_that_waits_for_its_slot_is_dropped_and_never_runs() -> None:
    gate, ran = Gate(), []

    class Model:
        def predict(self, x: Any) -> Any:
            ran.append(x)
            gate.wait()
            return x

    worker = Worker(Model)
    first, second, third = worker.call(1), worker.call(2), worker.call(3)
    await gate.reached()
    worker.executor.cancel(second)
    assert worker.wire.of(second) == [(END, None)]
    gate.open()
    await worker.wire.reply(first)
    await worker.wire.reply(third)
    assert ran == [1, 3]
    assert worker.free_slots == 1


@pytest.mark.parametrize("kind", ["async", "hooks"])
async def test_a_call_cancelled_in_the_turn_in_which_it_came_ends_and_never_runs(kind: str) -> None:
    """A task that is cancelled before its first turn runs nothing at all, its `except` included."""
    ran = []

    async def coroutine(self: Any, x: Any) -> Any:
        ran.append(x)

    methods: dict[str, Any] = {"predict": coroutine}
    if kind == "hooks":
        methods["preprocess"] = lambda self, x: ran.append(x)
    worker = Worker(type("Model", (), methods))
    call = worker.call(1)
    worker.executor.cancel(call)
    assert worker.wire.of(call) == [(END, None)]
    await asyncio.sleep(0.01)
    assert worker.wire.of(call) == [(END, None)]
    assert ran == []
    assert worker.free_slots == 1


async def test_a_cancelled_coroutine_sees_it_where_it_awaits_and_ends_when_it_has() -> None:
    gate, seen = Gate(), []
    leaving = asyncio.Event()

    class Model:
        async def predict(self, x: Any) -> Any:
            try:
                await gate.wait_async()
            except asyncio.CancelledError:
                seen.append("cancelled")
                await leaving.wait()
                raise

    worker = Worker(Model)
    call = worker.call()
    await gate.reached()
    worker.executor.cancel(call)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == ["cancelled"]
    assert worker.wire.of(call) == []
    assert worker.free_slots == 0
    leaving.set()
    assert [kind for kind, _ in await worker.wire.over(call)] == [END]
    assert worker.free_slots == 1


async def test_a_coroutine_that_swallows_its_cancellation_keeps_its_slot_until_it_ends() -> None:
    gate, leaving = Gate(), asyncio.Event()

    class Model:
        async def predict(self, x: Any) -> Any:
            try:
                await gate.wait_async()
            except asyncio.CancelledError:
                await leaving.wait()
            return "anyway"

    worker = Worker(Model)
    call = worker.call()
    await gate.reached()
    worker.executor.cancel(call)
    await asyncio.sleep(0.01)
    assert worker.free_slots == 0
    leaving.set()
    assert [kind for kind, _ in await worker.wire.over(call)] == [END]
    assert worker.free_slots == 1


async def test_a_coroutine_that_cancels_itself_is_a_failure_of_the_model() -> None:
    class Model:
        async def predict(self, x: Any) -> Any:
            raise asyncio.CancelledError

    worker = Worker(Model)
    assert (await worker.wire.error(worker.call())).code == "model_error"


async def test_a_sync_method_cannot_be_stopped_and_its_slot_is_free_when_it_returns() -> None:
    gate = Gate()

    class Model:
        def predict(self, x: Any) -> Any:
            gate.wait()
            return "answer"

    worker = Worker(Model)
    call = worker.call()
    await gate.reached()
    worker.executor.cancel(call)
    await asyncio.sleep(0.01)
    assert worker.wire.of(call) == []
    assert worker.free_slots == 0
    gate.open()
    assert [kind for kind, _ in await worker.wire.over(call)] == [END]
    assert worker.free_slots == 1


async def test_a_cancelled_sync_generator_is_closed_on_its_own_thread() -> None:
    gate, ends = Gate(), []

    class Model:
        def predict(self, x: Any) -> Any:
            thread = threading.get_ident()
            try:
                yield "one"
                gate.wait()
                yield "two"
                ends.append("went on")
            finally:
                ends.append(threading.get_ident() == thread)

    worker = Worker(Model)
    call = worker.call()
    await gate.reached()
    worker.executor.cancel(call)
    gate.open()
    assert (await worker.wire.over(call))[-1][0] == END
    assert ends == [True]
    assert worker.free_slots == 1


@pytest.mark.parametrize("function", [sync_counter, async_counter])
async def test_a_generator_that_waits_for_credit_is_closed_by_a_cancel(function: Any) -> None:
    worker = Worker(type("Model", (), {"predict": function}))
    call = worker.call(10**9)
    await worker.wire.until(lambda: len(worker.wire.items(call)) >= WINDOW_ITEMS)
    worker.executor.cancel(call)
    assert (await worker.wire.over(call))[-1][0] == END
    assert worker.free_slots == 1


async def test_an_async_generator_runs_its_finally_before_the_end_is_told() -> None:
    gate, leaving, ends = Gate(), asyncio.Event(), []

    class Model:
        async def predict(self, x: Any) -> Any:
            try:
                yield "one"
                await gate.wait_async()
            finally:
                await leaving.wait()
                ends.append(True)

    worker = Worker(Model)
    call = worker.call()
    await gate.reached()
    worker.executor.cancel(call)
    await asyncio.sleep(0.01)
    assert not worker.wire.is_over(call)
    assert worker.free_slots == 0
    leaving.set()
    await worker.wire.over(call)
    assert ends == [True]
    assert worker.free_slots == 1


@pytest.mark.parametrize("gather", [False, True])
async def test_a_cancel_reaches_an_async_generator_that_never_suspends(gather: bool) -> None:
    ends = []

    class Model:
        async def predict(self, x: Any) -> Any:
            try:
                while True:
                    yield "x"
            finally:
                ends.append(True)

    worker = Worker(Model)
    call = worker.call(gather=gather)
    await asyncio.sleep(0)  # it runs, and lets the loop go on
    if not gather:
        await worker.wire.until(lambda: len(worker.wire.items(call)) >= WINDOW_ITEMS)
    worker.executor.cancel(call)
    assert (await worker.wire.over(call))[-1][0] == END
    assert ends == [True]
    assert worker.free_slots == 1


async def test_a_cancel_reaches_a_sync_generator_that_is_gathered() -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Model:
        def predict(self, x: Any) -> Any:
            loop.call_soon_threadsafe(began.set)
            while True:
                yield "x"

    worker = Worker(Model)
    call = worker.call(gather=True)
    await began.wait()
    worker.executor.cancel(call)
    assert (await worker.wire.over(call))[-1][0] == END
    assert worker.free_slots == 1


async def test_an_async_generator_that_swallows_its_cancellation_is_closed_at_its_next_item() -> None:
    gate, ends = Gate(), []

    class Model:
        async def predict(self, x: Any) -> Any:
            try:
                while True:
                    try:
                        await gate.wait_async()
                    except asyncio.CancelledError:
                        pass
                    yield "on and on"
            finally:
                ends.append(True)

    worker = Worker(Model)
    call = worker.call()
    await gate.reached()
    worker.executor.cancel(call)
    await worker.wire.over(call)
    assert ends == [True]
    assert worker.free_slots == 1


async def test_a_generator_that_ignores_its_close_is_an_error_and_its_slot_is_free() -> None:
    gate = Gate()

    class Model:
        def predict(self, x: Any) -> Any:
            gate.wait()
            while True:
                try:
                    yield "x"
                except GeneratorExit:
                    yield "no"

    worker = Worker(Model)
    call = worker.call()
    await gate.reached()
    worker.executor.cancel(call)
    gate.open()
    assert (await worker.wire.over(call))[-1][0] == ERROR
    assert worker.free_slots == 1


async def test_a_cancel_for_a_call_that_has_ended_or_never_came_is_answered() -> None:
    class Model:
        def predict(self, x: Any) -> Any:
            return x

    worker = Worker(Model)
    call = worker.call()
    await worker.wire.reply(call)
    worker.executor.cancel(call)
    worker.executor.cancel(77)
    assert worker.wire.of(call)[-1] == (END, None)
    assert worker.wire.of(77) == [(END, None)]
    worker.executor.grant(call, 1, 1)


async def test_a_result_that_lives_on_the_loop_of_a_call_that_nobody_wants_is_dropped() -> None:
    gate, ran = Gate(), []

    class Model:
        def predict(self, x: Any) -> Any:
            async def coroutine() -> None:
                ran.append(True)

            gate.wait()
            return coroutine()

    worker = Worker(Model)
    call = worker.call()
    await gate.reached()
    worker.executor.cancel(call)
    gate.open()
    assert [kind for kind, _ in await worker.wire.over(call)] == [END]
    assert ran == []


# ── slots ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_async", [False, True])
async def test_never_more_run_at_once_than_there_are_slots_and_in_the_order_they_came(is_async: bool) -> None:
    running, peak, order = 0, 0, []
    lock = threading.Lock()

    def begin(x: Any) -> None:
        nonlocal running, peak
        with lock:
            order.append(x)
            running += 1
            peak = max(peak, running)

    def end() -> None:
        nonlocal running
        with lock:
            running -= 1

    class Sync:
        def predict(self, x: Any) -> Any:
            begin(x)
            threading.Event().wait(0.001)
            end()

        def chat_completions(self, x: Any) -> Any:
            begin(x)
            yield "item"
            threading.Event().wait(0.001)
            end()

    class Async:
        async def predict(self, x: Any) -> Any:
            begin(x)
            await asyncio.sleep(0.001)
            end()

        async def chat_completions(self, x: Any) -> Any:
            begin(x)
            yield "item"
            await asyncio.sleep(0.001)
            end()

    worker = Worker(Async if is_async else Sync, slots=2)
    for number in range(20):
        worker.call(number) if number % 2 else worker.chat(number)
    await worker.idle()
    assert peak <= 2
    if is_async:
        assert order == list(range(20))
    assert sorted(order) == list(range(20))
    assert worker.free_slots == 2


async def test_a_call_that_waits_too_long_for_its_slot_gets_an_error() -> None:
    gate = Gate()

    class Model:
        def preprocess(self, x: Any) -> Any:
            return x

        def predict(self, x: Any) -> Any:
            gate.wait()

        def chat_completions(self, x: Any) -> Any:
            return x

        async def embeddings(self, x: Any) -> Any:
            return x

    worker = Worker(Model, queue_timeout=0.01)
    first = worker.call()
    await gate.reached()
    late = [worker.call(), worker.chat(), worker.call(None, "embeddings")]
    for call in late:
        failure = await worker.wire.error(call)
        assert (failure.status, failure.code) == (503, "queue_timeout")
        assert [kind for kind, _ in worker.wire.of(call)] == [WAITS, ERROR]
    gate.open()
    await worker.wire.reply(first)
    await worker.idle()
    assert worker.free_slots == 1


async def test_what_its_client_does_not_wait_for_any_more_never_begins() -> None:
    gate, ran = Gate(), []

    class Model:
        def preprocess(self, x: Any) -> Any:
            return x

        def predict(self, x: Any) -> Any:
            ran.append(x)
            if x == "first":
                gate.wait()
            return x

    worker = Worker(Model)
    first = worker.call("first")
    await gate.reached()
    late, patient = worker.call("late", deadline=0.01), worker.call("patient", deadline=30.0)
    failure = await worker.wire.error(late)
    assert (failure.status, failure.code) == (503, "queue_timeout")
    gate.open()
    await worker.wire.reply(first)
    await worker.wire.reply(patient)
    over = worker.call("over", deadline=0.0)  # the slot is free, the time is not there
    assert (await worker.wire.error(over)).code == "queue_timeout"
    await worker.idle()
    assert ran == ["first", "patient"]
    assert worker.free_slots == 1


# ── hooks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_hooks_run_around_predict_and_only_predict_holds_the_slot() -> None:
    slots: list[Any] = []

    class Model:
        def preprocess(self, x: Any) -> Any:
            slots.append(("pre", worker.free_slots))
            return x + 1

        def predict(self, x: Any) -> Any:
            slots.append(("predict", worker.free_slots))
            return x * 10

        async def postprocess(self, x: Any) -> Any:
            slots.append(("post", worker.free_slots))
            return {"answer": x}

    worker = Worker(Model)
    call = worker.call(1)
    assert await worker.wire.reply(call) == b'{"answer": 20}'
    assert slots == [("pre", 1), ("predict", 0), ("post", 1)]
    assert [kind for kind, _ in worker.wire.of(call)] == [SLOT, RESP]


async def test_preprocess_of_the_next_overlaps_with_predict_of_the_first() -> None:
    gate = Gate()

    class Model:
        def preprocess(self, x: Any) -> Any:
            if x == 2:
                gate.open()
            return x

        def predict(self, x: Any) -> Any:
            if x == 1:
                gate.wait()
            return x

    worker = Worker(Model)
    first, second = worker.call(1), worker.call(2)
    assert await worker.wire.reply(first) == b"1"
    assert await worker.wire.reply(second) == b"2"


async def test_other_methods_of_a_model_with_hooks_skip_them_and_tell_their_slot_too() -> None:
    class Model:
        def preprocess(self, x: Any) -> Any:
            raise AssertionError

        def predict(self, x: Any) -> Any: ...

        def chat_completions(self, x: Any) -> Any:
            return x

    worker = Worker(Model)
    call = worker.chat(5)
    assert await worker.wire.reply(call) == 5
    assert [kind for kind, _ in worker.wire.of(call)] == [SLOT, RESP]


@pytest.mark.parametrize("step", ["preprocess", "predict", "postprocess"])
async def test_an_error_in_any_step_ends_the_call_and_frees_the_slot(step: str) -> None:
    def fine(self: Any, x: Any) -> Any:
        return x

    def broken(self: Any, x: Any) -> Any:
        raise ValueError(step)

    methods = {name: broken if name == step else fine for name in ("preprocess", "predict", "postprocess")}
    worker = Worker(type("Model", (), methods))
    assert (await worker.wire.error(worker.call(1))).reason == f"ValueError: {step}"
    assert worker.free_slots == 1


@pytest.mark.parametrize(
    "result", [iter("ab"), (x for x in "ab"), Response("x")], ids=["iterator", "generator", "response"]
)
async def test_a_stream_or_response_cannot_be_given_to_postprocess(result: Any) -> None:
    class Model:
        def predict(self, x: Any) -> Any:
            return result

        def postprocess(self, x: Any) -> Any:
            raise AssertionError

    worker = Worker(Model)
    assert "postprocess" in (await worker.wire.error(worker.call())).reason
    assert worker.free_slots == 1


async def test_a_generator_out_of_postprocess_streams_without_the_slot_and_starves_no_health_check() -> None:
    class Model:
        def predict(self, x: Any) -> Any:
            return x

        def postprocess(self, x: Any) -> Any:
            yield from map(str, range(x))

        def is_healthy(self) -> bool:
            return True

    worker = Worker(Model)
    streams = [worker.call(1000) for _ in range(8)]
    await worker.wire.until(lambda: all(len(worker.wire.items(call)) >= WINDOW_ITEMS for call in streams))
    assert worker.free_slots == 1
    assert await worker.wire.answer(worker.ask()) is True
    for call in streams:
        worker.executor.cancel(call)
    await worker.idle()


async def test_predict_behind_preprocess_may_stream() -> None:
    class Model:
        def preprocess(self, x: Any) -> Any:
            return 3

        def predict(self, x: Any) -> Any:
            yield from map(str, range(x))

    worker = Worker(Model)
    call = worker.call()
    await worker.wire.over(call)
    assert worker.wire.items(call) == [b"0", b"1", b"2"]
    assert worker.free_slots == 1


async def test_a_hook_that_returns_a_coroutine_without_being_one_is_awaited() -> None:
    async def later(x: Any) -> Any:
        return x + 1

    class Model:
        def preprocess(self, x: Any) -> Any:
            return later(x)

        def predict(self, x: Any) -> Any:
            return later(x)

        def postprocess(self, x: Any) -> Any:
            return later(x)

    worker = Worker(Model)
    assert await worker.wire.reply(worker.call(0)) == b"3"


@pytest.mark.parametrize("step", ["preprocess", "predict", "postprocess"])
async def test_a_cancel_in_any_step_ends_the_call_after_the_code_has_stopped(step: str) -> None:
    gate, ran = Gate(), []

    def make(name: str) -> Any:
        def function(self: Any, x: Any) -> Any:
            ran.append(name)
            if name == step:
                gate.wait()
            return x

        return function

    steps = ("preprocess", "predict", "postprocess")
    worker = Worker(type("Model", (), {name: make(name) for name in steps}))
    call = worker.call()
    await gate.reached()
    worker.executor.cancel(call)
    await asyncio.sleep(0.01)
    assert not worker.wire.is_over(call)
    gate.open()
    assert (await worker.wire.over(call))[-1][0] == END
    assert ran == list(steps[: steps.index(step) + 1])
    assert worker.free_slots == 1


# ── the request ──────────────────────────────────────────────────────────────────────────────────────────────────────

SCOPE = HTTPScope("POST", "/x", b"a=1", [(b"x-a", b"header")], ("1.2.3.4", 5), ("host", 80), "http")


async def test_a_method_that_asks_for_the_request_gets_a_readable_one() -> None:
    class Model:
        async def predict(self, x: Any, request: Request) -> Any:
            return {
                "header": request.headers["X-A"],
                "query": request.query_params["a"],
                "body": (await request.body()).decode(),
                "json": await request.json(),
                "method": request.method,
                "client": request.client.host if request.client else None,
                "gone": await request.is_disconnected(),
            }

    Model.predict.__annotations__ = {"request": Request}
    worker = Worker(Model)
    found = json.loads(await worker.wire.reply(worker.call([1], scope=SCOPE)))
    assert found == {
        "header": "header",
        "query": "1",
        "body": "[1]",
        "json": [1],
        "method": "POST",
        "client": "1.2.3.4",
        "gone": False,
    }


async def test_a_client_that_leaves_is_seen_from_a_thread_and_from_the_loop() -> None:
    gate, seen = Gate(), []

    class Model:
        def predict(self, request: Request) -> Any:
            with request.state.watch_disconnect() as gone:
                gate._loop.call_soon_threadsafe(gate._here.set)
                seen.append(gone.wait(30))

    Model.predict.__annotations__ = {"request": Request}
    worker = Worker(Model)
    call = worker.call(scope=SCOPE)
    await gate.reached()
    worker.executor.cancel(call)
    await worker.wire.over(call)
    assert seen == [True]


# ── responses ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_response_passes_with_its_status_headers_and_bytes() -> None:
    class Model:
        def predict(self, x: Any) -> Any:
            return JSONResponse({"a": 1}, 201, {"x-mine": "yes"})

    worker = Worker(Model)
    ((kind, (head, body)),) = await worker.wire.over(worker.call())
    assert kind == RESP
    assert (head.status, head.raw, head.final, body) == (201, True, True, b'{"a":1}')
    assert ("x-mine", "yes") in head.headers


async def test_a_streaming_response_streams_and_is_cancelled_with_its_client() -> None:
    gate, ends = Gate(), []

    async def body() -> Any:
        try:
            yield "one"
            await gate.wait_async()
        finally:
            ends.append(True)

    class Model:
        async def predict(self, x: Any) -> Any:
            return StreamingResponse(body(), 202, media_type="text/event-stream")

    worker = Worker(Model)
    call = worker.call()
    await gate.reached()
    await worker.wire.until(lambda: worker.wire.items(call) == [b"one"])
    head = worker.wire.of(call)[0][1][0]
    assert (head.status, head.raw, head.stream) == (202, True, True)
    worker.executor.cancel(call)
    assert (await worker.wire.over(call))[-1][0] == END
    assert ends == [True]
    assert worker.free_slots == 1


@pytest.mark.parametrize(
    "response",
    [
        lambda: Response("x", 200, {"x-a": "1\r\nset-cookie: stolen"}),
        lambda: Response("x", 700),
        lambda: StreamingResponse(iter(["x"]), 200, {"x-a": "1\n"}),
    ],
    ids=["header", "status", "stream"],
)
async def test_a_response_that_would_forge_an_answer_is_the_models_failure(response: Any) -> None:
    class Model:
        def predict(self, x: Any) -> Any:
            return response()

    worker = Worker(Model)
    assert (await worker.wire.error(worker.call())).code == "invalid_model_output"


# ── health, drain ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("answer", "told"), [(34, True), ("", False), (None, None), ({}, False)])
async def test_a_health_check_is_true_false_or_no_opinion(answer: Any, told: Any) -> None:
    class Model:
        def predict(self, x: Any) -> Any: ...

        async def is_healthy(self) -> Any:
            return answer

    worker = Worker(Model)
    assert await worker.wire.answer(worker.ask()) is told


async def test_health_checks_answer_while_every_slot_is_taken() -> None:
    gate = Gate()

    class Model:
        def predict(self, x: Any) -> Any:
            gate.wait()

        def is_healthy(self) -> bool:
            return True

    worker = Worker(Model)
    call = worker.call()
    await gate.reached()
    assert await worker.wire.answer(worker.ask()) is True
    gate.open()
    await worker.wire.reply(call)


async def test_health_checks_answer_while_every_thread_of_the_hooks_is_busy() -> None:
    gate, running = Gate(), threading.Semaphore(0)

    class Model:
        def preprocess(self, x: Any) -> Any:
            running.release()
            gate.wait()

        def predict(self, x: Any) -> Any: ...

        def is_healthy(self) -> bool:
            return True

    worker = Worker(Model)
    for _ in range(8):
        worker.call()
    for _ in range(4):  # the threads that there are for hooks here
        await asyncio.to_thread(running.acquire)
    assert await worker.wire.answer(worker.ask()) is True
    gate.open()
    await worker.idle()


async def test_a_health_check_that_raises_is_an_error_and_the_next_one_is_asked_again() -> None:
    class Model:
        def predict(self, x: Any) -> Any: ...

        def is_healthy(self) -> bool:
            raise SystemExit("no")

    worker = Worker(Model)
    for _ in range(2):
        assert (await worker.wire.error(worker.ask())).reason == "SystemExit: no"
    assert worker.free_slots == 1


async def test_a_health_check_that_is_cancelled_ends_when_its_code_has_stopped() -> None:
    gate = Gate()

    class Model:
        def predict(self, x: Any) -> Any: ...

        def is_healthy(self) -> bool:
            gate.wait()
            return True

    worker = Worker(Model)
    question = worker.ask()
    await gate.reached()
    worker.executor.cancel(question)
    drained = asyncio.create_task(worker.idle())
    await asyncio.sleep(0.01)
    assert not worker.wire.is_over(question) and not drained.done()
    gate.open()
    assert [kind for kind, _ in await worker.wire.over(question)] == [END]
    await drained


async def test_a_question_that_is_cancelled_before_its_first_turn_ends_and_asks_nothing() -> None:
    asked = []

    class Model:
        def predict(self, x: Any) -> Any: ...

        async def is_healthy(self) -> None:
            asked.append(True)

    worker = Worker(Model)
    question = worker.ask()
    worker.executor.cancel(question)
    assert [kind for kind, _ in await worker.wire.over(question)] == [END]
    await worker.idle()
    assert asked == []


async def test_a_check_that_cancels_itself_is_an_error() -> None:
    class Model:
        def predict(self, x: Any) -> Any: ...

        async def is_healthy(self) -> None:
            raise asyncio.CancelledError

    worker = Worker(Model)
    assert "CancelledError" in (await worker.wire.error(worker.ask())).reason


async def test_methods_named_as_questions_are_called_by_their_routes_and_not_asked() -> None:
    class Model:
        def is_healthy(self) -> list[str]:
            return ["pulse"]

        def swap_class(self, x: Any) -> Any:
            return {"warmed": x}

    worker = Worker(Model, methods=("swap_class", "is_healthy"))
    assert await worker.wire.reply(worker.call(7, "swap_class")) == {"warmed": 7}
    assert await worker.wire.reply(worker.call(None, "is_healthy")) == ["pulse"]
    assert await worker.wire.answer(worker.ask()) is True
    assert worker.free_slots == 1
    bare = Worker(type("Model", (), {"predict": lambda self, x: x, "is_healthy": lambda self: True}))
    for name in ("swap_class", "is_healthy"):
        assert (await bare.wire.error(bare.call(None, name))).status == 404


async def test_a_large_body_is_read_off_the_loop_by_async_methods_too() -> None:
    class Model:
        async def predict(self, x: Any) -> Any:
            return len(x)

    worker = Worker(Model)
    assert await worker.wire.reply(worker.call("x" * 1_000_000)) == b"1000000"
    assert (await worker.wire.error(worker.call(b"{" + b" " * 1_000_000))).code == "invalid_json"
    assert worker.free_slots == 1


async def test_a_drain_ends_when_the_last_call_has() -> None:
    gate = Gate()

    class Model:
        def predict(self, x: Any) -> Any:
            gate.wait()

    worker = Worker(Model)
    worker.call()
    worker.call()
    await gate.reached()
    drained = asyncio.create_task(worker.idle())
    await asyncio.sleep(0)
    assert not drained.done()
    gate.open()
    await drained
    await worker.idle()
