"""Requests for /v1/responses in chat's words, and those that have none."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.responses.items import Conversation, listed
from gateway.dialects.responses.route import ResponsesDialect
from gateway.errors import BadRequest

WEATHER = {"type": "function", "name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": True}
TIME = {"type": "function", "name": "time"}
USER = {"role": "user", "content": "hi"}


def chat(method: str = "chat_completions", **fields: Any) -> dict[str, Any]:
    """What a Model's method gets."""
    return ResponsesDialect().read({"input": "hi", **fields}, method).inputs


def messages(*items: Any, **fields: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chat(input=list(items), **fields)["messages"]
    return found


def refused(**fields: Any) -> tuple[str | None, str]:
    with pytest.raises(BadRequest) as error:
        chat(**fields)
    assert error.value.status == 400
    return error.value.param, error.value.code


# ── input ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_text_is_a_user_s_message_behind_the_instructions() -> None:
    assert chat(instructions="Be brief.")["messages"] == [{"role": "system", "content": "Be brief."}, USER]
    assert messages({"type": "message", **USER}, {"role": "developer", "content": "x"}) == [
        USER,
        {"role": "developer", "content": "x"},
    ]


def test_one_part_of_text_is_a_string_and_others_stay_parts() -> None:
    text, image = (
        {"type": "input_text", "text": "what"},
        {"type": "input_image", "image_url": "data:x", "detail": "low"},
    )
    file = {"type": "input_file", "file_data": "data:y", "filename": "a.pdf"}
    audio = {"type": "input_audio", "input_audio": {"data": "z", "format": "wav"}}
    assert messages({"role": "user", "content": [text]}) == [{"role": "user", "content": "what"}]
    assert messages({"role": "user", "content": [text, text, image, file, audio]})[0]["content"] == [
        {"type": "text", "text": "what"},
        {"type": "text", "text": "what"},
        {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:y", "filename": "a.pdf"}},
        audio,
    ]
    for part in ({"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "a"}):
        assert messages({"role": "assistant", "content": [part]}) == [{"role": "assistant", "content": "a"}]


def test_calls_and_thoughts_belong_to_the_assistant_s_message_and_outputs_are_tool_messages() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}", "id": "fc_1"}
    other = {"type": "function_call", "call_id": "c2", "name": "time", "arguments": "{}"}
    found = messages(
        USER,
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "let me see"}]},
        call,
        other,
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "noon"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}], "encrypted_content": "xyz"},
        call,
    )
    nested = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    both = [*nested, {"id": "c2", "type": "function", "function": {"name": "time", "arguments": "{}"}}]
    assert found == [
        USER,
        {"role": "assistant", "content": "let me see", "tool_calls": both, "reasoning_content": "hm"},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "tool", "tool_call_id": "c2", "content": "noon"},
        {"role": "assistant", "content": None, "tool_calls": nested, "reasoning_content": "so"},
    ]


def test_thoughts_before_anybody_else_s_message_are_dropped() -> None:
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}], "summary": []}
    assert messages(thought, USER) == [USER]


@pytest.mark.parametrize(
    ("item", "param", "code"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "id", "item_not_found"),
        ({"id": "msg_1"}, "id", "item_not_found"),
        ({"type": "item_reference"}, "id", "missing_required_parameter"),
        ({"type": "item_reference", "id": 7}, "id", "invalid_type"),
        ({"type": "web_search_call", "id": "ws"}, "type", "unsupported_value"),
        ({"type": "custom_tool_call", "call_id": "c", "input": "x"}, "name", "missing_required_parameter"),
        ({"type": "custom_tool_call", "call_id": "c", "name": "f"}, "input", "missing_required_parameter"),
        ({"type": "custom_tool_call_output", "call_id": "c"}, "output", "missing_required_parameter"),
        ({}, "type", "missing_required_parameter"),
        ({"type": "message", "content": "x"}, "role", "missing_required_parameter"),
        ({"role": "tool", "content": "x"}, "role", "invalid_value"),
        ({"role": "user"}, "content", "missing_required_parameter"),
        ({"role": "user", "content": 1}, "content", "invalid_type"),
        ({"role": "user", "content": ["x"]}, "content[0]", "invalid_type"),
        ({"role": "user", "content": [{"type": "input_video"}]}, "content[0].type", "unsupported_value"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "content[0].text", "missing_required_parameter"),
        (
            {"role": "user", "content": [{"type": "input_image", "file_id": "f"}]},
            "content[0].file_id",
            "unsupported_value",
        ),
        (
            {"role": "user", "content": [{"type": "input_file", "file_url": "f"}]},
            "content[0].file_url",
            "unsupported_value",
        ),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "call_id", "missing_required_parameter"),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}, "arguments", "invalid_type"),
        ({"type": "function_call_output", "call_id": "c"}, "output", "missing_required_parameter"),
        ({"type": "function_call_output", "output": "x"}, "call_id", "missing_required_parameter"),
    ],
)
def test_an_item_that_chat_has_no_word_for_is_refused_with_its_place(item: Any, param: str, code: str) -> None:
    assert refused(input=[USER, item]) == (f"input[1].{param}", code)


def test_the_place_is_that_in_the_client_s_own_input() -> None:
    assert refused(input=Conversation([USER, USER], [{"type": "nonsense"}])) == ("input[0].type", "unsupported_value")
    assert messages(*Conversation([USER], "and now")) == [USER, {"role": "user", "content": "and now"}]


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tools_are_nested_and_a_choice_names_one() -> None:
    found = chat(tools=[WEATHER, TIME], tool_choice={"type": "function", "name": "time"}, parallel_tool_calls=False)
    nested = {name: value for name, value in WEATHER.items() if name != "type"}
    assert found["tools"] == [
        {"type": "function", "function": nested},
        {"type": "function", "function": {"name": "time"}},
    ]
    assert found["tool_choice"] == {"type": "function", "function": {"name": "time"}}
    assert found["parallel_tool_calls"] is False


def test_any_tool_is_a_tool_that_is_required() -> None:
    assert chat(tools=[TIME], tool_choice="any")["tool_choice"] == "required"


def test_allowed_tools_are_the_only_ones_that_the_model_hears_of() -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "time"}]}
    found = chat(tools=[WEATHER, TIME], tool_choice=choice)
    assert [tool["function"]["name"] for tool in found["tools"]] == ["time"] and found["tool_choice"] == "required"


def test_the_rest_has_chat_s_names_and_what_is_unknown_reaches_the_model() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    found = chat(
        text={"format": schema, "verbosity": "low"},
        reasoning={"effort": "low", "summary": "auto"},
        max_output_tokens=9,
        top_logprobs=3,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        top_k=5,
        temperature=0.5,
        user=None,
        stream=True,
        store=False,
        metadata={"a": "b"},
        previous_response_id="resp_1",
    )
    nested = {"name": "n", "schema": {"type": "object"}, "strict": True}
    assert found == {
        "messages": [USER],
        "response_format": {"type": "json_schema", "json_schema": nested},
        "verbosity": "low",
        "reasoning_effort": "low",
        "max_tokens": 9,
        "max_completion_tokens": 9,
        "logprobs": True,
        "top_logprobs": 3,
        "top_k": 5,
        "temperature": 0.5,
        "stream": True,
        "metadata": {"a": "b"},
    }
    assert chat(include=["message.output_text.logprobs"])["logprobs"] is True
    said = {"effort": "low", "summary": "auto", "enabled": True, "max_tokens": 5, "context": None}
    assert chat(reasoning=said)["reasoning"] == {"enabled": True, "max_tokens": 5}
    assert chat(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    assert chat(text={"format": {"type": "text"}}, tool_choice="none") == {"messages": [USER]}
    assert chat(tool_choice="required") == {"messages": [USER], "tool_choice": "required"}  # for the model to refuse
    assert chat(tool_choice="auto") == {"messages": [USER]}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"background": True}, "background", "unsupported_value"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_value"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_value"),
        ({"n": 2}, "n", "unsupported_value"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": ["x"]}, "input[0]", "invalid_type"),
        ({"input": [{"role": "assistant", "content": "a", "prefix": True}]}, "input[0].prefix", "unsupported_value"),
        ({"messages": []}, "messages", "unsupported_value"),
        ({"max_output_tokens": 5, "max_tokens": 6}, "max_tokens", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"store": "yes"}, "store", "invalid_type"),
        ({"instructions": ["x"]}, "instructions", "invalid_type"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"reasoning": {"effort": 1}}, "reasoning.effort", "invalid_type"),
        ({"text": {"format": "json"}}, "text.format", "invalid_type"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type", "unsupported_value"),
        ({"text": {"tone": "warm"}}, "text.tone", "unsupported_value"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema", "missing_required_parameter"),
        ({"tools": [{"name": "time"}]}, "tools[0].type", "missing_required_parameter"),
        ({"tools": [TIME, {"type": 7}]}, "tools[1].type", "invalid_type"),
        ({"tools": [{"type": "custom"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"type": "namespace", "tools": []}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": "x"}]}, "tools[0].tools", "invalid_type"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [7]}]}, "tools[0].tools[0]", "invalid_type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": ["x"]}, "tools[0]", "invalid_type"),
        ({"tool_choice": "always"}, "tool_choice", "invalid_value"),
        ({"tool_choice": 1}, "tool_choice", "invalid_type"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice.type", "unsupported_value"),
        ({"tools": [TIME], "tool_choice": {"type": "function"}}, "tool_choice.name", "missing_required_parameter"),
        ({"tools": [TIME], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name", "invalid_value"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "x", "tools": []}}, "tool_choice.mode", "invalid_value"),
        ({"tool_choice": {"type": "allowed_tools", "tools": "x"}}, "tool_choice.tools", "invalid_type"),
    ],
)
def test_what_makes_no_sense_or_cannot_be_done_is_a_400_that_names_the_field(
    fields: dict[str, Any], param: str, code: str
) -> None:
    assert refused(**fields) == (param, code)


def test_a_method_of_its_own_decides_itself_about_tools_and_items() -> None:
    asked = {"input": [{"type": "item_reference", "id": "x"}], "tools": [{"type": "mcp"}], "top_k": 1}
    assert chat("responses", **asked) == asked
    with pytest.raises(BadRequest, match="background"):
        chat("responses", background=True)


# ── as they are listed ───────────────────────────────────────────────────────────────────────────────────────────────


def test_items_are_listed_with_type_id_and_parts() -> None:
    text, call = (
        {"type": "input_text", "text": "a"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    )
    items = listed(
        [
            USER,
            {"role": "assistant", "content": "a", "id": "msg_mine", "status": "incomplete"},
            {"role": "user", "content": [text, {"type": "input_image", "image_url": "u"}]},
            call,
            {"type": "function_call_output", "call_id": "c", "output": "x"},
            {"type": "reasoning", "encrypted_content": "y"},
        ]
    )
    ids = [item.pop("id") for item in items]
    assert ids[1] == "msg_mine" and len(set(ids)) == len(ids)
    assert [identity.partition("_")[0] for identity in ids] == ["msg", "msg", "msg", "fc", "fco", "rs"]
    said = {"type": "output_text", "text": "a", "annotations": [], "logprobs": []}
    image = {"type": "input_image", "image_url": "u", "detail": "auto"}
    user = {"type": "message", "role": "user", "status": "completed"}
    assert items == [
        {**user, "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "message", "role": "assistant", "status": "incomplete", "content": [said]},
        {**user, "content": [text, image]},
        {**call, "status": "completed"},
        {"type": "function_call_output", "call_id": "c", "output": "x", "status": "completed"},
        {"type": "reasoning", "encrypted_content": "y", "summary": []},
    ]
    assert listed("hi")[0]["content"] == [{"type": "input_text", "text": "hi"}] and listed(None) == []
