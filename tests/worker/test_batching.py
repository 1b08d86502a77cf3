"""Calls share batches: who gets which outcome, what a cancel does, and when a batch begins."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from gateway import END, BadRequest
from gateway.field_copies import MOST_COPIES
from gateway.spec import Batching, Limits, ModelSpec
from gateway.wire import frames as wire
from gateway.wire.frames import BATCH, ERROR, RESP, HTTPScope
from gateway.worker.batching import runner, streams
from gateway.worker.calls.executor import Executor
from gateway.worker.calls.threads import Outbox, Pool
from gateway.worker.loading.loader import Loaded, inspect_model

from .test_execution import Gate, NotDirect, Wire, Worker

pytestmark = pytest.mark.anyio
METHODS = frozenset({"chat_completions", "completions", "embeddings", "classify", "rerank", "score", "moderations"})
SCOPE = HTTPScope("POST", "/", b"", [(b"x-tenant", b"7")], None, None, "http")


class BatchWire(Wire):
    """Also the frames about batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[wire.Batch] = []

    def send_split(self, kind: int, call: int, payload: bytes) -> None:
        if kind == BATCH:
            assert call == 0
            self.batches.append(wire.decode_head(wire.Batch, payload))
        else:
            super().send_split(kind, call, payload)

    send_soon = send_split


class Batched(Worker):
    """A worker whose model has a batch size, as the loader makes it."""

    def __init__(self, cls: Any, slots: int | None = None, **settings: Any) -> None:
        loop = asyncio.get_running_loop()
        batching = Batching(**{"size": 4, "has_own_slots": slots is not None, **settings})
        slots = slots or batching.slots
        spec = ModelSpec(name="m", target="", root=Path("/nowhere"), limits=Limits(slots=slots), batching=batching)
        self.model = cls()
        loaded = Loaded(spec, self.model, inspect_model(self.model, METHODS, spec))
        hello = wire.Hello(1, {}, slots, 8, {}, None)
        self.wire, outbox = BatchWire(), Outbox(loop)
        self.began = []
        aux = Pool(4, "hook", outbox)
        channel: Any = self.wire
        direct: Any = NotDirect()
        self.executor = Executor(loop, channel, outbox, aux, loaded, hello, self.began.append, direct)
        self._calls = 0

    def call(self, value: Any = None, method: str = "predict", **head: Any) -> int:
        return super().call(value, method, **{"request_id": f"r{self._calls + 1}", **head})

    @property
    def batches(self) -> list[wire.Batch]:
        return self.wire.batches  # type: ignore[attr-defined,no-any-return]

    async def answers(self, calls: list[int]) -> list[Any]:
        """The answers of predicts: JSON, or the code and message of an error."""
        found = []
        for call in calls:
            kind, value = (await self.wire.over(call))[-1]
            found.append((value.code, value.message) if kind == ERROR else value[1])
        return [json.loads(each) if isinstance(each, bytes) else each for each in found]


def recorded(function: Callable[[Any, list[Any]], Any]) -> type:
    """A class whose `predict_batch` is this function; it remembers what it was given."""

    class Model:
        def __init__(self) -> None:
            self.seen = list[list[Any]]()

        def predict_batch(self, inputs: list[Any]) -> Any:
            self.seen.append(list(inputs))
            return function(self, inputs)

    return Model


def doubled(_: Any, inputs: list[int]) -> list[int]:
    return [2 * number for number in inputs]


# ── how batches form ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_calls_of_one_turn_share_a_batch_up_to_its_size() -> None:
    worker = Batched(recorded(doubled))
    assert await worker.answers([worker.call(number) for number in range(6)]) == [0, 2, 4, 6, 8, 10]
    assert worker.model.seen == [[0, 1, 2, 3], [4, 5]]
    assert [(batch.calls, len(batch.waits)) for batch in worker.batches] == [([1, 2, 3, 4], 4), ([5, 6], 2)]
    assert worker.free_slots == 8


async def test_while_a_batch_runs_the_next_one_collects_without_a_delay() -> None:
    class Model:
        def __init__(self) -> None:
            self.gate, self.seen = Gate(), list[Any]()

        async def predict_batch(self, inputs: list[Any]) -> list[Any]:
            self.seen.append(list(inputs))
            if inputs == ["first"]:
                await self.gate.wait_async()
            return inputs

    worker = Batched(Model)
    first = worker.call("first")
    await worker.model.gate.reached()
    rest = [worker.call(number) for number in range(3)]
    worker.model.gate.open()
    assert await worker.answers([first, *rest]) == ["first", 0, 1, 2]
    assert worker.model.seen == [["first"], [0, 1, 2]]


async def test_a_batch_that_is_not_full_waits_for_the_delay() -> None:
    worker = Batched(recorded(doubled), delay=0.05)
    began = asyncio.get_running_loop().time()
    first = worker.call(1)
    await worker.wire.over(worker.call(2))
    assert asyncio.get_running_loop().time() - began >= 0.05
    assert await worker.answers([first]) == [2]
    assert worker.model.seen == [[1, 2]]


async def test_a_full_batch_does_not_wait_for_the_delay() -> None:
    worker = Batched(recorded(doubled), delay=3600.0)
    assert await worker.answers([worker.call(number) for number in range(4)]) == [0, 2, 4, 6]


@pytest.mark.parametrize("kind", ["sync", "async", "returns a coroutine"])
async def test_all_kinds_of_methods_take_batches(kind: str) -> None:
    async def later(inputs: list[Any]) -> list[Any]:
        await asyncio.sleep(0)
        return inputs

    class Model:
        if kind == "async":

            async def predict_batch(self, inputs: list[Any]) -> list[Any]:
                return await later(inputs)

        else:

            def predict_batch(self, inputs: list[Any]) -> Any:
                return later(inputs) if kind != "sync" else tuple(inputs)

    worker = Batched(Model)
    assert await worker.answers([worker.call("a"), worker.call("b")]) == ["a", "b"]


async def test_only_items_with_equal_keys_share_a_batch_within_the_budget_and_the_largest_comes_first() -> None:
    class Model:
        def __init__(self) -> None:
            self.seen = list[Any]()

        def language(self, item: dict[str, Any]) -> str:
            return str(item["language"])

        async def tokens(self, item: dict[str, Any]) -> int:
            return len(item["text"])

        def predict_batch(self, inputs: list[Any]) -> list[Any]:
            self.seen.append([each["text"] for each in inputs])
            return [each["text"] for each in inputs]

    worker = Batched(Model, size=8, key="language", cost="tokens", budget=6, sort=True)
    texts = [("en", "a"), ("de", "bb"), ("en", "ccc"), ("en", "dd"), ("en", "eeeeeeeee")]
    calls = [worker.call({"language": language, "text": text}) for language, text in texts]
    assert await worker.answers(calls) == [text for _, text in texts]
    assert sorted(worker.model.seen) == sorted([["ccc", "dd", "a"], ["bb"], ["eeeeeeeee"]])


@pytest.mark.parametrize(("value", "told"), [("many", "returned a str, not a number"), (-1, "not a number")])
async def test_a_cost_that_is_no_number_is_an_error_of_its_call_only(value: Any, told: str) -> None:
    class Model:
        def cost(self, item: Any) -> Any:
            return value if item == "bad" else 1

        def predict_batch(self, inputs: list[Any]) -> list[Any]:
            return inputs

    worker = Batched(Model, cost="cost", budget=3)
    good, (code, message) = await worker.answers([worker.call("good"), worker.call("bad")])
    assert (good, code) == ("good", "invalid_model_output")
    assert told in message


async def test_a_key_that_cannot_be_hashed_is_an_error_that_says_what_to_return() -> None:
    class Model:
        def shape(self, item: Any) -> Any:
            return [1, 2]

        def predict_batch(self, inputs: list[Any]) -> list[Any]:
            return inputs

    worker = Batched(Model, key="shape")
    [(code, message)] = await worker.answers([worker.call(1)])
    assert code == "invalid_model_output" and "batch_key: shape returned a list" in message and "tuple" in message


async def test_two_batches_run_at_once_if_the_model_says_so() -> None:
    class Model:
        def __init__(self) -> None:
            self.both = asyncio.Barrier(2)

        async def predict_batch(self, inputs: list[Any]) -> list[Any]:
            await self.both.wait()
            return inputs

    worker = Batched(Model, size=2, concurrency=2)
    assert await worker.answers([worker.call(number) for number in range(4)]) == [0, 1, 2, 3]
    assert worker.executor.slots._free == 6


async def test_a_full_batch_begins_without_the_event_loop_and_one_that_leaves_before_is_not_in_it() -> None:
    class Model:
        def __init__(self) -> None:
            self.gate, self.last = Gate(), threading.Event()
            self.seen: list[list[int]] = []

        def predict_batch(self, inputs: list[int]) -> list[int]:
            self.seen.append(inputs)
            if inputs == [1, 2]:
                self.gate.wait()
            if 4 in inputs:
                self.last.set()
            return inputs

    worker = Batched(Model, size=2)
    model: Any = worker.model
    assert await worker.answers([worker.call(0)]) == [0]
    calls = [worker.call(1), worker.call(2)]
    await model.gate.reached()
    calls += [worker.call(3), worker.call(4)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert [each.calls for each in worker.batches] == [[1], [2, 3]]  # it has not begun
    worker.executor.cancel(calls[2])
    assert [kind for kind, _ in await worker.wire.over(calls[2])] == [wire.END]  # while the first one runs
    model.gate.open()
    assert model.last.wait(10)  # the event loop does not run meanwhile
    assert await worker.answers([calls[0], calls[1], calls[3]]) == [1, 2, 4]
    assert model.seen == [[0], [1, 2], [4]]
    assert [each.calls for each in worker.batches] == [[1], [2, 3], [5]]
    assert worker.executor.slots._free == 4 and worker.executor._descriptor.batcher._free == 1


async def test_a_batch_that_is_not_full_starts_beside_another_only_when_that_has_run_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Model:
        def __init__(self) -> None:
            self.gates = [Gate(), Gate()]
            self.seen: list[list[int]] = []

        async def predict_batch(self, inputs: list[int]) -> list[int]:
            self.seen.append(inputs)
            await self.gates[len(self.seen) - 1].wait_async()
            return inputs

    worker = Batched(Model, concurrency=2)
    model: Any = worker.model
    monkeypatch.setattr(runner, "BESIDE", 3600.0)
    calls = [worker.call(0)]
    await model.gates[0].reached()
    calls += [worker.call(1), worker.call(2), worker.call(3)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert model.seen == [[0]]
    calls.append(worker.call(4))
    await model.gates[1].reached()
    assert model.seen == [[0], [1, 2, 3, 4]]
    for gate in model.gates:
        gate.open()
    assert await worker.answers(calls) == [0, 1, 2, 3, 4]

    monkeypatch.setattr(runner, "BESIDE", 0.002)
    again = Batched(Model, concurrency=2)
    model = again.model
    calls = [again.call(0)]
    await model.gates[0].reached()
    calls.append(again.call(1))
    await model.gates[1].reached()  # the first one does not end
    model.gates[1].open()
    assert await again.answers(calls[1:]) == [1]
    model.gates[0].open()
    assert await again.answers(calls[:1]) == [0]


# ── outcomes ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_exception_instance_is_the_error_of_its_item_only() -> None:
    worker = Batched(recorded(lambda _, inputs: [BadRequest("too odd") if one % 2 else one for one in inputs]))
    answers = await worker.answers([worker.call(number) for number in range(4)])
    assert answers == [0, ("invalid_value", "too odd"), 2, ("invalid_value", "too odd")]
    assert len(worker.model.seen) == 1


async def test_a_batch_that_raises_is_isolated_and_only_the_bad_item_fails() -> None:
    worker = Batched(recorded(lambda _, inputs: [1 // number for number in inputs]))
    assert await worker.answers([worker.call(number) for number in (1, 0, 1)]) == [
        1,
        ("model_error", "Internal Server Error (in model/chainlet)."),
        1,
    ]
    assert worker.model.seen == [[1, 0, 1], [1], [0], [1]]
    assert [(batch.calls, len(batch.waits), batch.is_again) for batch in worker.batches] == [
        ([1, 2, 3], 3, False),
        ([1, 2, 3], 0, True),
    ]


async def test_a_batch_of_one_that_raises_is_not_run_again() -> None:
    worker = Batched(recorded(lambda _, inputs: [1 // number for number in inputs]))
    [(code, _)] = await worker.answers([worker.call(0)])
    assert (code, worker.model.seen) == ("model_error", [[0]])


async def test_with_fail_the_error_of_a_batch_is_that_of_all_items(capsys: pytest.CaptureFixture[str]) -> None:
    worker = Batched(recorded(lambda _, inputs: [1 // number for number in inputs]), on_error="fail")
    answers = await worker.answers([worker.call(number) for number in (1, 0, 1)])
    assert [code for code, _ in answers] == ["model_error"] * 3
    assert len(worker.model.seen) == 1
    logged = capsys.readouterr().err
    assert logged.count("Traceback") == 1 and logged.count("predict: the batch failed, see [r1]") == 2


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ([1], "predict_batch was given 2 inputs and returned 1 result"),
        ([1, 2, 3], "predict_batch was given 2 inputs and returned 3 results"),
        (None, "predict_batch was given 2 inputs and returned None, not a list with a result for each"),
        ("ab", "predict_batch was given 2 inputs and returned a str, not a list with a result for each"),
        ({"a": 1, "b": 2}, "predict_batch was given 2 inputs and returned a dict, not a list with a result for each"),
    ],
)
async def test_a_wrong_number_of_results_is_named_for_all_and_not_tried_again(result: Any, told: str) -> None:
    worker = Batched(recorded(lambda _, inputs: result))
    answers = await worker.answers([worker.call(1), worker.call(2)])
    assert answers == [("invalid_model_output", told)] * 2
    assert len(worker.model.seen) == 1


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


async def test_out_of_memory_halves_a_batch_once_and_the_size_is_remembered() -> None:
    def limited(_: Any, inputs: list[int]) -> list[int]:
        if len(inputs) > 2:
            raise OutOfMemoryError("no room")
        return inputs

    worker = Batched(recorded(limited))
    assert await worker.answers([worker.call(number) for number in range(4)]) == [0, 1, 2, 3]
    assert worker.model.seen == [[0, 1, 2, 3], [0, 1], [2, 3]]
    assert await worker.answers([worker.call(number) for number in range(4)]) == [0, 1, 2, 3]
    assert worker.model.seen[3:] == [[0, 1], [2, 3]]


async def test_a_half_that_runs_out_of_memory_again_is_isolated() -> None:
    def limited(_: Any, inputs: list[int]) -> list[int]:
        if len(inputs) > 1 or inputs == [9]:
            raise OutOfMemoryError("no room")
        return inputs

    worker = Batched(recorded(limited), size=8)
    answers = await worker.answers([worker.call(number) for number in (1, 9, 2, 3, 4, 5, 6, 7)])
    told = [answer if isinstance(answer, int) else answer[0] for answer in answers]
    assert told == [1, "insufficient_memory", 2, 3, 4, 5, 6, 7]
    alone = [[number] for number in (1, 9, 2, 3)], [[number] for number in (4, 5, 6, 7)]
    assert worker.model.seen[1:] == [[1, 9, 2, 3], *alone[0], [4, 5, 6, 7], *alone[1]]


async def test_a_lost_device_is_not_tried_item_by_item() -> None:
    def lost(_: Any, inputs: list[int]) -> list[int]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    worker = Batched(recorded(lost))
    answers = await worker.answers([worker.call(1), worker.call(2)])
    assert [code for code, _ in answers] == ["model_error"] * 2
    assert len(worker.model.seen) == 1


async def test_an_exit_in_a_batch_ends_its_calls_and_the_next_batch_runs() -> None:
    def leaves(_: Any, inputs: list[Any]) -> list[Any]:
        if "exit" in inputs:
            raise SystemExit(3)
        return inputs

    worker = Batched(recorded(leaves))
    answers = await worker.answers([worker.call("exit"), worker.call(1)])
    assert [code for code, _ in answers] == ["model_error"] * 2
    assert await worker.answers([worker.call(2)]) == [2]
    assert worker.free_slots == 8


# ── around the batch ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_hooks_run_for_each_item_and_one_that_fails_there_enters_no_batch() -> None:
    class Model:
        def __init__(self) -> None:
            self.seen = list[Any]()

        def preprocess(self, x: Any) -> Any:
            if x == "bad":
                raise BadRequest("not this")
            return x + 1

        def predict_batch(self, inputs: list[Any]) -> list[Any]:
            self.seen.append(list(inputs))
            return inputs

        def postprocess(self, x: Any) -> Any:
            return {"value": x}

    worker = Batched(Model, delay=0.02)
    calls = [worker.call(1), worker.call("bad"), worker.call(2)]
    assert await worker.answers(calls) == [{"value": 2}, ("invalid_value", "not this"), {"value": 3}]
    assert sorted(number for batch in worker.model.seen for number in batch) == [2, 3]


async def test_requests_come_as_a_parallel_list_if_the_method_asks_for_them() -> None:
    class Model:
        def predict_batch(self, inputs: list[Any], requests: list[Request]) -> list[Any]:
            return [f"{value} of {each.headers['x-tenant']}" for value, each in zip(inputs, requests, strict=True)]

    worker = Batched(Model)
    calls = [worker.call(number, scope=SCOPE) for number in range(2)]
    assert await worker.answers(calls) == ["0 of 7", "1 of 7"]


async def test_without_a_size_a_batch_method_gets_one_item_at_a_time_and_a_single_one_is_preferred() -> None:
    worker = Batched(recorded(doubled), slots=1, size=None)
    assert await worker.answers([worker.call(number) for number in range(3)]) == [0, 2, 4]
    assert worker.model.seen == [[0], [1], [2]]
    assert worker.batches == []

    class Both(recorded(doubled)):  # type: ignore[misc]
        def predict(self, x: Any) -> Any:
            return "single"

    both = Batched(Both, slots=1, size=None)
    assert await both.answers([both.call(1)]) == ["single"]
    assert await (batched := Batched(Both)).answers([batched.call(1)]) == [2]


async def test_methods_without_batches_take_turns_with_the_batches() -> None:
    class Model:
        def __init__(self) -> None:
            self.running = self.most = 0
            self.lock = asyncio.Lock()

        async def _one(self) -> None:
            self.running += 1
            self.most = max(self.most, self.running)
            await asyncio.sleep(0)
            self.running -= 1

        async def predict_batch(self, inputs: list[Any]) -> list[Any]:
            await self._one()
            return inputs

        async def chat_completions(self, body: Any) -> Any:
            await self._one()
            yield "a"
            await self._one()
            yield "b"

    worker = Batched(Model)
    chats = [worker.chat({}) for _ in range(2)]
    assert await worker.answers([worker.call(number) for number in range(5)]) == [0, 1, 2, 3, 4]
    for chat in chats:
        await worker.wire.over(chat)
        assert worker.wire.items(chat) == ["a", "b"]
    assert worker.model.most == 1


async def test_methods_that_take_turns_get_their_arguments_whatever_they_are() -> None:
    class Model:
        def embeddings_batch(self, inputs: list[Any]) -> list[Any]:
            return inputs

        def predict(self) -> str:
            return "nothing"

        def completions(self, request: Request) -> str:
            return request.headers["x-tenant"]

        def chat_completions(self, body: Any, request: Request) -> Any:
            return {"body": body, "tenant": request.headers["x-tenant"]}

    worker = Batched(Model)
    assert await worker.answers([worker.call(1)]) == ["nothing"]
    assert await worker.wire.reply(worker.call({}, "completions", scope=SCOPE)) == "7"
    assert await worker.wire.reply(worker.call({"a": 1}, "chat_completions", scope=SCOPE)) == {
        "body": {"a": 1},
        "tenant": "7",
    }


async def test_an_own_number_of_slots_lets_other_methods_run_beside_each_other() -> None:
    class Model:
        def __init__(self) -> None:
            self.both = asyncio.Barrier(2)

        def predict_batch(self, inputs: list[Any]) -> list[Any]:
            return inputs

        async def embeddings(self, body: Any) -> Any:
            await self.both.wait()
            return [1.0]

    worker = Batched(Model, slots=2)
    calls = [worker.call({"input": ["a"]}, "embeddings") for _ in range(2)]
    for call in calls:
        assert await worker.wire.reply(call) is not None


async def test_a_class_that_is_swapped_answers_in_batches_with_its_new_code() -> None:
    class Old:
        def predict_batch(self, inputs: list[Any]) -> list[Any]:
            return ["old" for _ in inputs]

    class New:
        def predict_batch(self, inputs: list[Any]) -> list[Any]:
            return ["new" for _ in inputs]

    worker = Batched(Old)
    spec = ModelSpec(name="m", target="", root=Path("/nowhere"), batching=Batching(size=4))
    assert await worker.answers([worker.call(1)]) == ["old"]
    found = inspect_model(New(), METHODS, spec, worker.executor._descriptor.batcher)
    worker.executor._use(found)
    assert await worker.answers([worker.call(1), worker.call(2)]) == ["new", "new"]
    assert found.batcher is worker.executor._descriptor.batcher


# ── requests with lists ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_text_of_an_embeddings_request_is_an_item() -> None:
    class Model:
        def __init__(self) -> None:
            self.seen = list[Any]()

        def embeddings_batch(self, inputs: list[Any]) -> list[Any]:
            self.seen.append([each["input"] for each in inputs])
            return [[float(len(each["input"])), each["dimensions"]] for each in inputs]

    worker = Batched(Model)
    many = worker.call({"input": ["a", "bb", "ccc", "dddd", "eeeee"], "dimensions": 1}, "embeddings")
    single = worker.call({"input": ["x"], "dimensions": 2}, "embeddings")
    assert await worker.wire.reply(many) == [[1, 1], [2, 1], [3, 1], [4, 1], [5, 1]]
    assert await worker.wire.reply(single) == [[1, 2]]
    assert worker.model.seen == [["a", "bb", "x", "ccc"], ["dddd", "eeeee"]]
    assert [(batch.calls, len(batch.waits)) for batch in worker.batches] == [([1, 2], 4), ([1], 2)]


async def test_a_text_that_fails_fails_its_own_request_only_and_the_rest_of_it_is_not_run() -> None:
    class Model:
        def __init__(self) -> None:
            self.seen = list[Any]()

        def embeddings_batch(self, inputs: list[Any]) -> list[Any]:
            self.seen += [each["input"] for each in inputs]
            return [BadRequest("no") if each["input"] == "bad" else [1.0] for each in inputs]

    worker = Batched(Model)
    bad = worker.call({"input": ["bad", *"abcdefgh"]}, "embeddings")
    good = worker.call({"input": ["x", "y"]}, "embeddings")
    assert (await worker.wire.error(bad)).message == "no"
    assert await worker.wire.reply(good) == [[1], [1]]
    await worker.idle()
    assert worker.model.seen == ["bad", "a", "x", "y"]


@pytest.mark.parametrize(
    ("method", "body", "items", "results", "answer"),
    [
        ("embeddings", {"input": ["a"]}, ["a"], [{"embedding": [1.0], "usage": {"prompt_tokens": 3}}], None),
        ("classify", {"input": ["a", "b"]}, ["a", "b"], [{"x": 0.1}, {"y": 0.9}], [{"x": 0.1}, {"y": 0.9}]),
        ("moderations", {"input": ["a", "b"]}, ["a", "b"], [True, False], [True, False]),
        ("rerank", {"query": "q", "documents": ["a", "b"]}, ["a", "b"], [0.5, {"score": 1}], None),
        ("score", {"text_1": ["q", "q"], "text_2": ["a", "b"]}, ["a", "b"], [0.5, 0.25], [0.5, 0.25]),
    ],
)
async def test_the_routes_with_lists_are_split_and_joined(
    method: str, body: Any, items: list[str], results: list[Any], answer: Any
) -> None:
    seen: list[Any] = []

    def batch(self: Any, inputs: list[Any]) -> list[Any]:
        seen.extend(inputs)
        return results

    worker = Batched(type("Model", (), {f"{method}_batch": batch}))
    found = await worker.wire.reply(worker.call(body, method))
    name = {"rerank": "document", "score": "text_2"}.get(method, "input")
    assert [each[name] for each in seen] == items
    if method == "embeddings":
        answer = {"data": [{"embedding": [1.0]}], "usage": {"prompt_tokens": 3}}
    if method == "rerank":
        answer = [0.5, {"score": 1, "index": 1}]
        assert all(each["query"] == "q" and "documents" not in each for each in seen)
    assert found == answer


@pytest.mark.parametrize(
    ("method", "lists", "parts"),
    [
        ("embeddings", {"input": ["a"] * 2000}, "inputs"),
        ("classify", {"input": ["a"] * 2000}, "inputs"),
        ("moderations", {"input": ["a"] * 2000}, "inputs"),
        ("rerank", {"query": "q", "documents": ["a"] * 2000}, "documents"),
        ("score", {"text_1": ["q"] * 2000, "text_2": ["a"] * 2000}, "pairs"),
    ],
)
async def test_many_fields_are_not_copied_for_each_of_many_items(method: str, lists: Any, parts: str) -> None:
    worker = Batched(type("Model", (), {f"{method}_batch": lambda _, inputs: [[1.0] for _ in inputs]}), size=4096)
    fields = {f"f{number}": 1 for number in range(131 - len(lists))}
    refused = await worker.wire.error(worker.call({**lists, **fields, "g": 1}, method))
    assert (refused.status, refused.code) == (413, "request_too_large")
    assert f"132 fields for each of its 2000 {parts}, together more than 262144; leave out" in refused.message
    assert len(await worker.wire.reply(worker.call({**lists, **fields}, method))) == 2000


async def test_a_single_input_may_have_as_many_fields_as_its_request() -> None:
    worker = Batched(type("Model", (), {"embeddings_batch": lambda _, inputs: [[1.0] for _ in inputs]}))
    fields = {f"f{number}": 1 for number in range(MOST_COPIES + 1)}
    assert await worker.wire.reply(worker.call({"input": ["a"], **fields}, "embeddings")) == [[1]]


# ── streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def chat_model(kind: str, steps: Callable[[list[Any]], Any]) -> type:
    class Sync:
        def __init__(self) -> None:
            self.closed = 0

        def chat_completions_batch(self, inputs: list[Any]) -> Any:
            try:
                yield from steps(inputs)
            finally:
                self.closed += 1

    class Async(Sync):
        async def chat_completions_batch(self, inputs: list[Any]) -> Any:
            try:
                for step in steps(inputs):
                    yield step
                    await asyncio.sleep(0)
            finally:
                self.closed += 1

    return Sync if kind == "sync" else Async


kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@kinds
async def test_each_step_has_an_element_for_each_stream_and_each_may_end_for_itself(kind: str) -> None:
    def steps(inputs: list[Any]) -> Any:
        yield ["a1", "b1", "c1"]
        yield [None, END, "c2"]
        yield ["a2", None, ValueError("c fails")]
        yield ["a3", "never", None]

    worker = Batched(chat_model(kind, steps))
    calls = [worker.chat(name) for name in "abc"]
    ends = [(await worker.wire.over(call))[-1][0] for call in calls]
    assert (await worker.wire.error(calls[2])).code == "model_error"
    assert [worker.wire.items(call) for call in calls] == [["a1", "a2", "a3"], ["b1"], ["c1", "c2"]]
    assert ends == [wire.END, wire.END, ERROR]
    await worker.idle()
    assert (worker.model.closed, worker.free_slots) == (1, 8)


@kinds
async def test_a_stop_iteration_ends_a_stream_like_end_and_the_last_end_closes_the_generator(kind: str) -> None:
    went_on = []

    def steps(inputs: list[Any]) -> Any:
        yield ["a", "b"]
        yield [StopIteration, END]
        went_on.append("nobody reads any more")

    worker = Batched(chat_model(kind, steps))
    for call in [worker.chat("a"), worker.chat("b")]:
        assert (await worker.wire.over(call))[-1][0] == wire.END
    await worker.idle()
    assert (worker.model.closed, went_on) == (1, [])


async def test_a_worker_is_idle_when_the_code_of_a_batch_has_stopped_whose_streams_have_ended() -> None:
    gate, ended = Gate(), []

    class Model:
        def chat_completions_batch(self, inputs: list[Any]) -> Any:
            try:
                yield [END for _ in inputs]
            finally:
                gate.wait()
                ended.append(True)

    worker = Batched(Model)
    await worker.wire.over(worker.chat("a"))
    idle = asyncio.create_task(worker.idle())
    await gate.reached()
    assert not idle.done()
    gate.open()
    await idle
    assert ended == [True]


async def test_a_batch_waits_for_a_client_that_is_far_behind_and_goes_on_when_it_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "MOST_AHEAD", 10)
    made = []

    class Model:
        async def chat_completions_batch(self, inputs: list[Any]) -> Any:
            for number in range(200):
                made.append(number)
                yield [number for _ in inputs]

    worker = Batched(Model)
    slow, gone = worker.chat("slow"), worker.chat("gone")
    await worker.wire.until(lambda: len(worker.wire.items(slow)) == wire.WINDOW_ITEMS)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(made) <= wire.WINDOW_ITEMS + 12
    worker.executor.cancel(gone)
    while not worker.wire.is_over(slow):
        worker.executor.grant(slow, 1, 1)
        await asyncio.sleep(0)
    assert worker.wire.items(slow) == list(range(200))


@kinds
async def test_a_stream_that_raises_before_its_first_step_is_isolated(kind: str) -> None:
    def steps(inputs: list[Any]) -> Any:
        if "bad" in inputs:
            raise BadRequest("not this one")
        yield list(inputs)

    worker = Batched(chat_model(kind, steps))
    calls = [worker.chat(name) for name in ("a", "bad", "c")]
    assert (await worker.wire.error(calls[1])).message == "not this one"
    for call, name in ((calls[0], "a"), (calls[2], "c")):
        await worker.wire.over(call)
        assert worker.wire.items(call) == [name]


@kinds
async def test_a_stream_that_raises_later_fails_for_those_that_are_open(kind: str) -> None:
    def steps(inputs: list[Any]) -> Any:
        yield ["a", "b"]
        yield [END, "b2"]
        raise ValueError("broken")

    worker = Batched(chat_model(kind, steps))
    first, second = worker.chat("a"), worker.chat("b")
    assert (await worker.wire.over(first))[-1][0] == wire.END
    assert (await worker.wire.error(second)).code == "model_error"
    assert worker.wire.items(second) == ["b", "b2"]


@kinds
async def test_a_step_of_a_wrong_length_is_named(kind: str) -> None:
    worker = Batched(chat_model(kind, lambda inputs: iter([["only one"]])))
    calls = [worker.chat("a"), worker.chat("b")]
    for call in calls:
        assert (
            "chat_completions_batch was given 2 inputs and returned 1 result" in (await worker.wire.error(call)).message
        )


async def test_the_return_value_of_a_generator_is_a_last_step() -> None:
    def steps(inputs: list[Any]) -> Any:
        yield list(inputs)
        return [{"usage": {"prompt_tokens": 1}} for _ in inputs]

    class Model:
        def chat_completions_batch(self, inputs: list[Any]) -> Any:
            return steps(inputs)

    worker = Batched(Model)
    call = worker.chat("a")
    await worker.wire.over(call)
    assert worker.wire.items(call) == ["a", {"usage": {"prompt_tokens": 1}}]


async def test_embeddings_cannot_be_streamed_in_batches() -> None:
    class Model:
        def embeddings_batch(self, inputs: list[Any]) -> Any:
            yield [[1.0] for _ in inputs]

    worker = Batched(Model)
    failure = await worker.wire.error(worker.call({"input": ["a", "b"]}, "embeddings"))
    assert failure.code == "invalid_model_output" and "embeddings_batch must return a list" in failure.message


# ── cancels ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Held:
    """Its batches wait at a gate."""

    def __init__(self) -> None:
        self.gate, self.seen, self.cancelled = Gate(), list[Any](), 0

    async def predict_batch(self, inputs: list[Any]) -> list[Any]:
        self.seen.append(list(inputs))
        try:
            await self.gate.wait_async()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return inputs


async def test_a_call_that_is_cancelled_in_the_queue_enters_no_batch() -> None:
    worker = Batched(Held)
    first = worker.call("first")
    await worker.model.gate.reached()
    gone, stays = worker.call("gone"), worker.call("stays")
    for _ in range(5):
        await asyncio.sleep(0)
    worker.executor.cancel(gone)
    assert [kind for kind, _ in await worker.wire.over(gone)] == [wire.END]
    worker.model.gate.open()
    assert await worker.answers([first, stays]) == ["first", "stays"]
    assert worker.model.seen == [["first"], ["stays"]]


async def test_a_call_that_is_cancelled_in_a_batch_holds_its_slot_until_the_batch_ends() -> None:
    worker = Batched(Held)
    gone, stays = worker.call("gone"), worker.call("stays")
    await worker.model.gate.reached()
    worker.executor.cancel(gone)
    for _ in range(5):
        await asyncio.sleep(0)
    assert (worker.wire.is_over(gone), worker.free_slots) == (False, 6)
    worker.model.gate.open()
    assert await worker.answers([stays]) == ["stays"]
    assert [kind for kind, _ in await worker.wire.over(gone)] == [wire.END]
    assert (worker.model.cancelled, worker.free_slots) == (0, 8)


async def test_a_batch_that_nobody_waits_for_is_cancelled_and_the_next_one_runs() -> None:
    worker = Batched(Held)
    calls = [worker.call(number) for number in range(2)]
    await worker.model.gate.reached()
    for call in calls:
        worker.executor.cancel(call)
    for call in calls:
        assert [kind for kind, _ in await worker.wire.over(call)] == [wire.END]
    assert worker.model.cancelled == 1
    worker.model.gate.open()
    assert await worker.answers([worker.call("next")]) == ["next"]
    assert worker.free_slots == 8


async def test_a_cancelled_item_is_not_run_when_its_batch_is_isolated() -> None:
    class Model(Held):
        async def predict_batch(self, inputs: list[Any]) -> list[Any]:
            self.seen.append(list(inputs))
            if len(inputs) > 1:
                await self.gate.wait_async()
                raise ValueError("together")
            return inputs

    worker = Batched(Model)
    gone, stays = worker.call("gone"), worker.call("stays")
    await worker.model.gate.reached()
    worker.executor.cancel(gone)
    worker.model.gate.open()
    assert await worker.answers([stays]) == ["stays"]
    assert [kind for kind, _ in await worker.wire.over(gone)] == [wire.END]
    assert worker.model.seen == [["gone", "stays"], ["stays"]]


async def test_a_sync_batch_that_nobody_waits_for_runs_to_its_end() -> None:
    class Model:
        def __init__(self) -> None:
            self.gate, self.ended = Gate(), 0

        def predict_batch(self, inputs: list[Any]) -> list[Any]:
            self.gate.wait()
            self.ended += 1
            return inputs

    worker = Batched(Model)
    call = worker.call(1)
    await worker.model.gate.reached()
    worker.executor.cancel(call)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not worker.wire.is_over(call)
    worker.model.gate.open()
    assert [kind for kind, _ in await worker.wire.over(call)] == [wire.END]
    assert (worker.model.ended, worker.free_slots) == (1, 8)


@kinds
async def test_a_stream_whose_client_leaves_ends_with_its_batch_and_the_others_go_on(kind: str) -> None:
    gate = Gate()

    def steps(inputs: list[Any]) -> Any:
        yield list(inputs)
        if kind == "sync":
            gate.wait()
        yield [f"{each}2" for each in inputs]

    worker = Batched(chat_model(kind, steps))
    gone, stays = worker.chat("gone"), worker.chat("stays")
    await worker.wire.until(lambda: bool(worker.wire.items(gone)))
    worker.executor.cancel(gone)
    gate.open()
    await worker.wire.over(stays)
    await worker.wire.over(gone)
    assert worker.wire.items(stays) == ["stays", "stays2"]
    assert worker.wire.items(gone) == ["gone"]
    await worker.idle()
    assert (worker.model.closed, worker.free_slots) == (1, 8)


@kinds
async def test_streams_that_nobody_reads_close_the_generator(kind: str) -> None:
    def steps(inputs: list[Any]) -> Any:
        while True:
            yield list(inputs)

    worker = Batched(chat_model(kind, steps))
    calls = [worker.chat("a"), worker.chat("b")]
    for call in calls:
        await worker.wire.until(lambda call=call: bool(worker.wire.items(call)))  # type: ignore[misc]
    for call in calls:
        worker.executor.cancel(call)
    for call in calls:
        await worker.wire.over(call)
    assert (worker.model.closed, worker.free_slots) == (1, 8)


async def test_a_request_with_a_list_that_is_cancelled_takes_the_rest_of_its_items_out() -> None:
    class Model(Held):
        async def embeddings_batch(self, inputs: list[Any]) -> list[Any]:
            self.seen += [each["input"] for each in inputs]
            await self.gate.wait_async()
            return [[1.0] for _ in inputs]

    worker = Batched(Model)
    bulk = worker.call({"input": list("abcdefgh")}, "embeddings")
    await worker.model.gate.reached()
    other = worker.call({"input": ["x"]}, "embeddings")
    worker.executor.cancel(bulk)
    worker.model.gate.open()
    await worker.wire.over(bulk)
    assert await worker.wire.reply(other) == [[1]]
    assert worker.model.seen == ["a", "b", "c", "d", "x"]


async def test_a_result_after_a_stream_in_the_pipeline_is_refused_and_the_batch_is_over() -> None:
    class Model:
        def predict_batch(self, inputs: list[Any]) -> Any:
            while True:
                yield list(inputs)

        def postprocess(self, x: Any) -> Any:
            return x

    worker = Batched(Model)
    assert (await worker.wire.error(worker.call(1))).code == "model_error"
    await worker.idle()
    assert worker.free_slots == 8


async def test_the_call_that_a_batch_answers_with_a_response_is_sent_unchanged() -> None:
    from starlette.responses import Response

    worker = Batched(recorded(lambda _, inputs: [Response(f"<{each}>", 201) for each in inputs]))
    kind, (head, body) = (await worker.wire.over(worker.call(1)))[-1]
    assert (kind, head.status, body) == (RESP, 201, b"<1>")
