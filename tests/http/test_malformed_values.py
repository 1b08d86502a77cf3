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

from gateway.dialects import system_one
from gateway.dialects.anthropic import count_tokens, messages
from gateway.dialects.openai import completions, decisions, images, input_tokens, moderations, speech, transcriptions
from gateway.dialects.responses import route
from gateway.dialects.scoring import classify, rerank, score, tokenize
from gateway.errors import InvalidOutput
from gateway.wire.frames import BYTES, Resp
from gateway.wire.values import Array, Structured, encode

Serve = Callable[..., Served]
Path = tuple[str | int, ...]
ROUTES: list[ModuleType] = [messages, speech, transcriptions, classify, images, moderations, decisions, system_one]
ROUTES += [completions, route, rerank, score, tokenize, count_tokens, input_tokens]
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
WHICH = {"type": "choice", "instructions": "a?", "choices": [{"value": "x", "description": "y"}, {"value": True}]}
WHETHER = {"type": "predicate", "instructions": [{"type": "input_text", "text": "a?"}]}
HOW_MUCH = {"type": "score", "instructions": "a?", "levels": [{"label": "x"}, {"label": "y"}]}
NAMED = {
    "a": {"type": "choice", "instructions": "a?", "criteria": {"x": "y", "z": None}},
    "b": {"type": "noul", "instructions": "a?"},
}
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
    "/v1/decisions": ("decide", {"input": "a", "questions": [WHICH, WHETHER]}, {"answers": [{"x": 0.5}, 0.5]}),
    "/v1/systemone": ("decide", {"state": "a", "questions": NAMED}, {"answers": [{"x": 0.5}, 0.5]}),
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


# ── values in requests ───────────────────────────────────────────────────────────────────────────────────────────────

IN_JSON: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    1e300,
    2**64,
    "",
    "x",
    [],
    ["x"],
    [None],
    [[]],
    [{}],
    {},
    {"a": 1},
    {"id": []},
]
KINDS: list[Any] = [None, 5, "", ["x"], {"a": 1}]  # one of each
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}, "strict": True}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": True}}
SAMPLING = {
    "temperature": 1,
    "top_p": 1,
    "stop": ["x"],
    "seed": 1,
    "user": "u",
    "stream_options": {"include_usage": True},
}
TALK = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "x"},
        {"role": "user", "name": "n", "content": [{"type": "text", "text": "x"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x", "detail": "low"}}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "x"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": FORMAT,
    "logprobs": True,
    "top_logprobs": 1,
    "logit_bias": {"1": 1},
    "n": 1,
    "max_tokens": 5,
    **SAMPLING,
}
TURNS = {
    "model": "m",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {
            "role": "user",
            "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}}],
        },
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "x"}, BLOCKS[1]]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]}],
        },
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "metadata": {"user_id": "u"},
    "stop_sequences": ["x"],
    "top_k": 1,
}
ITEMS = {
    "model": "m",
    "input": [
        {
            "type": "message",
            "role": "user",
            "id": "msg_a",
            "status": "completed",
            "content": [{"type": "input_text", "text": "x"}],
        },
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:,x", "detail": "low"}]},
        {"role": "user", "content": [{"type": "input_file", "filename": "x", "file_data": "data:,x"}]},
        {"type": "reasoning", "id": "rs_a", "summary": [{"type": "summary_text", "text": "x"}]},
        {"type": "function_call", "id": "fc_a", "call_id": "c", "name": "f", "arguments": "{}"},
        {
            "type": "function_call_output",
            "id": "fco_a",
            "call_id": "c",
            "output": [{"type": "input_text", "text": "x"}],
        },
        {"type": "custom_tool_call", "id": "ctc_a", "call_id": "d", "name": "g", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": "x"},
        {
            "role": "assistant",
            "id": "msg_b",
            "content": [{"type": "output_text", "text": "x", "annotations": [], "logprobs": []}],
        },
    ],
    "instructions": "x",
    "tools": [{"type": "function", **FUNCTION}, {"type": "custom", "name": "g", "format": {"type": "text"}}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "s", "schema": {"type": "object"}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "include": ["message.output_text.logprobs"],
    "metadata": {"a": "b"},
    "top_logprobs": 1,
    "max_output_tokens": 5,
    "parallel_tool_calls": True,
    "truncation": "auto",
}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {  # of each route, the method that answers and a request
    "/v1/chat/completions": ("chat_completions", TALK),
    "/v1/messages": ("chat_completions", TURNS),
    "/v1/messages/count_tokens": (
        "chat_completions",
        {name: TURNS[name] for name in ("model", "system", "messages", "tools")},
    ),
    "/v1/responses": ("chat_completions", ITEMS),
    "/v1/responses/input_tokens": (
        "chat_completions",
        {name: ITEMS[name] for name in ("model", "input", "tools", "text")},
    ),
    "/v1/completions": (
        "completions",
        {
            "prompt": ["a", "b"],
            "suffix": "x",
            "logprobs": 1,
            "echo": False,
            "best_of": 1,
            "logit_bias": {"1": 1},
            **SAMPLING,
        },
    ),
    "/v1/embeddings": ("embeddings", {"input": ["a"], "encoding_format": "float", "dimensions": 1, "user": "u"}),
    "/v1/rerank": ("rerank", {"query": "a", "documents": ["b", {"text": "c"}], "top_n": 1, "return_documents": True}),
    "/v1/score": ("score", {"text_1": ["a"], "text_2": ["b"]}),
    "/v1/classify": ("classify", {"input": ["a"]}),
    "/v1/moderations": ("moderations", {"input": ["a", {"type": "text", "text": "x"}]}),
    "/v1/decisions": (
        "decide",
        {
            "input": [
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "function_call_output", "call_id": "c", "output": "o"},
            ],
            "questions": [WHICH, WHETHER, {**HOW_MUCH, "name": "n"}],
        },
    ),
    "/v1/systemone": ("decide", {"state": {"a": "b"}, "questions": NAMED}),
    "/v1/images/generations": (
        "images_generations",
        {"prompt": "a", "n": 1, "size": "1x1", "response_format": "b64_json"},
    ),
    "/v1/audio/speech": (
        "speech",
        {"input": "a", "voice": "x", "speed": 1, "response_format": "mp3", "instructions": "x"},
    ),
    "/v1/tokenize": ("tokenize", {"prompt": "a", "messages": None, "add_special_tokens": True}),
    "/v1/detokenize": ("detokenize", {"tokens": [1]}),
}


def odd_requests(path: str, values: list[Any] = IN_JSON) -> Iterator[tuple[Path, Any]]:
    """Yield requests with an odd value in one place, and that place."""
    _, good = REQUESTS[path]
    for at, odd in itertools.product(places(good), values):
        yield at, grafted(good, at, odd)


def refused_or_answered(served: Served, path: str, body: Any) -> Answer:
    answer = served.post(path, body)
    is_models = answer.status == 500 and b'"invalid_model_output"' in answer.body
    assert answer.status < 500 or is_models, (answer.status, body, answer.body)
    return answer


@pytest.mark.parametrize(
    ("path", "method"),
    [
        *((path, method) for path, (method, _) in REQUESTS.items()),
        ("/v1/messages", "messages"),
        ("/v1/responses", "responses"),
        ("/v1/rerank", "embeddings"),
        ("/v1/completions", "chat_completions"),
    ],
)
def test_whatever_stands_where_in_a_request_is_the_clients(serve: Serve, path: str, method: str) -> None:
    said = next(said for own, _, said in ASKED.values() if own == method)
    served = serve({"m": Model({method: lambda inputs: said})}, plugins=ROUTES)
    for _, odd in odd_requests(path):
        refused_or_answered(served, path, odd)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/input_tokens"])
def test_whatever_stands_in_a_field_of_chat_in_another_request_is_the_clients(serve: Serve, path: str) -> None:
    served = serve({"m": Model({"chat_completions": lambda inputs: "fine"})}, plugins=ROUTES)
    for name, odd in itertools.product(TALK.keys() - {"model"}, IN_JSON):
        refused_or_answered(served, path, {"input": "hi", name: odd})


@pytest.mark.parametrize("parameters", [{}, {"binary_data_size": 4}])
def test_tensors_that_no_computer_holds_are_the_clients(serve: Serve, parameters: dict[str, int]) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "array"}}}
    served = serve({"m": Model({"predict": lambda inputs: 1}, capabilities={"input_schema": schema})})
    for length, rank in itertools.product((2**63, 10**70, 10**4200), (1, 2, 32)):
        for shape in ([length] * rank, [0, *[length] * (rank - 1)], [*[length] * (rank - 1), 0]):
            written = {"name": "x", "datatype": "INT8", "shape": shape, "parameters": parameters}
            answer = served.post(
                "/v2/models/m/infer", {"inputs": [written if parameters else {**written, "data": [1]}]}
            )
            assert answer.status == 400, (answer.status, shape, answer.body)


@pytest.mark.parametrize("own", [False, True])
def test_whatever_stands_where_in_a_request_one_can_go_on_from_it(serve: Serve, own: bool) -> None:
    """From a response that is kept, to its items, and to those of a request with odd values that was answered."""
    path = "/v1/responses"
    methods = {"responses": lambda inputs: ASKED[path][2]} if own else {"chat_completions": lambda inputs: "fine"}
    served = serve({"m": Model(methods)}, plugins=ROUTES)
    first = served.post(path, {"input": "hi"}).json["id"]
    for at, odd in odd_requests(path, KINDS):
        if at[:1] != ("input",) or len(at) > 3:  # ids and types of items, and the items themselves
            continue
        refused_or_answered(served, path, {**odd, "previous_response_id": first})
        answer = refused_or_answered(served, path, odd)
        if answer.status != 200:
            continue
        kept = answer.json["id"]
        refused_or_answered(served, path, {"input": odd["input"], "previous_response_id": kept})
        listed = served.get(f"{path}/{kept}/input_items?limit=100")
        assert listed.status == 200, (odd, listed.body)
        ids = [item["id"] for item in listed.json["data"]]
        references = [{"type": "item_reference", "id": identity} for identity in ids]
        refused_or_answered(served, path, {"input": [*references[:1], {"role": "user", "content": "x"}]})
        refused_or_answered(served, path, {"input": references})
    for value in IN_JSON:
        refused_or_answered(served, path, {"input": "x", "previous_response_id": value})
        refused_or_answered(served, path, {"input": value, "previous_response_id": first})
