"""Calls that wait in a worker for their slot: each is noted when it begins, and can be recalled until then."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.wire.frames import DATA, END, RECALL, RESP, HTTPScope
from gateway.worker.calls.executor import IN_A_ROW
from gateway.worker.loading.descriptor import describe

from .test_execution import Gate, Worker

pytestmark = pytest.mark.anyio


class Held:
    """A model whose first call waits at a gate."""

    def __init__(self) -> None:
        self.gate, self.seen = Gate(), list[Any]()


def sync() -> Worker:
    class Model(Held):
        def predict(self, x: Any) -> Any:
            self.seen.append(x)
            if x == "first":
                self.gate.wait()
            return x

    return Worker(Model)


def in_async() -> Worker:
    class Model(Held):
        async def predict(self, x: Any) -> Any:
            self.seen.append(x)
            if x == "first":
                await self.gate.wait_async()
            return x

    return Worker(Model)


@pytest.mark.parametrize("make", [sync, in_async])
async def test_a_call_is_noted_when_it_begins_and_in_the_order_of_their_arrival(make: Any) -> None:
    worker = make()
    calls = [worker.call(x) for x in ("first", 2, 3)]
    await worker.model.gate.reached()
    assert worker.began == calls[:1]
    worker.model.gate.open()
    assert [await worker.wire.reply(call) for call in calls] == [b'"first"', b"2", b"3"]
    assert worker.began == calls and worker.model.seen == ["first", 2, 3]
    await worker.idle()
    assert worker.free_slots == 1


@pytest.mark.parametrize("make", [sync, in_async])
async def test_a_call_that_has_not_begun_is_given_back_and_never_runs(make: Any) -> None:
    worker = make()
    first, second, third = (worker.call(x) for x in ("first", 2, 3))
    await worker.model.gate.reached()
    worker.executor.recall(second)
    assert worker.wire.of(second)[0][0] == RECALL
    for call in (first, second, 99):  # it runs, it was given back already, there is none
        worker.executor.recall(call)
    assert worker.wire.of(first) == [] and len(worker.wire.of(second)) == 1
    worker.model.gate.open()
    assert await worker.wire.reply(third) == b"3"
    assert worker.model.seen == ["first", 3] and worker.began == [first, third]
    await worker.idle()
    assert worker.free_slots == 1


@pytest.mark.parametrize("make", [sync, in_async])
async def test_a_cancelled_call_that_waits_ends_at_once(make: Any) -> None:
    worker = make()
    first, second = worker.call("first"), worker.call(2)
    await worker.model.gate.reached()
    worker.executor.cancel(second)
    assert [kind for kind, _ in worker.wire.of(second)] == [END]
    worker.model.gate.open()
    await worker.wire.over(first)
    await worker.idle()
    assert worker.model.seen == ["first"] and worker.free_slots == 1


async def test_a_thread_runs_some_calls_in_a_row_and_then_lets_the_loop_send_their_answers() -> None:
    """Each answer follows those before it, and none is held back by more than these."""
    worker = sync()
    seen = worker.model.seen
    calls = [worker.call("first"), *(worker.call(number) for number in range(3 * IN_A_ROW))]
    await worker.model.gate.reached()
    worker.model.gate.open()
    await worker.wire.until(lambda: worker.wire.is_over(calls[-1]))
    ends = [call for kind, call, _ in worker.wire.frames if kind == RESP]
    assert ends == calls == worker.began
    assert seen == ["first", *range(3 * IN_A_ROW)]
    await worker.idle()
    assert worker.free_slots == 1


async def test_calls_that_wait_run_the_new_code_of_a_swapped_class() -> None:
    worker = sync()
    first, second = worker.call("first"), worker.call(2)
    await worker.model.gate.reached()

    class New(Held):
        def predict(self, x: Any) -> Any:
            return "new"

    worker.executor._use(describe(New(), frozenset()))
    worker.model.gate.open()
    assert await worker.wire.reply(first) == b'"first"'
    assert await worker.wire.reply(second) == b'"new"'


async def test_a_websocket_that_waits_is_given_back_and_leaves_no_task() -> None:
    class Model(Held):
        async def websocket(self, socket: Any) -> None:
            await self.gate.wait_async()

    worker = Worker(Model)
    scope = HTTPScope("GET", "/", b"", [], None, None, "ws")
    first, second = (worker.call(method="websocket", mode=DATA, scope=scope) for _ in range(2))
    await worker.model.gate.reached()
    before = len(asyncio.all_tasks())
    worker.executor.recall(second)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [kind for kind, _ in worker.wire.of(second)] == [RECALL]
    assert len(asyncio.all_tasks()) == before - 1
    worker.model.gate.open()
    await worker.wire.over(first)
    await worker.idle()
