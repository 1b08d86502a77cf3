"""A model that raises says so on every route, whole and streamed, and its log says for what."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.testing import Gateway

from .conftest import write_models

MODEL = """
from starlette.responses import StreamingResponse

class Model:
    def chat_completions(self, body):
        yield "one "
        raise KeyError("secret words")

    def completions(self, body):
        yield "one "
        raise KeyError("secret words")

    def rerank(self, body):
        raise KeyError("secret words")

    def embeddings(self, body):
        yield [[0.1]]
        yield [[{1, 2}]]

    def predict(self, inputs):
        if inputs.get("odd"):
            return {"rows": [{"odd": object()}]}
        def events():
            yield "data: one\\n\\n"
            raise KeyError("secret words")
        return StreamingResponse(events(), media_type="text/event-stream")
"""
FIELD = """
class Model:
    async def chat_completions(self, messages):
        yield messages[-1]["content"]
"""
MESSAGES = [{"role": "user", "content": "go"}]
STREAMS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "stream": True},
    "/v1/completions": {"prompt": "go", "stream": True},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 9, "stream": True},
    "/v1/responses": {"input": "go", "stream": True},
    "/v1/models/{model}:predict": {},
}
WHOLE: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/completions": {"prompt": "go"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 9},
    "/v1/responses": {"input": "go"},
    "/v1/rerank": {"query": "go", "documents": ["a"]},
}
METHODS = {"/v1/completions": "completions", "/v1/rerank": "rerank", "/v1/models/{model}:predict": "predict"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("models")
    write_models(root, {"wild": {"model.py": MODEL}, "field": {"model.py": FIELD}})
    with Gateway(root, cwd=root) as running:
        yield running


def ask(gateway: Gateway, route: str, body: dict[str, Any], request_id: str) -> str:
    """What the client gets, as far as it comes."""
    url = gateway.url + route.format(model="wild")
    data = json.dumps({"model": "wild", **body}).encode()
    request = urllib.request.Request(url, data, {"x-request-id": request_id, "content-type": "application/json"})
    got = b""
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            while part := answer.read1():
                got += part
    except urllib.error.HTTPError as error:
        got = error.read()
    except (OSError, http.client.HTTPException):  # broken off, so that it does not look finished
        pass
    return got.decode()


@pytest.mark.parametrize("route", STREAMS)
def test_a_stream_that_breaks_off_names_the_model_the_request_and_its_log(gateway: Gateway, route: str) -> None:
    request_id = f"stream-{len(route)}"
    got = ask(gateway, route, STREAMS[route], request_id)
    assert "one" in got
    assert f"model 'wild' raised an error; `gateway logs wild` shows it under the request id {request_id}" in got
    assert "secret" not in got


@pytest.mark.parametrize("route", WHOLE)
def test_a_whole_answer_names_them_too(gateway: Gateway, route: str) -> None:
    request_id = f"whole-{len(route)}"
    got = ask(gateway, route, WHOLE[route], request_id)
    assert f"model 'wild' raised an error; `gateway logs wild` shows it under the request id {request_id}" in got


@pytest.mark.parametrize("route", {**STREAMS, **WHOLE})
def test_the_models_log_says_which_method_raised_for_which_route_and_request(gateway: Gateway, route: str) -> None:
    request_id = f"log-{len(route)}"
    ask(gateway, route, {**WHOLE, **STREAMS}[route], request_id)
    method = METHODS.get(route, "chat_completions")
    path = route.replace("{model}", "wild")
    gateway.wait_for(re.escape(f"wild | [{request_id}] {path}: {method} raised a KeyError"))


def test_a_method_that_takes_the_body_for_its_messages_is_told_in_the_log_what_to_take(gateway: Gateway) -> None:
    ask(gateway, "/v1/chat/completions", {"messages": MESSAGES, "model": "field"}, "field-1")
    said = 'chat_completions is given the whole body of the request, so messages is a dict; take messages["messages"]'
    gateway.wait_for(re.escape(f"field | [field-1] {said}"))


def test_the_gateways_own_log_has_the_same_words(gateway: Gateway) -> None:
    words = "model 'wild' raised an error; `gateway logs wild` shows it under the request id"
    ask(gateway, "/v1/rerank", WHOLE["/v1/rerank"], "own-1")
    gateway.wait_for(re.escape(f"WARNING request own-1 to /v1/rerank: {words} own-1"))
    for number, route in enumerate(STREAMS):
        ask(gateway, route, STREAMS[route], f"own-stream-{number}")
        gateway.wait_for(re.escape(f"WARNING request own-stream-{number} broke off: {words} own-stream-{number}"))


def test_what_cannot_be_sent_has_its_path_in_the_answer_and_in_one_line_of_the_log(gateway: Gateway) -> None:
    said = "Object of type object is not JSON serializable (at $.rows[0].odd: convert it to a dict, a list or a str)"
    assert said in ask(gateway, "/v1/models/{model}:predict", {"odd": True}, "odd-1")
    gateway.wait_for(
        re.escape(
            "wild | [odd-1] ERROR gateway: /v1/models/wild:predict: "
            f"predict returned a value that cannot be sent: {said}"
        )
    )
    assert "Unserializable" not in gateway.log


def test_an_item_of_a_stream_that_cannot_be_sent_has_its_number(gateway: Gateway) -> None:
    said = "item 2 of the stream: a value of type set cannot be sent (at $[0][0]: send list(value))"
    assert said in ask(gateway, "/v1/embeddings", {"input": ["a", "b"]}, "odd-2")
