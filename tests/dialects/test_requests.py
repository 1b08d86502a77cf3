"""Requests of clients: what is refused, with the code and the path of what is wrong, and what a Model gets to see."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.fields import wrong_type
from gateway.dialects.openai.chat import ChatDialect
from gateway.dialects.openai.embeddings import EmbeddingsDialect
from gateway.errors import BadRequest
from gateway.spec import Capabilities, MethodInfo

USER = {"role": "user", "content": "hi"}
CHAT = {"model": "m", "messages": [USER]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
chat = partial(ChatDialect().read, method="chat_completions")
embeddings = partial(EmbeddingsDialect().read, method="embeddings")


def refused(read: Any, body: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(BadRequest) as caught:
        read(body)
    assert caught.value.status == 400
    assert caught.value.type == "invalid_request_error"
    return caught.value.code, caught.value.param


TEXTS_ONLY = Capabilities(methods=(MethodInfo(name="embeddings", kind="sync"),))
MISSING, TYPE, VALUE, UNSUPPORTED = "missing_required_parameter", "invalid_type", "invalid_value", "unsupported_value"


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"messages": None}, MISSING, "messages"),
        ({"messages": "hi"}, TYPE, "messages"),
        ({"messages": []}, VALUE, "messages"),
        ({"messages": ["hi"]}, TYPE, "messages[0]"),
        ({"messages": [USER, {"content": "x"}]}, MISSING, "messages[1].role"),
        ({"messages": [{"role": 1}]}, TYPE, "messages[0].role"),
        ({"messages": [{"role": "robot"}]}, VALUE, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, MISSING, "messages[0].content"),
        ({"messages": [USER, {"role": "system", "text": "hi"}]}, MISSING, "messages[1].content"),
        ({"messages": [{"role": "developer", "parts": []}]}, MISSING, "messages[0].content"),
        ({"messages": [{"role": "tool", "tool_call_id": "c"}]}, MISSING, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, TYPE, "messages[0].content"),
        ({"messages": [{"role": "user", "content": {"type": "text"}}]}, TYPE, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, TYPE, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, TYPE, "messages[0].content[0]"),
        ({"model": 5}, TYPE, "model"),
        ({"stream": "yes"}, TYPE, "stream"),
        ({"stream": 1}, TYPE, "stream"),
        ({"stream": True, "stream_options": 1}, TYPE, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, TYPE, "stream_options.include_usage"),
        (
            {"stream": True, "stream_options": {"continuous_usage_stats": "yes"}},
            TYPE,
            "stream_options.continuous_usage_stats",
        ),
        ({"n": "2"}, TYPE, "n"),
        ({"n": 1.5}, TYPE, "n"),
        ({"n": True}, TYPE, "n"),
        ({"n": 0}, VALUE, "n"),
        ({"n": 17}, VALUE, "n"),
        ({"temperature": "hot"}, TYPE, "temperature"),
        ({"top_p": [1]}, TYPE, "top_p"),
        ({"frequency_penalty": True}, TYPE, "frequency_penalty"),
        ({"presence_penalty": {}}, TYPE, "presence_penalty"),
        ({"seed": 1.5}, TYPE, "seed"),
        ({"max_tokens": 0}, VALUE, "max_tokens"),
        ({"max_tokens": "5"}, TYPE, "max_tokens"),
        ({"max_completion_tokens": -1}, VALUE, "max_completion_tokens"),
        ({"stop": 5}, TYPE, "stop"),
        ({"stop": ["a", 5]}, TYPE, "stop[1]"),
        ({"stop": ["a"] * 17}, VALUE, "stop"),
        ({"stop": ["a" * 257]}, VALUE, "stop[0]"),
        ({"logit_bias": [1]}, TYPE, "logit_bias"),
        ({"logit_bias": {"5": "x"}}, TYPE, "logit_bias.5"),
        ({"logit_bias": {str(token): 1 for token in range(1025)}}, VALUE, "logit_bias"),
        ({"logprobs": 1}, TYPE, "logprobs"),
        ({"top_logprobs": 5}, VALUE, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, VALUE, "top_logprobs"),
        ({"response_format": "json"}, TYPE, "response_format"),
        ({"response_format": {}}, MISSING, "response_format.type"),
        ({"response_format": {"type": 5}}, TYPE, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, MISSING, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": 1}}, TYPE, "response_format.json_schema"),
        ({"tools": {}}, TYPE, "tools"),
        ({"tools": ["f"]}, TYPE, "tools[0]"),
        ({"tools": [TOOL, {"type": "function"}]}, MISSING, "tools[1].function"),
        ({"tools": [{"type": "function", "function": "f"}]}, TYPE, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, MISSING, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": 5}}]}, TYPE, "tools[0].function.name"),
        ({"tool_choice": 5}, TYPE, "tool_choice"),
        ({"parallel_tool_calls": "no"}, TYPE, "parallel_tool_calls"),
        ({"functions": {}}, TYPE, "functions"),
        ({"functions": ["f"]}, TYPE, "functions[0]"),
        ({"functions": [{"parameters": {}}]}, MISSING, "functions[0].name"),
        ({"functions": [{"name": "f"}], "tools": [TOOL]}, VALUE, "functions"),
        ({"function_call": 5}, TYPE, "function_call"),
        ({"function_call": {}}, MISSING, "function_call.name"),
    ],
)
def test_chat_refuses_with_code_and_path(fields: dict[str, Any], code: str, param: str) -> None:
    assert refused(chat, {**CHAT, **fields}) == (code, param)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 16},
        {"stop": ["a" * 256] * 16},
        {"logit_bias": {str(token): 1 for token in range(1024)}},
        {"tools": [TOOL] * 1000},  # of many MCP servers
        {"logprobs": True, "top_logprobs": 20},
        {"top_logprobs": 0},
        {"max_tokens": 1},
        {"temperature": 0, "top_p": 1},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}},
        {"response_format": {"type": "text"}},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"messages": [{"role": role, "content": None} for role in ("system", "developer", "assistant", "tool")]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        {"model": None},
    ],
)
def test_chat_takes_what_is_within_its_bounds(fields: dict[str, Any]) -> None:
    chat({**CHAT, **fields})


def test_null_is_absent_at_the_top_and_stays_inside_messages() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": None}
    body = {**CHAT, "messages": [message], "temperature": None, "stop": None, "stream": None, "n": None, "top_k": None}
    prepared = chat(body)
    assert prepared.inputs == {"model": "m", "messages": [message]}
    assert (prepared.stream, prepared.n) == (False, 1)
    assert body["temperature"] is None and "stop" in body, "the caller's dict was changed"


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
    ],
)
def test_both_spellings_of_the_token_limit_are_there_and_equal(fields: dict[str, Any], limit: int) -> None:
    inputs = chat({**CHAT, **fields}).inputs
    assert (inputs["max_tokens"], inputs["max_completion_tokens"]) == (limit, limit)


@pytest.mark.parametrize(("stop", "seen"), [("a", ["a"]), (["a", "b"], ["a", "b"]), ("", None), ([], None)])
def test_stop_is_a_list_or_absent(stop: Any, seen: Any) -> None:
    assert chat({**CHAT, "stop": stop}).inputs.get("stop") == seen


def test_fields_that_nobody_knows_reach_the_model_as_sent() -> None:
    extra = {"top_k": 5, "chat_template_kwargs": {"a": None}, "user": 7, "metadata": "x", "store": True, "seed": 3}
    assert chat({**CHAT, **extra}).inputs.items() >= extra.items()


def test_stream_options_count_only_with_stream() -> None:
    options = {"stream_options": {"include_usage": True}}
    assert chat({**CHAT, **options}).options["include_usage"] is False
    assert chat({**CHAT, **options, "stream": True}).options["include_usage"] is True
    assert chat({**CHAT, "stream_options": 5}).stream is False


def test_legacy_functions_become_tools() -> None:
    prepared = chat({**CHAT, "functions": [{"name": "f"}], "function_call": {"name": "f"}})
    assert prepared.options["legacy"] is True
    assert prepared.inputs["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert prepared.inputs["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert not {"functions", "function_call"} & set(prepared.inputs)
    assert chat(CHAT).options["legacy"] is False


def test_any_tool_is_a_tool_that_is_required() -> None:
    assert chat({**CHAT, "tools": [TOOL], "tool_choice": "any"}).inputs["tool_choice"] == "required"


# ── embeddings ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": None}, MISSING, "input"),
        ({"input": []}, VALUE, "input"),
        ({"input": ["a"] * 2049}, VALUE, "input"),
        ({"input": {"text": "a"}}, TYPE, "input"),
        ({"input": 5}, TYPE, "input"),
        ({"input": ["a", 5]}, TYPE, "input[1]"),
        ({"input": ["a", [5]]}, TYPE, "input[1]"),
        ({"input": [True]}, TYPE, "input[0]"),
        ({"input": [1, "a"]}, TYPE, "input"),
        ({"input": [1, True]}, TYPE, "input"),
        ({"input": [-1]}, VALUE, "input"),
        ({"input": [[]]}, VALUE, "input[0]"),
        ({"input": [[1], "a"]}, TYPE, "input[1]"),
        ({"input": [[1]] * 2049}, VALUE, "input"),
        ({"model": 5}, TYPE, "model"),
        ({"encoding_format": "binary"}, VALUE, "encoding_format"),
        ({"encoding_format": 5}, VALUE, "encoding_format"),
        ({"encoding_format": ["float"]}, VALUE, "encoding_format"),
        ({"dimensions": "5"}, TYPE, "dimensions"),
        ({"dimensions": 0}, VALUE, "dimensions"),
    ],
)
def test_embeddings_refuse_with_code_and_path(fields: dict[str, Any], code: str, param: str) -> None:
    assert refused(embeddings, {"model": "m", "input": "a", **fields}) == (code, param)


def test_token_ids_are_refused_with_the_setting_that_avoids_them() -> None:
    for tokens in ([1, 2], [[1, 2], [3]]):
        with pytest.raises(BadRequest, match="check_embedding_ctx_length=False") as caught:
            EmbeddingsDialect().calls(embeddings({"input": tokens}), TEXTS_ONLY)
        assert (caught.value.code, caught.value.param) == (UNSUPPORTED, "input")


@pytest.mark.parametrize(("given_input", "seen"), [([1, 2], [[1, 2]]), ([[1, 2], [3]], [[1, 2], [3]])])
def test_a_class_that_takes_token_ids_gets_a_list_for_each_input(given_input: Any, seen: list[Any]) -> None:
    takes_tokens = replace(TEXTS_ONLY, extra={"token_ids": True})
    for capabilities in (takes_tokens, Capabilities()):  # nothing is known of one that never was ready
        [inputs] = EmbeddingsDialect().calls(embeddings({"input": given_input}), capabilities)
        assert inputs["input"] == seen


@pytest.mark.parametrize(("given_input", "seen"), [("a", ["a"]), ("", [""]), (["a", "b"], ["a", "b"])])
def test_the_model_always_gets_a_list_of_texts(given_input: Any, seen: list[str]) -> None:
    assert embeddings({"input": given_input}).inputs["input"] == seen


def test_the_model_does_not_see_how_the_answer_is_encoded() -> None:
    prepared = embeddings({"input": "a", "encoding_format": "base64", "dimensions": 3, "user": "u"})
    assert prepared.inputs == {"input": ["a"], "dimensions": 3, "user": "u"}
    assert prepared.options == {"base64": True}
    assert embeddings({"input": "a"}).options == {"base64": False}


# ── whatever comes ───────────────────────────────────────────────────────────────────────────────────────────────────

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "model messages stream stream_options n max_tokens max_completion_tokens stop tools tool_choice functions "
    "function_call response_format temperature logit_bias logprobs top_logprobs seed input encoding_format dimensions"
).split()


@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=5), st.booleans())
def test_any_json_at_all_is_read_or_refused(body: dict[str, Any], with_messages: bool) -> None:
    for read in (chat, embeddings):
        try:
            read({**body, "messages": [USER]} if with_messages else body)
        except BadRequest as error:
            assert error.param


@pytest.mark.parametrize(
    ("value", "said"), [(None, "null"), ({}, "an object"), (b"", "a bytes"), (1.5, "a number"), ((), "a tuple")]
)
def test_what_has_the_wrong_type_is_called_what_it_is(value: Any, said: str) -> None:
    assert wrong_type("x", "a string", value).message == f"'x' must be a string, not {said}"
