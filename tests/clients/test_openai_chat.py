"""OpenAI's SDK on chat: sync and async, streamed and whole, with tools, thoughts and answers of a given form."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pydantic
import pytest

from .asking import (
    ANSWER,
    CALLED,
    PATIENCE,
    QUESTION,
    REPORT,
    SUM,
    THINK,
    THOUGHT,
    TINY,
    TOLD,
    TOOLS,
    TOTAL,
    WEATHER,
    script,
    user,
)


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


def whole(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**fields)


def added_up(client: openai.OpenAI, **fields: Any) -> Any:
    """The same by the SDK's accumulator."""
    with client.chat.completions.stream(**fields, stream_options={"include_usage": True}) as stream:
        return stream.get_final_completion()


WAYS = pytest.mark.parametrize("ask", [whole, added_up])


@WAYS
def test_the_answer_is_the_same_streamed_and_whole(client: openai.OpenAI, ask: Any) -> None:
    answer = ask(client, model=TINY, messages=user(QUESTION), temperature=0)
    assert answer.choices[0].message.content == ANSWER and answer.choices[0].finish_reason == "stop"
    assert answer.model == TINY and answer.id.startswith("chatcmpl-")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > usage.completion_tokens > 0


def test_an_async_client_reads_both(url: str, key: str) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE) as client:
            asked: dict[str, Any] = {"model": TINY, "messages": user(QUESTION), "temperature": 0}
            one, other = await asyncio.gather(
                client.chat.completions.create(**asked), client.chat.completions.create(**asked, stream=True)
            )
            pieces = [chunk.choices[0].delta.content or "" async for chunk in other]
            assert one.choices[0].message.content == "".join(pieces) == ANSWER and len(pieces) > 3

    asyncio.run(run())


def test_a_stream_has_one_id_one_role_and_usage_only_when_asked(client: openai.OpenAI) -> None:
    for options in ({}, {"stream_options": {"include_usage": True}}):
        chunks = list(client.chat.completions.create(model="script", messages=script("a", "b"), stream=True, **options))
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
        assert [delta.role for delta in deltas if delta.role] == ["assistant"]
        assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [bool(options)]
        assert [chunk.choices for chunk in chunks if not chunk.choices] == [[]] * bool(options)


@WAYS
def test_several_choices_come_each_with_its_index(client: openai.OpenAI, ask: Any) -> None:
    answer = ask(client, model="script", messages=script("one ", "answer"), n=3)
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [
        (index, "one answer") for index in range(3)
    ]


def calls_of(answer: Any) -> list[Any]:
    found = answer.choices[0].message.tool_calls or ()
    return [(call.function.name, json.loads(call.function.arguments)) for call in found]


@WAYS
def test_a_call_and_its_result_come_to_the_answer(client: openai.OpenAI, ask: Any) -> None:
    messages = user(WEATHER)
    first = ask(client, model=TINY, messages=messages, tools=TOOLS)
    assert calls_of(first) == [CALLED] and first.choices[0].finish_reason == "tool_calls"
    call = first.choices[0].message.tool_calls[0]
    assert call.type == "function" and call.id.startswith("call_")
    messages = [*messages, first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": REPORT}]
    second = ask(client, model=TINY, messages=messages, tools=TOOLS)
    assert (second.choices[0].message.content, second.choices[0].finish_reason) == (TOLD, "stop")


@WAYS
def test_a_tool_can_be_named_required_or_forbidden(client: openai.OpenAI, ask: Any) -> None:
    time = {"type": "function", "function": {"name": "get_time"}}
    for choice, expected in ((time, [("get_time", CALLED[1])]), ("required", [CALLED]), ("none", [])):
        assert calls_of(ask(client, model=TINY, messages=user(WEATHER), tools=TOOLS, tool_choice=choice)) == expected
    assert calls_of(ask(client, model=TINY, messages=user(SUM), tools=TOOLS, tool_choice="auto")) == []


@WAYS
def test_calls_in_parallel_keep_their_order_and_arguments(client: openai.OpenAI, ask: Any) -> None:
    calls = [{"name": name, "arguments": {"city": name * 20}} for name in ("a", "b", "c")]
    answer = ask(client, model="script", messages=script("let me see", {"tool_calls": calls}))
    assert calls_of(answer) == [(call["name"], call["arguments"]) for call in calls]
    assert answer.choices[0].message.content == "let me see"
    assert len({call.id for call in answer.choices[0].message.tool_calls}) == 3


def test_arguments_are_parsed_by_the_class_of_a_tool(client: openai.OpenAI) -> None:
    call = {"name": "Weather", "arguments": {"city": "Oslo", "degrees": -3}}
    asked: dict[str, Any] = {
        "model": "script",
        "messages": script({"tool_calls": [call]}),
        "tools": [openai.pydantic_function_tool(Weather)],
    }
    with client.chat.completions.stream(**asked) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        answers = [client.chat.completions.parse(**asked), stream.get_final_completion()]
    assert [event.parsed_arguments for event in done] == [Weather(city="Oslo", degrees=-3)]
    for answer in answers:
        (found,) = answer.choices[0].message.tool_calls or ()
        assert found.function.parsed_arguments == Weather(city="Oslo", degrees=-3)


def test_many_are_asked_at_once(url: str, key: str) -> None:
    async def run() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, timeout=PATIENCE) as client:
            ask = client.chat.completions.create
            answers = [ask(model="script", messages=script(str(number), " times")) for number in range(64)]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*answers)]

    assert asyncio.run(run()) == [f"{number} times" for number in range(64)]


def test_the_bare_response_has_its_headers(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "script", "messages": script("one ", "two")}
    raw = client.chat.completions.with_raw_response.create(**asked, extra_headers={"x-request-id": "mine"})
    assert raw.headers["x-request-id"] == raw.headers["request-id"] == "mine"
    assert raw.parse().choices[0].message.content == "one two"
    with client.chat.completions.with_streaming_response.create(**asked, stream=True) as streamed:
        assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
        lines = [line for line in streamed.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"


def test_functions_of_the_old_kind_are_called_as_well(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=TINY, messages=user(WEATHER), functions=[tool["function"] for tool in TOOLS]
    )
    call = answer.choices[0].message.function_call
    assert call and (call.name, json.loads(call.arguments)) == CALLED
    assert answer.choices[0].finish_reason == "function_call"


@WAYS
def test_thoughts_stand_beside_the_answer(client: openai.OpenAI, ask: Any) -> None:
    message = ask(client, model=TINY, messages=user(SUM), extra_body=THINK).choices[0].message
    assert (message.reasoning_content, message.content) == (THOUGHT, TOTAL)
    silent = ask(client, model=TINY, messages=user(SUM)).choices[0].message
    assert silent.content == TOTAL and not getattr(silent, "reasoning_content", None)


def test_the_model_sees_how_much_effort_was_asked_for(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="script", messages=script(["show", "reasoning_effort"]), reasoning_effort="low"
    )
    assert json.loads(answer.choices[0].message.content or "") == {"reasoning_effort": "low"}


def test_an_answer_of_a_given_form_is_parsed(client: openai.OpenAI) -> None:
    text = '{"city": "Oslo", "degrees": -3}'
    asked: dict[str, Any] = {"model": "script", "messages": script(text[:9], text[9:]), "response_format": Weather}
    assert client.chat.completions.parse(**asked).choices[0].message.parsed == Weather(city="Oslo", degrees=-3)
    with client.chat.completions.stream(**asked) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == Weather(city="Oslo", degrees=-3)
    seen = client.chat.completions.create(
        model="script", messages=script(["show", "response_format"]), response_format={"type": "json_object"}
    )
    assert json.loads(seen.choices[0].message.content or "") == {"response_format": {"type": "json_object"}}


def test_an_answer_that_was_cut_is_not_taken_for_a_whole_one(client: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model="script", messages=script('{"city"', {"finish_reason": "length"}), response_format=Weather
        )


def test_a_refusal_is_no_text(client: openai.OpenAI) -> None:
    message = client.chat.completions.create(model="script", messages=script({"refusal": "no"})).choices[0].message
    assert (message.refusal, message.content) == ("no", None)


def test_what_a_token_was_worth_is_said_when_asked(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": TINY, "messages": user(QUESTION), "logprobs": True, "top_logprobs": 2}
    for ask in (whole, added_up):
        logprobs = ask(client, **asked).choices[0].logprobs
        assert "".join(one.token for one in logprobs.content) == ANSWER
        assert all(one.logprob <= 0 and len(one.top_logprobs) == 2 for one in logprobs.content)
