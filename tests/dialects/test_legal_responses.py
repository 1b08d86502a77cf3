"""Whatever the SDK's types allow on /v1/responses is accepted, and the answer shows it again in a legal object."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.responses import (
    EasyInputMessageParam,
    FunctionToolParam,
    ResponseFunctionToolCallParam,
    ResponseOutputMessageParam,
    ResponseReasoningItemParam,
    ToolChoiceFunctionParam,
)
from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming as Params
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming as StreamParams
from openai.types.responses.response_input_item_param import FunctionCallOutput, ResponseInputItemParam

from gateway.dialects.base import Context
from gateway.dialects.responses.items import listed
from gateway.dialects.responses.route import ResponsesDialect

from .legal import bodies, drawn_from, words
from .responses_sdk import HEX, KEYS, RESPONSE

OURS: dict[str, st.SearchStrategy[Any]] = {
    "background": st.none() | st.just(False),
    "conversation": st.none(),
    "prompt": st.none(),
    "max_output_tokens": st.none() | st.integers(1, 10**6),
    "metadata": st.none() | st.dictionaries(words, words, max_size=2),
}
ANY = {**OURS, "input": words | st.lists(drawn_from(ResponseInputItemParam), min_size=1, max_size=2)}

# What chat has words for.
TEXT = st.fixed_dictionaries({"type": st.just("input_text"), "text": words})
CONTENT = words | st.lists(TEXT, max_size=2)
MESSAGE = bodies(EasyInputMessageParam, {"content": CONTENT})
OUTPUT = bodies(FunctionCallOutput, {"output": CONTENT, "call_id": words}).map(lambda item: {"call_id": "c", **item})
ITEMS = st.one_of(
    MESSAGE, OUTPUT, *[drawn_from(kind) for kind in (ResponseFunctionToolCallParam, ResponseReasoningItemParam)]
)
SAID = bodies(ResponseOutputMessageParam, {})
CHAT = {
    **OURS,
    "input": words | st.lists(ITEMS | SAID, min_size=1, max_size=3),
    "tools": st.lists(bodies(FunctionToolParam, {"name": st.just("f")}), min_size=1, max_size=2),
    "tool_choice": st.sampled_from(["none", "auto", "required"])
    | bodies(ToolChoiceFunctionParam, {"name": st.just("f")}),
}
slow = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much])


def check(body: dict[str, Any], method: str) -> None:
    body = {"input": "hi", **json.loads(json.dumps(body))}  # it may be missing beside a `prompt` only
    if "tools" not in body and isinstance(body.get("tool_choice"), dict) and method != "responses":
        del body["tool_choice"]  # a choice of nothing
    before = copy.deepcopy(body)
    dialect = ResponsesDialect()
    prepared = dialect.read(body, method)
    assert body == before, "the caller's own dict was changed"
    assert prepared.stream is bool(body.get("stream"))
    if method == "responses":
        assert prepared.inputs == {name: value for name, value in body.items() if value is not None}
    under_way = dialect.encoder(prepared, Context("m", HEX, 1795290277))
    under_way.feed(["fine"])
    answer = under_way.record() or json.loads(under_way.whole()[0])
    assert answer.keys() == KEYS and answer["store"] is (body.get("store") is not False)
    RESPONSE.validate_python(answer)
    for item in listed(body.get("input")):
        assert item["type"] and item["id"]


@slow
@given(bodies(Params, ANY) | bodies(StreamParams, ANY))
def test_any_legal_request_reaches_a_method_of_its_own_as_it_was_sent(body: dict[str, Any]) -> None:
    check(body, "responses")


@slow
@given(bodies(Params, CHAT) | bodies(StreamParams, CHAT))
def test_any_legal_request_of_text_and_functions_is_chat_s_too(body: dict[str, Any]) -> None:
    check(body, "chat_completions")
