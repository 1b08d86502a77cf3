"""T8 to T10: bodies that are JSON, almost JSON, or too much of it; on every route that takes one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from served import Answer, Model, Served

from gateway.dialects.openai import completions
from gateway.dialects.scoring import tokenize
from gateway.http.body import MAX_IDS, MOST_IDS, decode_json

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
    return sorted(endpoint.path for endpoint in served.hub.catalog.endpoints if endpoint.verb == "POST")


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


ID_PLUGINS = [completions, tokenize]
IDS = ("/v1/completions", "prompt"), ("/v1/embeddings", "input"), ("/v1/detokenize", "tokens")


@pytest.mark.parametrize(("path", "name"), IDS)
def test_there_are_no_more_token_ids_than_any_model_reads(serve: Serve, path: str, name: str) -> None:
    methods = {"completions": lambda inputs: "fine", "embeddings": lambda i: [[1.0]], "detokenize": lambda i: "fine"}
    served = serve({"m": Model(methods, capabilities={"extra": {"token_ids": True}})}, plugins=ID_PLUGINS)

    def post(count: int) -> Answer:
        return served.post(path, b'{"%b": [%b1]}' % (name.encode(), b"1," * (count - 1)))

    assert post(MAX_IDS).status == 200
    refused = post(MAX_IDS + 1)
    assert refused.status == 413
    assert refused.error["message"].startswith(f"the body holds more than {MAX_IDS} token ids")


def test_of_token_ids_there_may_be_as_many_as_the_longest_context_has(serve: Serve) -> None:
    long = Model({"detokenize": lambda inputs: str(len(inputs["tokens"]))}, capabilities={"max_model_len": MAX_IDS + 9})
    served = serve({"long": long, "short": Model({"completions": lambda inputs: "fine"})}, plugins=ID_PLUGINS)
    body = b'{"tokens": [%b1]}' % (b"1," * (MAX_IDS + 7))
    for path in ("/v1/detokenize", "/models/long/v1/detokenize"):
        assert served.post(path, body).json == {"prompt": str(MAX_IDS + 8)}
        assert served.post(path, body.replace(b"[1,", b"[1,1,1,")).status == 413
    assert served.post("/models/short/v1/completions", body.replace(b"tokens", b"prompt")).status == 413


def test_no_context_that_a_model_declares_has_more_token_ids_read_than_the_gateway_can(serve: Serve) -> None:
    endless = Model({"detokenize": lambda inputs: str(len(inputs["tokens"]))}, capabilities={"max_model_len": 1 << 60})
    served = serve({"m": endless}, plugins=ID_PLUGINS)
    refused = served.post("/v1/detokenize", b'{"tokens": [%b1]}' % (b"1," * MOST_IDS))
    assert refused.status == 413
    assert refused.error["message"] == (
        f"the body holds more than {MOST_IDS} token ids and other values, the limit of a request to any model; "
        "send it in several requests"
    )
    assert served.post("/v1/detokenize", b'{"tokens": [%b1]}' % (b"1," * MAX_IDS)).status == 200


def test_commas_in_a_text_are_no_token_ids(serve: Serve) -> None:
    served = serve({"m": Model({"completions": lambda inputs: "fine"})}, plugins=ID_PLUGINS)
    assert served.post("/v1/completions", {"prompt": "1," * (MAX_IDS + 1)}).status == 200
