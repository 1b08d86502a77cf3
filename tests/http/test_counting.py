"""How many tokens a request is, asked before it is made: counted by the model, else estimated as its usage would be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from served import Model, Served

from gateway.dialects.anthropic import count_tokens
from gateway.dialects.anthropic import messages as anthropic_messages
from gateway.dialects.openai import input_tokens
from gateway.dialects.responses import route

Serve = Callable[..., Served]
PLUGINS = [route, input_tokens, anthropic_messages, count_tokens]
TEXT = "How long is a piece of string? " * 20
FUNCTION = {"name": "measure", "description": "Measures it.", "parameters": {"type": "object"}}
RESPONSE = {"input": TEXT, "instructions": "Be brief.", "tools": [{"type": "function", **FUNCTION}]}
MESSAGE = {
    "messages": [{"role": "user", "content": TEXT}],
    "system": "Be brief.",
    "tools": [{"name": "measure", "description": "Measures it.", "input_schema": {"type": "object"}}],
}
COUNT, INPUT_TOKENS = "/v1/messages/count_tokens", "/v1/responses/input_tokens"


def serve_chat(serve: Serve, **methods: Callable[[Any], Any]) -> Served:
    return serve({"m": Model({"chat_completions": lambda inputs: "fine", **methods})}, plugins=PLUGINS)


def test_a_model_that_counts_nothing_has_the_estimate_that_its_usage_has(serve: Serve) -> None:
    served = serve_chat(serve)
    response = served.post("/v1/responses", {"model": "m", **RESPONSE})
    counted = served.post(INPUT_TOKENS, {"model": "m", **RESPONSE})
    assert counted.json == {
        "object": "response.input_tokens",
        "input_tokens": response.json["usage"]["input_tokens"],
    }
    message = served.post("/v1/messages", {"model": "m", "max_tokens": 9, **MESSAGE})
    told = served.post(COUNT, {"model": "m", **MESSAGE})
    assert told.json == {"input_tokens": message.json["usage"]["input_tokens"]}
    assert counted.json["input_tokens"] == told.json["input_tokens"] > len(TEXT) // 4
    for answer in (response, counted, message, told):
        assert answer.status == 200 and answer.headers["x-gateway-usage"] == "estimated"
        assert answer.headers["content-type"] == "application/json"
    without = served.post(INPUT_TOKENS, {"model": "m", "input": TEXT, "instructions": "Be brief."})
    assert without.json["input_tokens"] < counted.json["input_tokens"]
    assert served.post(f"/models/m{INPUT_TOKENS}", RESPONSE).json == counted.json


def test_a_model_that_counts_is_asked_with_messages_and_tools(serve: Serve) -> None:
    seen: list[Any] = []
    served = serve_chat(serve, count_tokens=lambda inputs: seen.append(inputs) or {"input_tokens": 7})
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": TEXT}]
    for path, body, beside in (
        (INPUT_TOKENS, RESPONSE, {"object": "response.input_tokens"}),
        (COUNT, MESSAGE, {}),
    ):
        answer = served.post(path, {"model": "m", **body})
        assert answer.json == {**beside, "input_tokens": 7} and "x-gateway-usage" not in answer.headers
        assert seen[-1] == {"messages": messages, "tools": [{"type": "function", "function": FUNCTION}]}


def test_what_a_request_goes_on_from_is_counted_too_and_nothing_is_kept_of_it(serve: Serve) -> None:
    seen: list[Any] = []
    served = serve_chat(serve, count_tokens=lambda inputs: seen.append(inputs["messages"]) or 7)
    first = served.post("/v1/responses", {"model": "m", "input": "one"}).json
    whole = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "fine"}]
    served.post(INPUT_TOKENS, {"model": "m", "input": "two", "previous_response_id": first["id"]})
    assert seen[-1] == [*whole, {"role": "user", "content": "two"}]
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}
    served.post(INPUT_TOKENS, {"model": "m", "input": [reference]})
    assert seen[-1] == whole[1:]
    unknown = served.post(INPUT_TOKENS, {"model": "m", "input": [{"type": "item_reference", "id": "msg_x"}]})
    assert (unknown.status, unknown.error["code"]) == (400, "item_not_found")
    gone = served.post(INPUT_TOKENS, {"model": "m", "input": "x", "previous_response_id": "resp_x"})
    assert (gone.status, gone.error["code"]) == (404, "previous_response_not_found")


def test_instructions_alone_can_be_counted_and_nothing_cannot(serve: Serve) -> None:
    seen: list[Any] = []
    served = serve_chat(serve, count_tokens=lambda inputs: seen.append(inputs["messages"]) or 7)
    assert served.post(INPUT_TOKENS, {"model": "m", "instructions": "Be brief."}).json["input_tokens"] == 7
    assert seen == [[{"role": "system", "content": "Be brief."}]]
    for body in ({}, {"input": None}, {"instructions": ""}):
        answer = served.post(INPUT_TOKENS, {"model": "m", **body})
        assert (answer.status, answer.error["param"]) == (400, "input")


def test_tools_that_the_model_would_not_get_are_not_counted_and_said(serve: Serve) -> None:
    served = serve_chat(serve)
    hosted = {"model": "m", "input": TEXT, "tools": [{"type": "web_search", "filters": ["x" * 400]}]}
    answer = served.post(INPUT_TOKENS, hosted)
    assert answer.headers["x-gateway-left-out"] == "web_search"
    assert answer.json == served.post(INPUT_TOKENS, {"model": "m", "input": TEXT}).json


@pytest.mark.parametrize(("path", "body"), [(INPUT_TOKENS, RESPONSE), (COUNT, MESSAGE)])
def test_only_models_that_answer_the_route_count_for_it(serve: Serve, path: str, body: Any) -> None:
    models = {"m": Model({"embeddings": lambda inputs: [[1.0]]}), "chat": Model({"chat_completions": lambda _: "x"})}
    served = serve(models, plugins=PLUGINS)
    answer = served.post(path, {"model": "m", **body})
    assert answer.status == 404 and "does not serve" in answer.body.decode()
    assert served.post(path, body).status == 200  # the only one that can be meant
    routes = {model["id"]: model["capabilities"]["routes"] for model in served.get("/v1/models").json["data"]}
    assert path in routes["chat"] and path not in routes["m"]
