"""A slot's thread reads its next call itself while calls come one at a time; whatever else comes, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import PATIENT
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.spec import ModelSpec
from gateway.wire import frames as wire
from gateway.wire.channel import TURN
from gateway.wire.frames import (
    ANSWER,
    ASK,
    BYTES,
    CANCEL,
    CREDIT,
    DATA,
    END,
    ERROR,
    HEADER,
    MAX_FRAME,
    MORE,
    REQ,
    RESP,
    Req,
    Resp,
)
from gateway.wire.values import encode
from gateway.worker.calls.executor import Executor
from gateway.worker.calls.threads import Outbox, Pool
from gateway.worker.direct_reading import AFTER, AT_MOST, DirectReading
from gateway.worker.loading.descriptor import describe
from gateway.worker.loading.loader import Loaded
from gateway.worker.thread_channel import ThreadChannel

pytestmark = pytest.mark.anyio
LARGE = "x" * (2 * MAX_FRAME)


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return "asyncio", {"use_uvloop": request.param}


class Model:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.here, self.go = asyncio.Event(), threading.Event()
        self.threads: list[str] = []

    def predict(self, x: Any) -> Any:
        self.threads.append(threading.current_thread().name)
        if x == "wait":
            self.loop.call_soon_threadsafe(self.here.set)
            self.go.wait()
        if x == "fail":
            raise ValueError("no")
        if x == "stream":
            return iter_of("a", "b")
        return x

    async def chat_completions(self, x: Any) -> Any:
        return x


def iter_of(*items: Any) -> Any:
    yield from items


class Setting:
    """A worker's channel and executor in this process, and the gateway's end of the socket."""

    def __init__(self, slots: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(10)
        self.model, self.slots = Model(), slots
        self.lost: asyncio.Future[Exception | None] = self.loop.create_future()
        self.handled: list[int] = []  # kinds of frames that the event loop handled
        self.calls = 0
        self.received = b""

    async def start(self) -> None:
        self.channel = ThreadChannel(self.on_frame, self.lost.set_result, max_pending=1 << 40)
        await self.loop.create_connection(lambda: self.channel, sock=self.theirs)
        outbox = Outbox(self.loop)
        self.direct = DirectReading(self.loop, self.channel, outbox)
        descriptor = describe(self.model, frozenset({"chat_completions"}))
        loaded = Loaded(ModelSpec(name="m", target="", root=Path("/nowhere")), self.model, descriptor)
        hello = wire.Hello(1, {}, self.slots, 8, {}, None, queue_timeout=30.0)
        aux = Pool(4, "hook", outbox)
        self.executor = Executor(self.loop, self.channel, outbox, aux, loaded, hello, lambda call: None, self.direct)

    def on_frame(self, kind: int, call: int, payload: memoryview) -> None:
        self.handled.append(kind)
        if kind == REQ:
            head, body = wire.split(Req, payload)
            self.executor.start(call, head, bytes(body))
        elif kind == CREDIT:
            self.executor.grant(call, 1, 1)
        elif kind == CANCEL:
            self.executor.cancel(call)
        elif kind == ASK:
            self.executor.questions.ask(call, wire.decode_head(wire.Ask, payload))

    def request(self, value: Any, method: str = "predict", **head: Any) -> tuple[int, bytes]:
        """The frames of a call, and its id."""
        self.calls += 1
        mode = BYTES if method == "predict" else DATA
        req = Req(**{"method": method, "mode": mode, "stream": False, "content_type": "", "request_id": "r", **head})
        body = json.dumps(value).encode() if mode == BYTES else encode(value)
        return self.calls, framed(REQ, self.calls, wire.join(req, body))

    async def ask(self) -> None:
        """Put a question, and wait for what is said to it."""
        self.calls += 1
        self.send(framed(ASK, self.calls, encode(wire.Ask("is_healthy"))))
        assert (await self.result())[:2] == (ANSWER, self.calls)

    def send(self, data: bytes) -> None:
        self.ours.sendall(data)

    def receive(self) -> tuple[int, int, bytes]:
        """Wait for one whole payload; blocks this thread, which is that of the event loop, if called there."""
        whole = b""
        while True:
            while len(self.received) < HEADER.size or len(self.received) < HEADER.size + self._length:
                data = self.ours.recv(1 << 20)
                assert data, "the worker has closed the socket"
                self.received += data
            _, kind, call = HEADER.unpack_from(self.received)
            end = HEADER.size + self._length
            whole += self.received[HEADER.size : end]
            self.received = self.received[end:]
            if not kind & MORE:
                return kind, call, whole

    @property
    def _length(self) -> int:
        return int(HEADER.unpack_from(self.received)[0])

    async def result(self) -> tuple[int, int, Any]:
        """Wait for one payload while the loop runs: its kind, its call, and the body of an answer."""
        kind, call, payload = await asyncio.to_thread(self.receive)
        return kind, call, body_of(payload) if kind == RESP else None

    async def until_direct(self, most: int = 4 * AFTER) -> None:
        """Make calls one at a time until a thread reads the next one."""
        for _ in range(most):
            await self.one()
            if self.direct.is_on:
                return
        raise AssertionError("it was never read directly")

    async def one(self) -> None:
        """Make one call, and wait until the worker is at rest after it."""
        call, data = self.request("alone")
        self.send(data)
        assert await self.result() == (RESP, call, b'"alone"')
        await self.is_idle()
        if self.direct.is_on:
            await self.until(self.direct._reads.locked)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what a thread does after its answer."""
        async with asyncio.timeout(20):
            while not holds():  # noqa: ASYNC110  (threads set no asyncio events)
                await asyncio.sleep(0.001)

    async def is_idle(self) -> None:
        await self.until(lambda: self.executor.slots._free == self.slots and not self.executor._runs)


def body_of(payload: bytes) -> bytes:
    _, body = wire.split(Resp, memoryview(payload))
    return bytes(body)


def framed(kind: int, call: int, payload: bytes) -> bytes:
    parts = [payload[start : start + MAX_FRAME] for start in range(0, len(payload), MAX_FRAME)] or [b""]
    last = len(parts) - 1
    return b"".join(
        HEADER.pack(len(part), kind | MORE if index < last else kind, call) + part for index, part in enumerate(parts)
    )


@asynccontextmanager
async def started(slots: int = 1) -> AsyncIterator[Setting]:
    setting = Setting(slots)
    await setting.start()
    try:
        yield setting
    finally:
        setting.model.go.set()
        setting.ours.close()
        await setting.lost


async def test_after_some_calls_that_came_alone_the_event_loop_takes_no_part() -> None:
    async with started() as setting:
        await setting.until_direct()
        before = len(setting.handled)
        for number in range(20):  # this thread is that of the loop, and blocks
            call, data = setting.request(number)
            setting.send(data)
            kind, answered, payload = setting.receive()
            assert (kind, answered, body_of(payload)) == (RESP, call, str(number).encode())
        await asyncio.sleep(0)
        assert len(setting.handled) == before
        assert set(setting.model.threads) == {"predict-1"}


async def test_the_first_calls_are_read_by_the_event_loop() -> None:
    async with started() as setting:
        for _ in range(AFTER):
            await setting.one()
        assert setting.handled == [REQ] * AFTER and not setting.direct.is_on


async def test_a_cancel_reaches_a_call_that_its_thread_has_read() -> None:
    async with started() as setting:
        await setting.until_direct()
        call, data = setting.request("wait")
        setting.send(data)
        await setting.model.here.wait()
        setting.send(framed(CANCEL, call, b""))
        await setting.until(lambda: setting.handled[-1] == CANCEL)  # though its code still runs
        assert not setting.direct.is_on
        setting.model.go.set()
        assert (await setting.result())[:2] == (END, call)


async def test_a_second_call_begins_beside_the_first_where_there_are_slots() -> None:
    async with started(slots=2) as setting:
        await setting.until_direct()
        first, data = setting.request("wait")
        setting.send(data)
        await setting.model.here.wait()
        second, data = setting.request("second")
        setting.send(data)
        assert await setting.result() == (RESP, second, b'"second"')
        setting.model.go.set()
        assert await setting.result() == (RESP, first, b'"wait"')
        await setting.is_idle()


async def test_a_second_call_waits_for_the_only_slot() -> None:
    async with started() as setting:
        await setting.until_direct()
        first, data = setting.request("wait")
        setting.send(data)
        await setting.model.here.wait()
        second, data = setting.request("second")
        setting.send(data)
        third, data = setting.request("third")
        setting.send(data)
        setting.model.go.set()
        ends = [await setting.result() for _ in range(3)]
        assert ends == [(RESP, first, b'"wait"'), (RESP, second, b'"second"'), (RESP, third, b'"third"')]


async def and_on(setting: Setting) -> None:
    """Calls are answered as before, and no slot is lost."""
    for number in range(3):
        call, data = setting.request(number)
        setting.send(data)
        while (got := await setting.result())[1] != call:
            pass  # the rest of a stream
        assert got == (RESP, call, str(number).encode())
    await setting.is_idle()


@pytest.mark.parametrize("what", ["async", "unknown", "stream", "fail", "late"])
async def test_a_call_that_the_thread_cannot_run_or_that_ends_otherwise_is_left_to_the_event_loop(what: str) -> None:
    async with started() as setting:
        await setting.until_direct()
        method = {"async": "chat_completions", "unknown": "rerank"}.get(what, "predict")
        call, data = setting.request(what, method, deadline=-1.0 if what == "late" else None)
        setting.send(data)
        kind, answered, _ = await setting.result()
        assert answered == call and kind == (RESP if what in ("async", "stream") else ERROR)
        await and_on(setting)


async def test_a_question_is_left_to_the_event_loop() -> None:
    async with started() as setting:
        await setting.until_direct()
        await setting.ask()
        await and_on(setting)


async def test_a_large_body_and_a_large_answer_are_left_to_the_event_loop() -> None:
    async with started() as setting:
        await setting.until_direct()
        call, data = setting.request(LARGE)
        await asyncio.to_thread(setting.send, data)
        assert await setting.result() == (RESP, call, json.dumps(LARGE).encode())
        await and_on(setting)


async def test_half_a_frame_is_left_to_the_event_loop() -> None:
    async with started() as setting:
        await setting.until_direct()
        call, data = setting.request("torn")
        setting.send(data[:20])
        await setting.until(lambda: not setting.direct.is_on)
        setting.send(data[20:])
        assert await setting.result() == (RESP, call, b'"torn"')
        await and_on(setting)


async def test_two_calls_that_come_at_once_are_left_to_the_event_loop() -> None:
    async with started(slots=2) as setting:
        await setting.until_direct()
        (first, one), (second, two) = setting.request("one"), setting.request("two")
        setting.send(one + two)
        assert {(await setting.result())[1:] for _ in range(2)} == {(first, b'"one"'), (second, b'"two"')}
        await and_on(setting)


async def test_the_loop_does_not_read_on_after_a_full_turn_of_frames_that_ends_with_a_call_alone() -> None:
    async with started() as setting:
        while setting.direct.alone < AFTER:
            await setting.one()
        call, data = setting.request("alone")
        setting.send(framed(CREDIT, 0, encode(wire.Credit(1, 1))) * (TURN - 1) + data)
        assert await setting.result() == (RESP, call, b'"alone"')
        await setting.is_idle()
        await setting.until(setting.direct._reads.locked)
        assert not setting.channel.transport.is_reading()
        await and_on(setting)


async def test_the_end_of_the_gateway_is_noticed_while_a_thread_waits_for_its_next_call() -> None:
    async with started() as setting:
        await setting.until_direct()
        setting.ours.close()
        assert await setting.lost is None


async def test_direct_reading_that_soon_ends_is_begun_ever_more_rarely() -> None:
    async with started() as setting:
        needed = []
        for _ in range(3):
            await setting.until_direct(most=4 * AT_MOST)
            needed.append(setting.direct._after)
            await setting.ask()
        assert needed == [AFTER, 2 * AFTER, 4 * AFTER]
        await setting.until_direct(most=4 * AT_MOST)
        for _ in range(8 * AFTER + 1):
            await setting.one()
        await setting.ask()
        assert setting.direct._after == AFTER


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["alone", "alone", "alone", "pair", "large", "async", "ask", "cancel"]), st.booleans()),
    min_size=5,
    max_size=40,
)


@given(ACTIONS, st.integers(1, 3))
@settings(PATIENT, max_examples=25)
def test_every_call_gets_exactly_one_answer_whatever_comes_and_however_it_is_cut(
    actions: list[tuple[str, bool]], slots: int
) -> None:
    async def talk() -> None:
        async with started(slots) as setting:
            setting.direct._after = 2  # so that both ways take turns
            for action, is_cut in actions:
                due: dict[int, Any] = {}
                data = b""
                for _ in range(2 if action == "pair" else 1):
                    value = LARGE if action == "large" else setting.calls
                    if action == "ask":
                        setting.calls += 1
                        due[setting.calls] = None
                        data += framed(ASK, setting.calls, encode(wire.Ask("is_healthy")))
                        continue
                    call, one = setting.request(value, "chat_completions" if action == "async" else "predict")
                    due[call] = value
                    data += one
                    if action == "cancel":
                        data += framed(CANCEL, call, b"")
                if is_cut:
                    await asyncio.to_thread(setting.send, data[: len(data) // 2])
                await asyncio.to_thread(setting.send, data[len(data) // 2 :] if is_cut else data)
                while due:
                    kind, call, body = await setting.result()
                    value = due.pop(call)
                    if kind == RESP and action not in ("async",):
                        assert body == json.dumps(value).encode()
            await setting.is_idle()

    asyncio.run(talk())
