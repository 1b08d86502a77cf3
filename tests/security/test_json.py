"""T8 to T10: bodies that are JSON, almost JSON, or too much of it; on every route that takes one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from served import Answer, Model, Served

from gateway.http.body import decode_json

Serve = Callable[..., Served]
CORPUS = {
    "empty": b"",
    "cut off": b'{"messages": [{"role": "us',
    "not UTF-8": b'{"messages": "\xff\xfe"}',
    "half a surrogate": b'{"input": "\\ud800"}',
    "NaN": b'{"temperature": NaN}',
    "Infinity": b'{"temperature": -Infinity}',
    "a huge integer": b'{"max_tokens": ' + b"9" * 5000 + b"}",
    "a huge float": b'{"temperature": 1e999}',
    "deep": b'{"a": ' * 65 + b"1" + b"}" * 65,
    "very deep": b"[" * 100_000,
    "another type": b"[1, 2]",
    "a text": b'"x"',
    "NUL": b"\x00\x00\x00",
    "keys twice": b'{"model": "m", "model": 5}',
}


@pytest.fixture
def served(serve: Serve) -> Served:
    methods = ("chat_completions", "embeddings", "completions")
    return serve({"m": Model({name: lambda inputs: "fine" for name in methods})})


def routes(served: Served) -> list[str]:
    return sorted(endpoint.path for endpoint in served.hub.endpoints if endpoint.verb == "POST")


@pytest.mark.parametrize("body", CORPUS.values(), ids=CORPUS)
def test_no_body_makes_any_route_fail(served: Served, body: bytes) -> None:
    for path in routes(served):
        for place in (path, f"/models/m{path}"):
            answer = served.post(place, body)
            assert 400 <= answer.status < 500, f"{place}: {answer.status} {answer.body!r}"
            assert isinstance(answer.json, dict)


def test_a_flood_of_keys_is_a_bad_request_or_done(served: Served) -> None:
    many = json.dumps({str(number): number for number in range(100_000)}).encode()
    assert len(decode_json(many)) == 100_000
    for path in routes(served):
        assert served.post(path, many).status == 400


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_model_that_returns_no_number_never_makes_invalid_json(serve: Serve, number: float) -> None:
    def refuse_constants(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    model = Model({"chat_completions": lambda inputs: {"choices": [], "x": number}, "embeddings": lambda i: [[number]]})
    served = serve({"m": model})
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    for path, body in (("/v1/chat/completions", chat), ("/v1/embeddings", {"input": "a", "encoding_format": "float"})):
        answer: Answer = served.post(path, body)
        assert answer.status == 500
        json.loads(answer.body, parse_constant=refuse_constants)


BOUNDS = {
    "n": (lambda size: {"n": size}, 16),
    "stop": (lambda size: {"stop": ["x"] * size}, 16),
    "a stop string": (lambda size: {"stop": "x" * size}, 256),
    "logit_bias": (lambda size: {"logit_bias": {str(key): 1 for key in range(size)}}, 1024),
}


@pytest.mark.parametrize(("fields", "most"), BOUNDS.values(), ids=BOUNDS)
def test_a_parameter_has_its_bound(serve: Serve, fields: Callable[[int], dict[str, Any]], most: int) -> None:
    spec: dict[str, Any] = {"limits": {"slots": 16}}
    served = serve({"m": Model({"chat_completions": lambda inputs: "fine"}, **spec)})
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    assert served.post("/v1/chat/completions", {**chat, **fields(most)}).status == 200
    assert served.post("/v1/chat/completions", {**chat, **fields(most + 1)}).status == 400
