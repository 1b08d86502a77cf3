"""T125, T126, T129: words of a client that the gateway repeats: in a call for the model, in a count, in an error."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from served import Model, Served

from gateway.dialects import system_one
from gateway.dialects.anthropic import count_tokens, messages
from gateway.dialects.openai import completions, decisions, images, input_tokens, moderations, speech
from gateway.dialects.responses import route
from gateway.dialects.scoring import classify, rerank, score, tokenize
from gateway.http.routes import calls, token_counts
from gateway.wire.values import encode

PLUGINS = [
    completions,
    messages,
    route,
    score,
    rerank,
    classify,
    moderations,
    decisions,
    system_one,
    tokenize,
    input_tokens,
    count_tokens,
]
PLUGINS += [speech, images]
LIMIT = 1 << 20
LONG, MANY = 3000, 2000  # repeated for each of so many, a word is six times as large as the limit

SCHEMA = {"type": "object", "properties": {"x": {"type": "string", "description": "What to look for."}}}
FUNCTION = {"name": "f", "description": "Looks.", "parameters": SCHEMA}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
ASKED = {
    "/v1/chat/completions": {
        "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": "auto",
        "stop": ["x"],
        "n": 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}},
        "user": "u",
    },
    "/v1/completions": {"prompt": ["a", "b"], "stop": ["x"], "n": 2, "user": "u", "more": ["x"]},
    "/v1/messages": {
        "max_tokens": 9,
        "system": [{"type": "text", "text": "s"}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"x": "y"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "c"}]},
        ],
        "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA, "input_examples": [{"x": "y"}]}],
        "tool_choice": {"type": "auto"},
        "stop_sequences": ["x"],
        "metadata": {"user_id": "u"},
    },
    "/v1/responses": {
        "instructions": "i",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]},
            {"type": "function_call", "call_id": "1", "name": "f", "namespace": "n", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "o"},
        ],
        "tools": [
            {"type": "function", **FUNCTION},
            {"type": "namespace", "name": "n", "tools": [{"type": "function", **FUNCTION}, {"type": "web_search"}]},
            {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "lark", "definition": "start: a"}},
            {"type": "web_search"},
        ],
        "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}},
        "reasoning": {"effort": "low"},
        "metadata": {"a": "b"},
        "include": ["reasoning.encrypted_content"],
    },
    "/v1/responses/input_tokens": {
        "input": "a",
        "tools": [{"type": "namespace", "name": "n", "tools": [{"type": "function", **FUNCTION}]}],
    },
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "a"}]},
    "/v1/embeddings": {"input": ["a"], "user": "u"},
    "/v1/rerank": {"query": "q", "documents": ["a", "b"], "more": ["x"]},
    "/v1/score": {"text_1": "a", "text_2": ["b", "c"]},
    "/v1/classify": {"input": ["a", "b"], "labels": ["x"]},
    "/v1/moderations": {"input": [{"type": "text", "text": "a"}, IMAGE]},
    "/v1/decisions": {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}],
        "questions": [
            {"type": "choice", "instructions": "a", "name": "n", "choices": [{"value": "x"}, {"value": "y"}]},
            {"type": "score", "instructions": "a", "levels": [{"label": "x", "description": "d"}, {"label": "y"}]},
        ],
    },
    "/v1/systemone": {
        "state": {"a": "b"},
        "questions": {
            "n": {"type": "choice", "instructions": "a", "criteria": {"x": "d", "y": None}},
            "m": {"type": "score", "instructions": {"a": "b"}, "criteria": ["x", {"y": "d"}]},
            "o": {"type": "noul", "criteria": {"true": "d"}},
        },
    },
    "/tokenize": {
        "messages": [{"role": "user", "content": "a"}],
        "tools": [{"type": "function", "function": FUNCTION}],
    },
    "/detokenize": {"tokens": [1, 2]},
}
TENSOR = {"name": "a", "datatype": "FP32", "shape": [1], "data": [1], "parameters": {"content_type": "x"}}
ALSO_ASKED: dict[str, Any] = {  # of one text each, so that nothing is multiplied
    "/v1/audio/speech": {"input": "a", "voice": "v", "speed": 1, "response_format": "mp3", "stream_format": "audio"},
    "/v1/images/generations": {"prompt": "a", "n": 1, "size": "1x1", "response_format": "b64_json"},
    "/v2/models/m/infer": {
        "id": "i",
        "inputs": [TENSOR],
        "outputs": [{"name": "x", "parameters": {"binary_data": False}}],
        "parameters": {"binary_data_output": False},
    },
    "/v2/models/m/versions/1/infer": {
        "inputs": [{"name": "a", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]
    },
}
METHODS: dict[str, Any] = {
    **dict.fromkeys(("chat_completions", "completions", "messages", "detokenize"), lambda inputs: "x"),
    "embeddings": lambda inputs: [[0.5]] * len(inputs["input"]),
    "rerank": lambda inputs: [0.5] * len(inputs["documents"]),
    "score": lambda inputs: [0.5] * len(inputs["text_2"]),
    "classify": lambda inputs: [{"yes": 0.5}] * len(inputs["input"]),
    "moderations": lambda inputs: [False] * len(inputs["input"]),
    "decide": lambda inputs: [0.5 if each["type"] == "predicate" else [0.5, 0.5] for each in inputs["questions"]],
    "tokenize": lambda inputs: [1],
    "count_tokens": lambda inputs: {"input_tokens": 1},
    "speech": lambda inputs: b"x",
    "images_generations": lambda inputs: [b"x"],
    "predict": lambda inputs: {"x": [1]},
}
TAKEN = {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}}}}
Path = tuple[str | int, ...]


def parts(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """All parts of a request with their paths."""
    if path:
        yield path, value
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from parts(each, (*path, key))


def put(body: Any, path: Path, value: Any) -> None:
    for key in path[:-1]:
        body = body[key]
    body[path[-1]] = value


def rename(body: Any, path: Path, name: str) -> None:
    for key in path[:-1]:
        body = body[key]
    body[name] = body.pop(path[-1], None)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    models = {
        "m": Model(METHODS, slotless=("count_tokens",), capabilities={"input_schema": TAKEN}),
        "own": Model({"responses": lambda inputs: "x"}),
    }
    with Served(models, plugins=PLUGINS, max_queued_bytes=LIMIT) as served:
        yield served


@pytest.mark.parametrize("path", ASKED)
def test_no_pair_of_a_client_s_words_is_multiplied_into_a_call_larger_than_the_limit(
    gateway: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def watched(value: Any) -> bytes:
        body = encode(value)
        written.append(len(body))
        return body

    for module in (calls, token_counts):
        monkeypatch.setattr(module, "encode", watched)
    asked = ASKED[path]
    assert gateway.post(path, {"model": "m", **asked}).status == 200
    found = list(parts(asked))
    texts = [place for place, value in found if isinstance(value, str)]
    lists = [place for place, value in found if isinstance(value, list)]
    for one in texts:
        for many in lists:
            if one[: len(many)] == many:
                one_of = one[len(many)] if isinstance(one[len(many)], int) else 0
            else:
                one_of = 0
            body: Any = copy.deepcopy(asked)
            several = body
            for key in many:
                several = several[key]
            other = copy.deepcopy(several[one_of])
            put(body, many, [*several, *[other] * MANY])
            put(body, one, "w" * LONG)
            answer = gateway.post(path, {"model": "m", **body})
            assert answer.status < 500 and len(answer.body) <= LIMIT, (one, many, answer.status, answer.body[:300])
    assert max(written) <= LIMIT


def test_a_score_of_one_text_with_many_is_as_large_as_the_limit_allows(gateway: Served) -> None:
    assert gateway.post("/v1/score", {"model": "m", "text_1": "w" * 100, "text_2": ["x"] * MANY}).status == 200
    refused = gateway.post("/v1/score", {"model": "m", "text_1": "w" * LONG, "text_2": ["x"] * MANY})
    assert refused.status == 413
    assert refused.error["message"].startswith(f"this request becomes a call larger than {LIMIT} bytes")


HUGE = {
    "a text": "\x85" * 20_000,
    "a list": ["\x85" * 20_000],
    "an object": {"\x85" * 20_000: "\x85" * 20_000},
    "a number": int("9" * 4000),
    "many numbers": [int("9" * 4000)] * 32,
    "a shape": [0, *[2**62] * 31],
    "a long shape": [1] * 31 + [2**62],
}


@pytest.mark.parametrize("huge", HUGE.values(), ids=HUGE)
@pytest.mark.parametrize("path", [*ASKED, *ALSO_ASKED])
def test_no_error_repeats_more_than_a_short_piece_of_a_client_s_words(gateway: Served, path: str, huge: Any) -> None:
    asked = {**ASKED, **ALSO_ASKED}[path]
    fields = [(name,) for endpoint in gateway.hub.catalog.endpoints if endpoint.path == path for name in FIELDS]
    for place in [*fields, *(place for place, _ in parts(asked))]:
        for key in (None, "\x85" * 20_000):
            body: Any = copy.deepcopy(asked)
            if key is not None and isinstance(place[-1], str):
                rename(body, place, key)
            else:
                put(body, place, huge)
            for model in ("m", "own") if path == "/v1/responses" else ("m",):
                answer = gateway.post(path, {"model": model, **body})
                assert answer.status == 200 or len(answer.body) < 2000, (place, answer.status, answer.body[:300])


FIELDS = (
    "model stream n seed temperature stop logit_bias tools tool_choice dimensions top_n encoding_format store".split()
)


def test_the_name_of_a_model_is_repeated_in_an_answer_up_to_its_length(gateway: Served) -> None:
    chat = {"messages": [{"role": "user", "content": "a"}]}
    shown = gateway.post("/models/m/v1/chat/completions", {"model": "m" * 10_000, **chat}).json["model"]
    assert shown == "m" * 256
