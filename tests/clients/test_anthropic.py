"""Anthropic's SDK: messages streamed and whole, with tools, thoughts, counts, models and errors."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import anthropic
import pydantic
import pytest

from .asking import (
    ANSWER,
    CALLED,
    FUNCTIONS,
    PATIENCE,
    QUESTION,
    REPORT,
    SUM,
    THOUGHT,
    TINY,
    TOLD,
    TOTAL,
    WEATHER,
    script,
    steps,
    user,
    wait_for,
)

TOOLS: list[Any] = [
    {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]} for one in FUNCTIONS
]


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


def whole(claude: anthropic.Anthropic, **fields: Any) -> Any:
    return claude.messages.create(**{"max_tokens": 200, **fields})


def added_up(claude: anthropic.Anthropic, **fields: Any) -> Any:
    """The same by the SDK's accumulator."""
    with claude.messages.stream(**{"max_tokens": 200, **fields}) as stream:
        return stream.get_final_message()


WAYS = pytest.mark.parametrize("ask", [whole, added_up])


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": user(QUESTION)},
        {"messages": user(WEATHER), "tools": TOOLS},
        {"messages": user(SUM), "thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"messages": user(QUESTION), "max_tokens": 2},
    ],
    ids=["text", "tools", "thinking", "cut"],
)
def test_the_stream_adds_up_to_the_answer_that_is_not_streamed(
    claude: anthropic.Anthropic, fields: dict[str, Any]
) -> None:
    asked = {"model": TINY, "extra_body": {"temperature": 0}, **fields}
    whole(claude, **asked)  # so that as much of the prompt is remembered for both
    one, other = (plain(ask(claude, **asked)) for ask in (whole, added_up))
    assert one == other
    assert one["stop_reason"] in ("end_turn", "tool_use", "max_tokens") and one["usage"]["output_tokens"] > 0


def plain(message: Any) -> Any:
    """A message without what is new in each."""
    value = json.loads(message.model_dump_json(exclude={"id"}, exclude_none=True))
    for block in value["content"]:
        block.pop("id", None)
    return value


def test_an_async_client_reads_both(url: str, key: str) -> None:
    async def run() -> None:
        async with anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0, timeout=PATIENCE) as claude:
            asked: dict[str, Any] = {"model": TINY, "max_tokens": 100, "messages": user(QUESTION)}
            message = await claude.messages.create(**asked)
            assert message.content[0].text == ANSWER and message._request_id
            async with claude.messages.stream(**asked) as stream:
                assert "".join([text async for text in stream.text_stream]) == ANSWER
            events = [event.type async for event in await claude.messages.create(**asked, stream=True)]
            assert events[0] == "message_start" and events[-2:] == ["message_delta", "message_stop"]

    asyncio.run(run())


@WAYS
def test_a_call_and_its_result_come_to_the_answer(claude: anthropic.Anthropic, ask: Any) -> None:
    messages = user(WEATHER)
    first = ask(claude, model=TINY, messages=messages, tools=TOOLS)
    call = first.content[-1]
    assert (call.type, call.name, call.input, first.stop_reason) == ("tool_use", *CALLED, "tool_use")
    result = {"type": "tool_result", "tool_use_id": call.id, "content": REPORT}
    messages = [*messages, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = ask(claude, model=TINY, messages=messages, tools=TOOLS)
    assert (second.content[0].text, second.stop_reason) == (TOLD, "end_turn")


@WAYS
def test_a_tool_can_be_named_or_required(claude: anthropic.Anthropic, ask: Any) -> None:
    for choice, name in (({"type": "tool", "name": "get_time"}, "get_time"), ({"type": "any"}, "get_weather")):
        message = ask(claude, model=TINY, messages=user(WEATHER), tools=TOOLS, tool_choice=choice)
        assert [(block.name, block.input) for block in message.content] == [(name, CALLED[1])]
    message = ask(claude, model=TINY, messages=user(WEATHER), tools=TOOLS, tool_choice={"type": "none"})
    assert [block.type for block in message.content] == ["text"]


@WAYS
def test_thoughts_are_a_block_before_the_text(claude: anthropic.Anthropic, ask: Any) -> None:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    message = ask(claude, model=TINY, messages=user(SUM), thinking=thinking)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert (message.content[0].thinking, message.content[1].text) == (THOUGHT, TOTAL)


@WAYS
def test_calls_in_parallel_are_blocks_in_order(claude: anthropic.Anthropic, ask: Any) -> None:
    calls = [{"name": name, "arguments": {"city": name * 20}} for name in ("a", "b", "c")]
    message = ask(claude, model="script", messages=script("let me see", {"tool_calls": calls}))
    assert [block.type for block in message.content] == ["text", *["tool_use"] * 3]
    assert [{"name": block.name, "arguments": block.input} for block in message.content[1:]] == calls


def test_an_answer_of_a_given_form_is_parsed(claude: anthropic.Anthropic) -> None:
    text = '{"city": "Oslo", "degrees": -3}'
    asked: dict[str, Any] = {"model": "script", "max_tokens": 100, "output_format": Weather}
    message = claude.messages.parse(**asked, messages=script(text[:9], text[9:]))
    assert message.parsed_output == Weather(city="Oslo", degrees=-3)
    with claude.messages.stream(**asked, messages=script(text[:9], text[9:])) as stream:
        assert stream.get_final_message().parsed_output == Weather(city="Oslo", degrees=-3)


@pytest.mark.parametrize("stream", [False, True])
def test_the_sdks_own_loop_calls_the_tool_and_tells_its_result(claude: anthropic.Anthropic, stream: bool) -> None:
    def answer(city: str) -> str:
        return REPORT

    tools = [anthropic.beta_tool(answer, **tool) for tool in TOOLS]  # as tiny-chat knows them
    asked: dict[str, Any] = {"model": TINY, "max_tokens": 200, "messages": user(WEATHER), "stream": stream}
    last: Any = claude.beta.messages.tool_runner(tools=tools, **asked).until_done()
    assert last.content[0].text == TOLD


def test_a_conversation_that_anthropic_would_hold_is_sent_whole(claude: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {"model": "script", "max_tokens": 100}
    thread = claude.beta.messages.thread(**asked, unsupported_request_behavior="continue_unthreaded")
    thread.append({"role": "user", "content": "first"})
    assert thread.send().content[0].text == "first"
    thread.append({"role": "user", "content": steps(["show", "messages"])})
    seen = json.loads(thread.send().content[0].text)["messages"]
    assert [message["role"] for message in seen] == ["user", "assistant", "user"]
    strict = claude.beta.messages.thread(**asked)
    strict.append({"role": "user", "content": "first"})
    with pytest.raises(anthropic.BadRequestError, match="thread"):
        strict.send()


def test_the_model_sees_the_request_in_openais_words(claude: anthropic.Anthropic) -> None:
    asked = [{"type": "text", "text": steps(["show", "messages", "stop", "max_tokens", "top_k"])}]
    message = claude.messages.create(
        model="script",
        max_tokens=7,
        system="Be brief.",
        stop_sequences=["END"],
        messages=[{"role": "user", "content": asked}],  # type: ignore[typeddict-item]
        extra_body={"top_k": 5},
    )
    seen = json.loads(message.content[0].text)
    assert seen["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (seen["stop"], seen["max_tokens"], seen["top_k"]) == (["END"], 7, 5)


def test_tokens_are_counted_by_the_model(claude: anthropic.Anthropic) -> None:
    short = claude.messages.count_tokens(model=TINY, messages=user(QUESTION)).input_tokens
    long = claude.messages.count_tokens(model=TINY, messages=user(QUESTION), tools=TOOLS, system="Be brief.")
    assert long.input_tokens > short > 0
    asked = whole(claude, model=TINY, messages=user(QUESTION)).usage
    assert asked.input_tokens + (asked.cache_read_input_tokens or 0) == short


def test_models_are_listed_and_retrieved(claude: anthropic.Anthropic) -> None:
    assert {TINY, "minilm", "script"} <= {model.id for model in claude.models.list()}
    assert claude.models.retrieve(TINY).display_name == TINY
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("nobody")


@pytest.mark.parametrize("stream", [False, True])
def test_each_mistake_has_its_class_and_type(claude: anthropic.Anthropic, stream: bool) -> None:
    wrong: list[tuple[str, list[Any], type[anthropic.APIStatusError], str]] = [
        ("nobody", user("x"), anthropic.NotFoundError, "not_found_error"),
        ("minilm", user("x"), anthropic.NotFoundError, "not_found_error"),
        ("script", [], anthropic.BadRequestError, "invalid_request_error"),
        ("script", script(["raise", 401, "no"]), anthropic.AuthenticationError, "authentication_error"),
        ("script", script(["raise", 403, "no"]), anthropic.PermissionDeniedError, "permission_error"),
        ("script", script(["raise", 429, "no"]), anthropic.RateLimitError, "rate_limit_error"),
        ("script", script(["boom"]), anthropic.InternalServerError, "api_error"),
        ("script", script(["raise", 503, "no"]), anthropic.InternalServerError, "overloaded_error"),
        ("hasty", script(["wait", "/nowhere"]), anthropic.InternalServerError, "timeout_error"),
        ("broken", user("x"), anthropic.InternalServerError, "api_error"),
    ]
    for model, messages, kind, name in wrong:
        with pytest.raises(kind) as caught:
            claude.messages.create(model=model, max_tokens=10, messages=messages, stream=stream)
        body: Any = caught.value.body
        assert (body["type"], body["error"]["type"]) == ("error", name) and body["request_id"]
        assert caught.value.request_id == body["request_id"] and "secret" not in str(caught.value)


def test_a_prompt_that_is_too_long_is_said_to_be(claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        claude.messages.create(model=TINY, max_tokens=10, messages=user("long " * 3000))


def test_a_key_that_is_wrong_is_said_to_be(url: str, key: str) -> None:
    stranger = anthropic.Anthropic(base_url=url, api_key="sk-other", max_retries=0)
    with stranger, pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(model=TINY, max_tokens=10, messages=user("x"))
    header = {"x-api-key": key, "authorization": anthropic.Omit()}
    with anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0, default_headers=header) as claude:
        assert claude.messages.create(model=TINY, max_tokens=100, messages=user(QUESTION)).content[0].text == ANSWER


def test_an_error_within_a_stream_raises_while_reading(claude: anthropic.Anthropic) -> None:
    seen = ""
    asked: dict[str, Any] = {"model": "script", "max_tokens": 10, "messages": script("so far ", ["boom"])}
    with (
        pytest.raises(anthropic.APIStatusError, match="raised an error; `gateway logs "),
        claude.messages.stream(**asked) as stream,
    ):
        for text in stream.text_stream:
            seen += text
    assert seen == "so far "


def test_what_may_pass_is_tried_again_until_it_does(claude: anthropic.Anthropic, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    messages = script(["fail", str(calls), 2], "at last")
    message = claude.with_options(max_retries=2).messages.create(model="script", max_tokens=10, messages=messages)
    assert message.content[0].text == "at last" and len(calls.read_text().splitlines()) == 3


def test_closing_a_stream_ends_the_models_code(claude: anthropic.Anthropic, tmp_path: Path) -> None:
    left = tmp_path / "left"
    messages = script(["finally", str(left)], "x", ["wait", "/nowhere"])
    stream = claude.messages.create(model="script", max_tokens=10, messages=messages, stream=True)
    next(iter(stream))
    stream.close()
    wait_for(left)
