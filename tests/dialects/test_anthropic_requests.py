"""Anthropic's requests in chat's words, and what is said of those that make no sense."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.anthropic.count_tokens import CountDialect
from gateway.dialects.anthropic.messages import MessagesDialect
from gateway.dialects.base import Context
from gateway.errors import BadRequest, HTTPError, InvalidOutput
from gateway.spec import Capabilities

from .anthropic_sdk import ASK

PNG = {"type": "base64", "media_type": "image/png", "data": "iVBO"}
IMAGE = {"type": "image", "source": PNG}
IMAGE_PART = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}


def chat(**fields: Any) -> dict[str, Any]:
    return MessagesDialect().read({**ASK, **fields}, "chat_completions").inputs


def turns(*messages: dict[str, Any]) -> Any:
    return chat(messages=list(messages))["messages"]


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


# ── turns ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_system_prompt_is_the_first_message() -> None:
    blocks = [{**text("Be brief."), "cache_control": {"type": "ephemeral"}}, text("Be kind.")]
    for system, content in (("Be brief.", "Be brief."), (blocks, "Be brief.\nBe kind.")):
        assert chat(system=system)["messages"] == [{"role": "system", "content": content}, *ASK["messages"]]
    for nothing in ("", [], None):
        assert chat(system=nothing)["messages"] == ASK["messages"]


def test_a_system_message_within_the_turns_stays_where_it_is() -> None:
    assert turns(user(text("a")), {"role": "system", "content": [text("b")]}) == [
        {"role": "user", "content": "a"},
        {"role": "system", "content": "b"},
    ]


def test_one_text_is_a_string_and_several_blocks_are_parts() -> None:
    assert turns(user(text("a"))) == [{"role": "user", "content": "a"}]
    assert turns(user(text("a"), IMAGE, text("b"))) == [{"role": "user", "content": [text("a"), IMAGE_PART, text("b")]}]
    url = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
    assert turns(user(url))[0]["content"] == [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    assert turns(user()) == [{"role": "user", "content": ""}]


def test_documents_are_text_or_files() -> None:
    plain = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "once"}}
    assert turns(user(plain)) == [{"role": "user", "content": "once"}]
    nested = {"type": "document", "source": {"type": "content", "content": [text("a"), IMAGE]}}
    assert turns(user(nested))[0]["content"] == [text("a"), IMAGE_PART]
    pdf = {"type": "document", "source": {**PNG, "media_type": "application/pdf"}, "title": "a.pdf"}
    assert turns(user(pdf))[0]["content"] == [
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,iVBO"}}
    ]


@pytest.mark.parametrize(
    ("said", "begins"),
    [({"title": "t"}, "Title: t\n"), ({"title": "t", "context": "c"}, "Title: t\nContext: c\n"), ({"title": None}, "")],
)
def test_the_title_and_the_context_of_a_document_stand_before_it(said: dict[str, Any], begins: str) -> None:
    for source in (
        {"type": "text", "media_type": "text/plain", "data": "once"},
        {"type": "content", "content": "once"},
    ):
        [message] = turns(user({"type": "document", "source": source, **said}))
        assert message["content"] == (f"{begins}\nonce" if begins else "once")
    blocks = {"type": "document", "source": {"type": "content", "content": [text("a"), IMAGE]}, **said}
    assert turns(user(blocks))[0]["content"] == [*([text(begins)] if begins else []), text("a"), IMAGE_PART]


def test_the_context_of_a_file_stands_before_it() -> None:
    pdf = {"type": "document", "source": {**PNG, "media_type": "application/pdf"}, "title": "a.pdf", "context": "c"}
    before, file = turns(user(pdf))[0]["content"]
    assert (before, file["file"]["filename"]) == (text("Context: c\n"), "a.pdf")


def test_results_of_tools_come_before_the_rest_of_their_turn_and_their_images_behind() -> None:
    called = {
        "role": "assistant",
        "content": [
            text("Let me see."),
            {"type": "tool_use", "id": "a", "name": "f", "input": {"x": [1, "é"]}},
            {"type": "tool_use", "id": "b", "name": "g", "input": {}},
        ],
    }
    results = user(
        text("Here."),
        {"type": "tool_result", "tool_use_id": "a", "content": [text("one"), IMAGE, text("two")], "is_error": False},
        {"type": "tool_result", "tool_use_id": "b"},
    )
    assistant, first, second, rest = turns(called, results)
    assert assistant["content"] == "Let me see."
    assert [(call["id"], call["type"], call["function"]["name"]) for call in assistant["tool_calls"]] == [
        ("a", "function", "f"),
        ("b", "function", "g"),
    ]
    assert [json.loads(call["function"]["arguments"]) for call in assistant["tool_calls"]] == [{"x": [1, "é"]}, {}]
    assert first == {"role": "tool", "tool_call_id": "a", "content": "one\ntwo"}
    assert second == {"role": "tool", "tool_call_id": "b", "content": ""}
    assert rest == {"role": "user", "content": [text("Here."), IMAGE_PART]}


def test_results_alone_add_no_message_of_the_user() -> None:
    result = {"type": "tool_result", "tool_use_id": "a", "content": "fine"}
    assert turns(user(result)) == [{"role": "tool", "tool_call_id": "a", "content": "fine"}]


def test_thinking_goes_back_as_reasoning() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "redacted_thinking", "data": "xyz"},
        text("So."),
    ]
    assert turns({"role": "assistant", "content": blocks}) == [
        {"role": "assistant", "content": "So.", "reasoning_content": "hm"}
    ]
    alone = [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]
    assert turns({"role": "assistant", "content": alone})[0]["content"] is None


# ── fields ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_limits_and_stops_have_chats_names() -> None:
    found = chat(stop_sequences=["END"], temperature=0.5, top_p=0.9, top_k=5, stream=True)
    assert (found["max_tokens"], found["max_completion_tokens"], found["stop"]) == (100, 100, ["END"])
    assert (found["temperature"], found["top_p"], found["top_k"], found["stream"]) == (0.5, 0.9, 5, True)
    assert "stop_sequences" not in found and "stop" not in chat(stop_sequences=[])


def test_tools_are_functions() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [
        {"name": "f", "description": "Looks.", "input_schema": schema, "cache_control": {"type": "ephemeral"}},
        {"type": "custom", "name": "g", "input_schema": {}, "strict": True},
    ]
    assert chat(tools=tools)["tools"] == [
        {"type": "function", "function": {"name": "f", "description": "Looks.", "parameters": schema}},
        {"type": "function", "function": {"name": "g", "parameters": {}, "strict": True}},
    ]
    assert "tools" not in chat(tools=[])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_the_choice_of_a_tool_is_chats(choice: dict[str, Any], expected: Any) -> None:
    found = chat(tool_choice=choice)
    assert found["tool_choice"] == expected and "parallel_tool_calls" not in found
    assert chat(tool_choice={**choice, "disable_parallel_tool_use": True})["parallel_tool_calls"] is False


def test_thinking_and_the_form_of_the_output_are_hints() -> None:
    found = chat(thinking={"type": "enabled", "budget_tokens": 2000})
    assert (found["reasoning_effort"], found["chat_template_kwargs"]) == ("medium", {"enable_thinking": True})
    assert "thinking" not in found
    found = chat(thinking={"type": "disabled"}, chat_template_kwargs={"a": 1})
    assert found["chat_template_kwargs"] == {"enable_thinking": False, "a": 1} and "reasoning_effort" not in found
    form = {"type": "json_schema", "schema": {"type": "object"}}
    found = chat(output_config={"effort": "high", "format": form}, thinking={"type": "adaptive"})
    assert found["reasoning_effort"] == "high"
    named = {"name": "output", "schema": {"type": "object"}, "strict": True}
    assert found["response_format"] == {"type": "json_schema", "json_schema": named}


def test_examples_of_a_tools_input_reach_the_model() -> None:
    tool = {
        "name": "f",
        "input_schema": {"type": "object"},
        "input_examples": [{"a": 1}],
        "allowed_callers": ["direct"],
    }
    [found] = chat(tools=[tool])["tools"]
    assert found["function"] == {"name": "f", "parameters": {"type": "object", "examples": [{"a": 1}]}}


def test_a_tool_that_failed_is_told_to_the_model() -> None:
    result = {"type": "tool_result", "tool_use_id": "a", "content": "no", "is_error": True}
    [found] = chat(messages=[user(result)])["messages"]
    assert found == {"role": "tool", "tool_call_id": "a", "content": "no", "is_error": True}


FORM = {"type": "json_schema", "schema": {"type": "object"}}


@pytest.mark.parametrize("dialect", [MessagesDialect(), CountDialect()], ids=["messages", "count_tokens"])
def test_the_form_of_the_output_is_read_under_its_older_name_too(dialect: Any) -> None:
    newer = dialect.read({**ASK, "output_config": {"format": FORM}}, "").inputs
    for more in ({}, {"output_config": {}}, {"output_config": {"format": FORM}}):
        assert dialect.read({**ASK, "output_format": FORM, **more}, "").inputs == newer
    plain = dialect.read(ASK, "").inputs
    for nothing in (None, {}):
        assert dialect.read({**ASK, "output_format": nothing}, "").inputs == plain
    other = {"output_format": {**FORM, "schema": {"type": "array"}}, "output_config": {"format": FORM}}
    with pytest.raises(BadRequest, match=r"'output_format' and .* have different values"):
        dialect.read({**ASK, **other}, "")


def test_advice_to_anthropics_servers_goes_no_further_and_unknown_fields_do() -> None:
    found = chat(
        metadata={"user_id": "u", "other": 1},
        service_tier="auto",
        container=None,
        context_management={"edits": []},
        cache_control={"type": "ephemeral"},
        seed=7,
        lucky_number=13,
        n=1,
        stream_options={"include_usage": True},
        stop=[],
        max_completion_tokens=100,
    )
    assert found == {
        "model": "m",
        "messages": ASK["messages"],
        "max_tokens": 100,
        "max_completion_tokens": 100,
        "user": "u",
        "seed": 7,
        "lucky_number": 13,
    }


def test_null_is_absent() -> None:
    nulls = dict.fromkeys(
        "system stream stop_sequences tools tool_choice thinking output_config metadata temperature top_k model".split()
    )
    assert chat(**nulls) == {name: value for name, value in chat().items() if name != "model"}
    tool = {"name": "f", "input_schema": {}, "description": None, "type": None, "strict": None}
    assert chat(tools=[tool])["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {}}}]


def test_a_class_with_messages_of_its_own_gets_them_as_they_were_sent() -> None:
    sent = {**ASK, "tools": [{"type": "web_search_20250305"}], "system": [text("x")], "thinking": {"type": "adaptive"}}
    body = copy.deepcopy({**sent, "temperature": None})
    assert MessagesDialect().read(body, "messages").inputs == sent
    assert body == {**sent, "temperature": None}


# ── mistakes ─────────────────────────────────────────────────────────────────────────────────────────────────────────

TURN = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"max_tokens": None}, "max_tokens", "missing_required_parameter"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": "many"}, "max_tokens", "invalid_type"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"model": 5}, "model", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": ["hi"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "tool", "content": "hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": [], "content": "hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        ({"messages": [user("hi")]}, TURN, "invalid_type"),
        ({"messages": [user({"text": "hi"})]}, TURN, "invalid_type"),
        ({"messages": [user({"type": "text"})]}, f"{TURN}.text", "missing_required_parameter"),
        ({"messages": [user({"type": "text", "text": 5})]}, f"{TURN}.text", "invalid_type"),
        ({"messages": [user({"type": "image"})]}, f"{TURN}.source", "missing_required_parameter"),
        ({"messages": [user({"type": "image", "source": {}})]}, f"{TURN}.source.type", "unsupported_value"),
        (
            {"messages": [user({"type": "image", "source": {"type": "file", "file_id": "f"}})]},
            f"{TURN}.source.type",
            "unsupported_value",
        ),
        (
            {"messages": [user({"type": "image", "source": {"type": "base64", "data": "x"}})]},
            f"{TURN}.source.media_type",
            "missing_required_parameter",
        ),
        (
            {"messages": [user({"type": "document", "source": {"type": "url", "url": "https://x"}})]},
            f"{TURN}.source.type",
            "unsupported_value",
        ),
        (
            {
                "messages": [
                    user({"type": "document", "source": {"type": "content", "content": [{"type": "document"}]}})
                ]
            },
            f"{TURN}.source.content[0].type",
            "unsupported_value",
        ),
        ({"messages": [user({"type": "container_upload"})]}, f"{TURN}.type", "unsupported_value"),
        ({"messages": [user({"type": "tool_result"})]}, f"{TURN}.tool_use_id", "missing_required_parameter"),
        (
            {"messages": [user({"type": "tool_result", "tool_use_id": "a", "content": 5})]},
            f"{TURN}.content",
            "invalid_type",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}]},
            f"{TURN}.id",
            "missing_required_parameter",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": "x"}]}
                ]
            },
            f"{TURN}.input",
            "invalid_type",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "server_tool_use"}]}]},
            f"{TURN}.type",
            "unsupported_value",
        ),
        ({"system": 5}, "system", "invalid_type"),
        ({"system": [IMAGE]}, "system[0].type", "unsupported_value"),
        ({"stop_sequences": "END"}, "stop_sequences", "invalid_type"),
        ({"stop_sequences": [5]}, "stop_sequences[0]", "invalid_type"),
        ({"stop_sequences": ["x"] * 17}, "stop_sequences", "invalid_value"),
        ({"stop_sequences": ["x" * 257]}, "stop_sequences[0]", "invalid_value"),
        ({"tools": {}}, "tools", "invalid_type"),
        ({"tools": [5]}, "tools[0]", "invalid_type"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema", "missing_required_parameter"),
        ({"tools": [{"type": "web_search_20250305", "name": "s"}]}, "tools[0].type", "unsupported_value"),
        ({"mcp_servers": [{"url": "https://x"}]}, "mcp_servers", "unsupported_value"),
        ({"compaction": {"type": "enabled"}}, "compaction", "unsupported_value"),
        ({"thread": {"type": "create"}}, "thread", "thread_unsupported_request"),
        ({"tool_choice": "auto"}, "tool_choice", "invalid_type"),
        ({"tool_choice": {"name": "f"}}, "tool_choice.type", "missing_required_parameter"),
        ({"tool_choice": {"type": "most"}}, "tool_choice.type", "invalid_value"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name", "missing_required_parameter"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"top_k": 1.5}, "top_k", "invalid_type"),
        ({"thinking": True}, "thinking", "invalid_type"),
        ({"thinking": {"budget_tokens": 1}}, "thinking.type", "missing_required_parameter"),
        ({"output_config": {"effort": 5}}, "output_config.effort", "invalid_type"),
        ({"output_config": {"verbosity": "low"}}, "output_config.verbosity", "unsupported_value"),
        (
            {"output_config": {"format": {"type": "json_schema"}}},
            "output_config.format.schema",
            "missing_required_parameter",
        ),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type", "unsupported_value"),
        ({"output_config": {"format": {"schema": {}}}}, "output_config.format.type", "missing_required_parameter"),
        ({"output_format": {"type": "json_object"}}, "output_format.type", "unsupported_value"),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema", "missing_required_parameter"),
        ({"output_format": "json"}, "output_format", "invalid_type"),
        ({"metadata": {"user_id": 5}}, "metadata.user_id", "invalid_type"),
        (
            {"tools": [{"name": "f", "input_schema": {}, "allowed_callers": ["code_execution_20250825"]}]},
            "tools[0].allowed_callers",
            "unsupported_value",
        ),
        (
            {"tools": [{"name": "f", "input_schema": {}, "input_examples": {}}]},
            "tools[0].input_examples",
            "invalid_type",
        ),
        ({"n": 2}, "n", "unsupported_value"),
        ({"n": "2"}, "n", "invalid_type"),
        ({"stop": ["END"]}, "stop", "unsupported_value"),
        ({"stop": "END"}, "stop", "unsupported_value"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_value"),
        ({"logprobs": True}, "logprobs", "unsupported_value"),
        ({"top_logprobs": 2}, "top_logprobs", "unsupported_value"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "partial": True}]},
            "messages[1].partial",
            "unsupported_value",
        ),
        ({"function_call": {"name": "f"}}, "function_call", "unsupported_value"),
        ({"max_completion_tokens": 5}, "max_completion_tokens", "unsupported_value"),
    ],
)
def test_a_mistake_names_its_place(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        chat(**fields)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert param in caught.value.message  # the only place for it in Anthropic's shape


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 200) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
kinds = st.sampled_from(["text", "image", "document", "tool_use", "tool_result", "thinking", "base64", "url", "tool"])
NAMES = ("text", "source", "content", "input", "id", "name", "tool_use_id", "thinking", "data", "title")


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Blocks of any kind, and lists of them, whose fields are drawn from `inner`."""
    block = st.fixed_dictionaries({"type": kinds}, optional=dict.fromkeys(NAMES, inner))
    return block | st.lists(block, max_size=2)


# Two levels, as in a tool result; an open recursion draws bodies that are too large to be tried.
values = json_values | objects(json_values | objects(json_values))
turn_values = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": values})
OPTIONAL = (
    "system tools tool_choice thinking output_config metadata stop_sequences mcp_servers model stream temperature"
)
bodies = st.fixed_dictionaries(
    {"max_tokens": st.just(5), "messages": st.lists(turn_values, max_size=2)},
    optional=dict.fromkeys(OPTIONAL.split(), values),
)


@given(bodies)
def test_any_body_is_read_or_refused(body: dict[str, Any]) -> None:
    before = copy.deepcopy(body)
    for method in ("chat_completions", "messages"):
        try:
            prepared = MessagesDialect().read(body, method)
        except BadRequest as error:
            assert error.param
        else:
            json.dumps(prepared.inputs)
            assert prepared.inputs["messages"]
    assert body == before


# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def count(*answers: Any) -> Any:
    dialect = CountDialect()
    encoder = dialect.encoder(dialect.read(ASK, "count_tokens"), Context("m", "0" * 32, 0))
    encoder.feed(list(answers))
    return json.loads(encoder.whole()[0])


def test_counting_asks_for_the_prompt_in_chats_words() -> None:
    tool = {"name": "f", "input_schema": {}}
    body = {"model": "m", "system": "s", "messages": [user(text("a"))], "tools": [tool], "max_tokens": None}
    body["compaction"] = {"type": "enabled"}  # counts nothing
    prepared = CountDialect().read(body, "count_tokens")
    assert prepared.model == "m" and not prepared.stream
    assert prepared.inputs == {
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    }


def test_a_count_is_a_number_or_an_object_with_one() -> None:
    assert count(7) == count({"input_tokens": 7}) == {"input_tokens": 7}


@pytest.mark.parametrize("answers", [(), ("7",), (7.5,), (-1,), (True,), ({"tokens": 7},), (None,)])
def test_a_count_that_is_none_is_the_models_mistake(answers: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidOutput):
        count(*answers)


def test_a_model_may_say_that_it_cannot_count_this() -> None:
    with pytest.raises(HTTPError, match="no"):
        count({"error": {"message": "no"}, "status": 400})


# ── an answer that was begun ─────────────────────────────────────────────────────────────────────────────────────────


def run(dialect: Any, messages: Any, method: str = "", **capabilities: Any) -> Any:
    """What the model's method gets."""
    asked = {"max_tokens": 5, "messages": messages}
    [inputs] = dialect.calls(dialect.read(asked, method), Capabilities(**capabilities))
    return inputs


@pytest.mark.parametrize("dialect", [MessagesDialect(), CountDialect()], ids=["messages", "count_tokens"])
def test_a_last_turn_of_the_assistant_is_continued_by_models_that_can(dialect: Any) -> None:
    for content in ("One", [text("One")], [text("O"), text("ne")], "", [text("")]):
        begun = [*ASK["messages"], {"role": "assistant", "content": content}]
        assert run(dialect, begun, prefill=True)["continue_final_message"] is True
        assert "continue_final_message" not in run(dialect, begun)  # a class gets what it always got
        over = [*begun, {"role": "user", "content": "Go on."}]
        assert "continue_final_message" not in run(dialect, over, prefill=True)


@pytest.mark.parametrize("content", ["One ", "One\n", [text("One\t")], [text("One"), text(" ")]])
def test_what_was_begun_must_not_end_with_a_blank(content: Any) -> None:
    begun = [*ASK["messages"], {"role": "assistant", "content": content}]
    for dialect in (MessagesDialect(), CountDialect()):
        with pytest.raises(BadRequest, match="final assistant content cannot end with trailing whitespace"):
            run(dialect, begun, prefill=True)
        assert run(dialect, begun)["messages"][-1]["content"]


def test_a_class_with_messages_of_its_own_gets_the_request_as_it_is() -> None:
    begun = [*ASK["messages"], {"role": "assistant", "content": "One "}]
    assert run(MessagesDialect(), begun, "messages", prefill=True) == {"max_tokens": 5, "messages": begun}


def test_all_that_makes_the_prompt_is_counted() -> None:
    tool = {"name": "f", "input_schema": {"type": "object"}}
    asked = {**ASK, "tools": [tool], "tool_choice": {"type": "none"}, "thinking": {"type": "enabled"}}
    inputs = CountDialect().read(asked, "count_tokens").inputs
    assert (inputs["tool_choice"], inputs["reasoning_effort"]) == ("none", "medium")
    assert inputs["chat_template_kwargs"] == {"enable_thinking": True} and len(inputs["tools"]) == 1
    more = {
        "enable_thinking": False,
        "think": "low",
        "reasoning": {"enabled": False},
        "documents": [{"text": "x"}],
        "add_generation_prompt": False,
        "add_special_tokens": True,
        "truncate_prompt_tokens": 3,
        "truncation_side": "right",
    }
    assert CountDialect().read({**ASK, **more}, "count_tokens").inputs == {"messages": ASK["messages"], **more}
    filled = CountDialect().read({**ASK, "truncate_prompt_tokens": -1}, "count_tokens").inputs
    assert filled["max_tokens"] == ASK["max_tokens"]  # the prompt is what the answer leaves room for
