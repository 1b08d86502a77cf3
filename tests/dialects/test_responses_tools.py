"""Tools that are no plain functions on /v1/responses: grouped, freeform, and those that only OpenAI can run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.responses import tools as tools_module
from gateway.dialects.responses.items import messages_of
from gateway.dialects.responses.route import ResponsesDialect
from gateway.dialects.responses.tools import MAX_MEMBERS, MAX_NAME, arguments_of, input_of, read_tools
from gateway.errors import BadRequest

from .responses_sdk import events, stream_of, whole_of

TIME = {"type": "function", "name": "time", "parameters": {"type": "object"}, "strict": False}
SPAWN = {"type": "function", "name": "spawn", "description": "Makes one.", "parameters": {"type": "object"}}
AGENTS = {"type": "namespace", "name": "agents", "description": "Other agents.", "tools": [SPAWN, TIME]}
SEARCH = {"type": "web_search", "external_web_access": False}
PATCH = {"type": "custom", "name": "patch", "description": "Changes files."}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}


def offered(**fields: Any) -> list[str]:
    """The names of the functions that the model hears of."""
    found = ResponsesDialect().read({"input": "hi", **fields}, "chat_completions")
    return [tool["function"]["name"] for tool in found.inputs.get("tools", [])]


def left_out(**fields: Any) -> tuple[str, ...]:
    return ResponsesDialect().read({"input": "hi", **fields}, "chat_completions").left_out


def choice(**fields: Any) -> Any:
    return ResponsesDialect().read({"input": "hi", **fields}, "chat_completions").inputs.get("tool_choice")


def calls(tools: list[Any], *made: tuple[str, str], stream: bool = False) -> list[dict[str, Any]]:
    """The output items of a model that makes these calls, streamed or whole."""
    values = [{"tool_calls": [{"name": name, "arguments": arguments} for name, arguments in made]}]
    answer = events(stream_of(values, tools=tools))[-1]["response"] if stream else whole_of(values, tools=tools)
    found: list[dict[str, Any]] = answer["output"]
    return found


# ── what the model hears of ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_namespace_is_its_functions_under_its_name() -> None:
    assert offered(tools=[TIME, AGENTS, SEARCH]) == ["time", "agents__spawn", "agents__time"]
    inner = {**AGENTS, "name": "mcp__files__"}
    found = read_tools({"tools": [inner]}).nested[0]["function"]
    assert found == {"name": "mcp__files__spawn", "description": "Makes one.", "parameters": {"type": "object"}}


def test_a_function_that_is_called_like_another_s_member_does_not_hide_it() -> None:
    tools = [{"type": "function", "name": "agents__spawn"}, AGENTS]
    names = offered(tools=tools)
    assert len(set(names)) == len(names) == 3
    items = calls(tools, (names[0], "{}"), (names[1], "{}"))
    assert [(item.get("namespace"), item["name"]) for item in items] == [(None, names[0]), ("agents", "spawn")]


def test_a_freeform_tool_is_a_function_of_one_text() -> None:
    [tool] = read_tools({"tools": [{**PATCH, "format": {"type": "text"}}]}).nested
    assert tool["function"]["parameters"]["required"] == ["input"] and left_out(tools=[PATCH]) == ()
    assert tool["function"]["description"].startswith("Changes files.")
    ruled = read_tools({"tools": [{**PATCH, "format": GRAMMAR}]})
    assert GRAMMAR["definition"] in ruled.nested[0]["function"]["description"]
    assert ruled.left_out == ("patch.format",)


def test_what_only_openai_can_run_is_left_out_once_and_named() -> None:
    tools = [SEARCH, TIME, {"type": "local_shell"}, SEARCH, {"type": "mcp", "server_label": "x"}]
    assert offered(tools=tools) == ["time"]
    assert left_out(tools=tools) == ("web_search", "local_shell", "mcp")
    assert left_out(tools=[TIME], tool_choice="auto") == ()
    assert left_out(tools=[{**AGENTS, "tools": [{"type": "computer_use_preview"}]}]) == ("agents.computer_use_preview",)
    assert offered(tools=[SEARCH], tool_choice="auto") == [] and choice(tools=[SEARCH], tool_choice="auto") is None


def test_a_client_s_word_cannot_break_a_header() -> None:
    [name] = left_out(tools=[{"type": "x\r\nset-cookie: é" + "y" * 200}])
    assert name.isascii() and name.isprintable() and " " not in name and len(name) <= 64


def test_the_answer_shows_the_tools_that_it_was_made_with() -> None:
    assert whole_of(["hi"], tools=[SEARCH, AGENTS, PATCH])["tools"] == [AGENTS, PATCH]


MANY = 20_000  # a pair of loops over them takes minutes


@contextmanager
def soon() -> Iterator[None]:
    """What takes a time that grows with the number of tools is done by then, on a busy machine, too."""
    began = time.process_time()
    yield
    assert time.process_time() - began < 10  # 0.7 s


def test_very_many_tools_of_one_name_are_told_apart_in_a_time_that_grows_with_their_number() -> None:
    inner = [{"type": "function", "name": "a"}] * MANY
    with soon():
        names = offered(tools=[{"type": "namespace", "name": "n", "tools": inner}])
    assert len(set(names)) == MANY and max(map(len, names)) < 20
    taken = [{"type": "function", "name": f"n__a_{number}"} for number in range(MANY)]
    with soon():
        names = offered(tools=[*taken, {"type": "namespace", "name": "n", "tools": inner[:1000]}])
    assert len(set(names)) == MANY + 1000


def test_a_name_is_no_longer_than_a_function_s_may_be() -> None:
    for name, param in ((MAX_NAME, ""), (MAX_NAME + 1, "tools[0].name")):
        for tool in ({**AGENTS, "name": "n" * name}, {**TIME, "name": "n" * name}, {**PATCH, "name": "n" * name}):
            if not param:
                assert offered(tools=[tool])
                continue
            with pytest.raises(BadRequest, match=f"at most {MAX_NAME} are allowed") as error:
                offered(tools=[tool])
            assert error.value.param == param
    with pytest.raises(BadRequest) as error:
        offered(tools=[{**AGENTS, "tools": [SPAWN, {**TIME, "name": "n" * (MAX_NAME + 1)}]}])
    assert error.value.param == "tools[0].tools[1].name"


def test_the_members_of_all_namespaces_are_bounded() -> None:
    half = {"type": "namespace", "name": "n", "tools": [{}] * (MAX_MEMBERS // 2)}
    with soon():
        assert left_out(tools=[half, half]) == ("n.None",)
        with pytest.raises(BadRequest, match=f"at most {MAX_MEMBERS} tools") as error:
            left_out(tools=[half, half, {**AGENTS, "tools": [SPAWN]}])
    assert error.value.param == "tools[2].tools"


def test_of_a_long_word_only_the_part_that_is_shown_is_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[int] = []

    def clean(with_: str, word: str) -> str:
        cleaned.append(len(word))
        return word

    monkeypatch.setattr(tools_module, "_PLAIN", clean)
    word = "!" * 100_000
    assert left_out(tools=[{"type": word}, {**AGENTS, "tools": [{"type": word}]}])
    assert cleaned and max(cleaned) < 1000


def test_very_many_calls_and_choices_of_very_many_tools_are_read_in_a_time_that_grows_with_their_number() -> None:
    functions = [{"type": "function", "name": f"f{number}"} for number in range(MANY)]
    tools = [*functions, {"type": "namespace", "name": "n", "tools": functions}]
    also = [{"type": "namespace", "name": f"n{number % 2}"} for number in range(MANY)]
    with soon():
        found = read_tools({"tools": tools, "tool_choice": {"type": "allowed_tools", "tools": [*functions, *also]}})
        last = [found.called("n", f"f{MANY - 1}") for _ in range(MANY)]
    assert len(found.allowed or ()) == MANY and set(last) == {f"n__f{MANY - 1}"}
    with pytest.raises(BadRequest, match="is not one of the tools") as refused:
        read_tools({"tools": tools, "tool_choice": {"type": "function", "name": "none"}})
    assert len(str(refused.value)) < 200


def test_thoughts_between_very_many_calls_are_put_together_once() -> None:
    thought = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so " * 100}]}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    with soon():
        [message] = messages_of([thought, call] * MANY)
    assert len(message["tool_calls"]) == MANY and message["reasoning_content"].count("so") == 100 * MANY


def test_what_a_choice_names_with_other_values_than_texts_is_refused() -> None:
    for tool in ({"type": "function", "name": "time", "namespace": ["x"]}, {"type": "namespace", "name": ["x"]}):
        with pytest.raises(BadRequest, match="tool_choice"):
            read_tools({"tools": [TIME], "tool_choice": {"type": "allowed_tools", "tools": [tool]}})


# ── which of them it may or must call ────────────────────────────────────────────────────────────────────────────────


def test_a_choice_names_a_tool_as_its_client_does() -> None:
    tools = [TIME, AGENTS, PATCH]
    named = {"type": "function", "name": "spawn"}
    for given_choice, name in (
        (named, "agents__spawn"),
        ({**named, "namespace": "agents"}, "agents__spawn"),
        ({"type": "function", "name": "time"}, "time"),
        ({"type": "function", "name": "time", "namespace": "agents"}, "agents__time"),
        ({"type": "custom", "name": "patch"}, "patch"),
    ):
        assert choice(tools=tools, tool_choice=given_choice) == {"type": "function", "function": {"name": name}}
    allowed = [{"type": "namespace", "name": "agents"}, {"type": "custom", "name": "patch"}, SEARCH]
    wanted = {"type": "allowed_tools", "mode": "required", "tools": allowed}
    assert offered(tools=tools, tool_choice=wanted) == ["agents__spawn", "agents__time", "patch"]
    assert left_out(tools=tools, tool_choice=wanted) == ("web_search",)


@pytest.mark.parametrize("mode", ["auto", "none", "required", None])
def test_a_choice_that_others_can_meet_needs_no_hosted_tool(mode: str | None) -> None:
    assert offered(tools=[TIME, SEARCH], tool_choice=mode) == ["time"]
    assert choice(tools=[TIME, SEARCH], tool_choice=mode) == mode
    assert choice(tools=[TIME], tool_choice="any") == "required"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [SEARCH, TIME], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
        ({"tools": [TIME], "tool_choice": {"type": "local_shell"}}, "tool_choice.type"),
        ({"tools": [SEARCH], "tool_choice": "required"}, "tool_choice"),
        (
            {"tools": [SEARCH, TIME], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [SEARCH]}},
            "tool_choice.tools",
        ),
    ],
)
def test_a_hosted_tool_that_must_be_called_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as error:
        offered(**fields)
    assert (error.value.status, error.value.param, error.value.code) == (400, param, "unsupported_value")


def test_a_custom_tool_is_not_chosen_as_a_function() -> None:
    with pytest.raises(BadRequest, match="not one of the tools: patch"):
        choice(tools=[PATCH], tool_choice={"type": "function", "name": "patch"})


# ── what comes back ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_comes_back_in_the_client_s_names(stream: bool) -> None:
    made = (("agents__spawn", '{"a": 1}'), ("time", "{}"), ("patch", arguments_of('say "hä"\n')))
    spawn, time, patch = calls([TIME, AGENTS, PATCH], *made, stream=stream)
    assert (spawn["type"], spawn["namespace"], spawn["name"]) == ("function_call", "agents", "spawn")
    assert spawn["arguments"] == '{"a": 1}' and spawn["id"].startswith("fc_")
    assert (time["type"], time["name"]) == ("function_call", "time") and "namespace" not in time
    assert (patch["type"], patch["name"], patch["input"]) == ("custom_tool_call", "patch", 'say "hä"\n')
    assert patch["id"].startswith("ctc_") and "arguments" not in patch


def test_a_freeform_call_is_streamed_in_openai_s_events() -> None:
    values = [{"tool_calls": [{"index": 0, "id": "c", "function": {"name": "patch", "arguments": '{"inp'}}]}]
    values += [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in ('ut": "a', 'b"}')]
    told = events(stream_of(values, tools=[PATCH]))[2:-1]
    assert [event["type"].removeprefix("response.") for event in told] == [
        *("output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done")
    ]
    added, delta, done, item = told
    assert added["item"]["input"] == "" and added["item"]["status"] == "in_progress"
    assert delta["delta"] == done["input"] == item["item"]["input"] == "ab"
    assert {event["item_id"] for event in (delta, done)} == {item["item"]["id"]}


def test_what_the_model_said_before_it_hears_again_in_its_own_names() -> None:
    tools = [AGENTS, PATCH]
    made = calls(tools, ("agents__spawn", "{}"), ("patch", arguments_of("x")))
    outputs = [
        {"type": "function_call_output", "call_id": made[0]["call_id"], "output": "one"},
        {"type": "custom_tool_call_output", "call_id": made[1]["call_id"], "output": "two"},
    ]
    for later in (tools, []):  # also where they are not offered any more
        asked = {"input": [{"role": "user", "content": "hi"}, *made, *outputs], "tools": later}
        found = ResponsesDialect().read(asked, "chat_completions").inputs["messages"]
        functions = [call["function"] for call in found[1]["tool_calls"]]
        assert functions == [
            {"name": "agents__spawn", "arguments": "{}"},
            {"name": "patch", "arguments": '{"input":"x"}'},
        ]
        assert [(message["role"], message["content"]) for message in found[2:]] == [("tool", "one"), ("tool", "two")]


@given(st.text())
def test_any_text_goes_through_a_freeform_call_unchanged(text: str) -> None:
    assert input_of(arguments_of(text)) == text


@given(st.text(), st.integers(min_value=0))
def test_of_a_freeform_call_that_broke_off_its_beginning_is_there(text: str, cut: int) -> None:
    arguments = arguments_of(text)
    found = input_of(arguments[: cut % len(arguments)])
    assert text.startswith(found)
    assert len(found) >= cut % len(arguments) - len('{"input":"') - 12 - arguments.count("\\") * 6


@pytest.mark.parametrize("written", ["*** Begin Patch\n", '"a" and b', "12", '{"patch": "x"}', "[1]", "{x"])
def test_what_is_no_such_object_is_the_input_as_it_was_written(written: str) -> None:
    assert input_of(written) == written


def test_an_input_that_would_take_too_long_to_read_is_the_whole_text() -> None:
    written = '{"input":[' + "[]," * 2_000_000 + "[]]}"
    assert input_of(written) is written


def test_a_method_of_its_own_gets_the_tools_as_they_were_sent() -> None:
    asked = {"input": "hi", "tools": [SEARCH, AGENTS, PATCH], "tool_choice": {"type": "web_search"}}
    found = ResponsesDialect().read(asked, "responses")
    assert found.inputs == asked and found.left_out == ()
