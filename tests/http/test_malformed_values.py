"""Values that make no sense, or that nobody can write: the client is told that it is the model's, and the gateway logs
no failure of its own. What no worker may send at all is in `runners/test_frames.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import http.client
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
from served import Answer, Model, Reply, Served

from gateway.dialects import (
    anthropic_messages,
    audio_speech,
    audio_transcriptions,
    classify,
    images,
    moderations,
    openai_completions,
    openai_responses,
    rerank,
    score,
    tokenize,
)
from gateway.errors import InvalidOutput
from gateway.wire import BYTES, Array, Resp, Structured, encode

Serve = Callable[..., Served]
Path = tuple[str | int, ...]
ROUTES: list[ModuleType] = [anthropic_messages, audio_speech, audio_transcriptions, classify, images, moderations]
ROUTES += [openai_completions, openai_responses, rerank, score, tokenize]
ODD: dict[str, Any] = {
    "keys": {1: 2, "content": 3},
    "a key": {None: 1},
    "a pair": {(1, 2): 3},
    "a key of bytes": {b"a": 1, "content": 3},
    "NaN": float("nan"),
    "a time": datetime(2026, 1, 1, tzinfo=UTC),
    "an array": Array((1, 2), b"\xff" * 8),
    "an instance": Structured({"content": {1: 2}}, "{"),
    "bytes": b"\xff",
    "a list": [[], 5],
    "a text": 'data: {"choices": [{"delta": {"content": "\\ud800"}}]}\n\n',
}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TOKEN = {"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "a", "logprob": -1.0, "bytes": None}]}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MESSAGE = {"content": "hi", "reasoning_content": "so", "tool_calls": [CALL]}
CHOICE = {"index": 0, "message": MESSAGE, "finish_reason": "stop", "logprobs": {"content": [TOKEN]}}
LISTS = {"tokens": ["x"], "token_logprobs": [-1.0], "top_logprobs": [{"x": -1.0}], "text_offset": [0]}
BLOCKS = [{"type": "text", "text": "x"}, {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]
WORDS = {"type": "message", "id": "i", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
LABELS = {"label": "x", "score": 0.5}
ASKED: dict[str, tuple[str, dict[str, Any], Any]] = {
    "/v1/chat/completions": (
        "chat_completions",
        {**CHAT, "logprobs": True},
        {"choices": [CHOICE], "usage": {"total": 1}},
    ),
    "/v1/completions": ("completions", {"prompt": "a", "logprobs": 1}, {"choices": [{"text": "x", "logprobs": LISTS}]}),
    "/v1/messages": ("messages", {**CHAT, "max_tokens": 5}, {"type": "message", "content": BLOCKS, "usage": {}}),
    "/v1/responses": ("responses", {"input": "a"}, {"object": "response", "output": [WORDS], "usage": {}}),
    "/v1/embeddings": ("embeddings", {"input": "a"}, {"data": [{"embedding": [0.5], "index": 0}]}),
    "/v1/rerank": ("rerank", {"query": "a", "documents": ["b"]}, {"results": [{"index": 0, "relevance_score": 0.5}]}),
    "/v1/score": ("score", {"text_1": "a", "text_2": "b"}, {"data": [{"index": 0, "score": 0.5}]}),
    "/v1/classify": ("classify", {"input": "a"}, [[LABELS]]),
    "/v1/moderations": ("moderations", {"input": "a"}, {"flagged": True, "category_scores": {"a": 0.5}}),
    "/v1/images/generations": ("images_generations", {"prompt": "a"}, {"data": [{"b64_json": "eA==", "more": "x"}]}),
    "/v1/audio/speech": ("speech", {"input": "a", "voice": "x"}, {"audio": b"x"}),
    "/v1/tokenize": ("tokenize", {"prompt": "a"}, {"tokens": [1], "count": 1}),
    "/v1/detokenize": ("detokenize", {"tokens": [1]}, {"prompt": "x"}),
}
STREAMED = tuple(ASKED)[:4]
BLOCK = {"type": "text", "text": "x", "citations": [{"a": 1}]}
TOOL = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
MADE = {"object": "response", "incomplete_details": {"reason": "content_filter"}, "usage": {"input_tokens": 1}}
EVENTS: dict[str, list[Any]] = {
    "/v1/messages": [
        {"type": "message_start", "message": {"id": "m", "content": [], "usage": {"input_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": BLOCK},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": {"b": 2}}},
        {"type": "content_block_start", "index": 1, "content_block": TOOL},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    ],
    "/v1/responses": [
        {"type": "response.created", "response": MADE},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "function_call", "name": "f"}},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{}"},
        {"type": "response.output_item.done", "item": {"type": "web_search_call", "id": "w", "status": "completed"}},
        {"type": "response.output_text.delta", "delta": "x", "logprobs": [TOKEN]},
        {"type": "response.incomplete", "response": {**MADE, "status": "incomplete"}},
    ],
}


@pytest.fixture(autouse=True)
def no_failure_of_ours(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.exc_info] == []


def places(value: Any, at: Path = ()) -> Iterator[Path]:
    yield at
    for step in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[step], (*at, step))


def grafted(value: Any, at: Path, odd: Any) -> Any:
    """A copy of the value with something else in that place."""
    if not at:
        return odd
    found = copy.copy(value)
    found[at[0]] = grafted(value[at[0]], at[1:], odd)
    return found


def is_ours(answer: Answer) -> bool:
    """Whether the gateway says that it has failed itself."""
    return answer.status not in (200, 500) or b"internal_error" in answer.body or b"the gateway failed" in answer.body


@pytest.mark.parametrize("path", ASKED)
def test_whatever_stands_where_in_an_answer_is_the_models(serve: Serve, path: str) -> None:
    method, body, good = ASKED[path]
    said: list[Any] = [good]
    served = serve({"m": Model({method: lambda inputs: said[-1]})}, plugins=ROUTES)
    assert served.post(path, {"model": "m", **body}).status == 200
    for at, (name, odd) in itertools.product(places(good), ODD.items()):
        said.append(grafted(good, at, odd))
        for stream in (False, True) if path in STREAMED else (False,):
            answer = served.post(path, {"model": "m", **body, "stream": stream})
            assert not is_ours(answer), (at, name, answer.body)


@pytest.mark.parametrize("path", EVENTS)
def test_whatever_stands_where_in_an_event_is_the_models(serve: Serve, path: str) -> None:
    method, body, _ = ASKED[path]
    said = EVENTS[path]

    async def items() -> AsyncIterator[Any]:
        for item in said:
            yield item

    served = serve({"m": Model({method: lambda inputs: items()})}, plugins=ROUTES)
    assert served.post(path, {"model": "m", **body}).status == 200
    for number, event in enumerate(EVENTS[path]):
        for at, (name, odd) in itertools.product(places(event), ODD.items()):
            said = [*EVENTS[path][:number], grafted(event, at, odd), *EVENTS[path][number + 1 :]]
            answer = served.post(path, {"model": "m", **body, "stream": True})
            assert not is_ours(answer), (number, at, name, answer.body)


def deepest(wrap: Callable[[Any], Any]) -> Any:
    """A value as deep as a worker could send it from here; whoever writes it stands deeper."""
    value: Any = "x"
    for _ in itertools.count():
        try:
            encode(wrap(value))
        except RecursionError:
            break
        value = [value]
    for _ in range(5):
        value = value[0]
    return wrap(value)


def called(arguments: Any) -> Any:
    return {"tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("how", ["whole", "at once", "item by item"])
def test_an_answer_that_is_nested_too_deep_to_be_written_is_the_models(serve: Serve, path: str, how: str) -> None:
    method, body, _ = ASKED[path]

    async def items() -> AsyncIterator[Any]:
        yield "a"
        while not model.calls[0].taken:  # noqa: ASYNC110  (a call tells only its reader)
            await asyncio.sleep(0)  # a batch of both would be an error before the head
        yield deepest(called)

    model = Model({method: lambda inputs: items() if how == "item by item" else deepest(called)})
    answer = serve({"m": model}, plugins=ROUTES).post(path, {"model": "m", **body, "stream": how != "whole"})
    assert b"nested too deep" in answer.body and not is_ours(answer)
    assert answer.status == (200 if how == "item by item" else 500)


ROWS = {"name": "rows", "datatype": "INT64", "shape": [1], "data": [1]}
SCHEMA = {"type": "object", "properties": {"rows": {"type": "array", "items": {"type": "integer"}}}}


@pytest.mark.parametrize("binary", [False, True])
def test_a_predict_that_fits_into_no_tensors_is_the_models(serve: Serve, binary: bool) -> None:
    said = [b'{"a": "\\ud800", "b": NaN}', b'{"a": ["\\ud800", null], "b": NaN}', b"[" * 5000, b'{"\\ud800": NaN}']
    said += [b'{"a": ' + b"[" * depth + b"{}" + b"]" * depth + b"}" for depth in (5000, *range(880, 1000))]
    said += [b"[" + b"9" * size + b"]" for size in (30, 5000)] + [b"{", b"", b"\xff"]
    replies = iter(said)
    model = Model({"predict": lambda inputs: Reply(next(replies))}, capabilities={"input_schema": SCHEMA})
    served = serve({"m": model})
    asked = {"inputs": [ROWS], "parameters": {"binary_data_output": binary}}
    codes = [(answer := served.post("/v2/models/m/infer", asked)).status for _ in said]
    assert set(codes) == {200, 500} and codes[0] == 500
    assert "fit into tensors" in json.loads(answer.body)["error"]


@pytest.mark.parametrize("length", ["2", "5"])
def test_a_response_that_is_not_as_long_as_it_says_is_the_models(
    serve: Serve, caplog: pytest.LogCaptureFixture, length: str
) -> None:
    async def predict(inputs: bytes) -> None:
        (call,) = model.calls
        call.on_resp(Resp(200, BYTES, True, False, "", [("content-length", length)], raw=True), b"")
        call.on_items([b"abc"], 3)
        model.players[0].end(call)
        raise asyncio.CancelledError

    model = Model({"predict": predict})
    served = serve({"m": model})
    with contextlib.suppress(http.client.IncompleteRead):
        served.post("/models/m/predict")
    served.wait_until(lambda: bool(caplog.records))
    (record,) = caplog.records
    assert record.__dict__["error"] == InvalidOutput.code and "than its content-length" in record.getMessage()
