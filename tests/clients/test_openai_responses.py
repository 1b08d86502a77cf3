"""OpenAI's SDK on responses: streamed and whole, kept and gone on from, tools, thoughts, forms, errors."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
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
    THINK,
    THOUGHT,
    TINY,
    TOLD,
    TOTAL,
    WEATHER,
    steps,
    wait_for,
)

TOOLS: list[Any] = [{"type": "function", **function, "strict": True} for function in FUNCTIONS]


class Weather(pydantic.BaseModel):
    city: str
    degrees: int


def whole(client: openai.OpenAI, **fields: Any) -> Any:
    return client.responses.create(**fields)


def added_up(client: openai.OpenAI, **fields: Any) -> Any:
    """The same by the SDK's accumulator."""
    with client.responses.stream(**fields) as stream:
        return stream.get_final_response()


WAYS = pytest.mark.parametrize("ask", [whole, added_up])


@pytest.mark.parametrize(
    "fields",
    [
        {"input": QUESTION, "instructions": "Be brief.", "metadata": {"a": "b"}},
        {"input": WEATHER, "tools": TOOLS},
        {"input": SUM, "extra_body": THINK},
        {"input": QUESTION, "top_logprobs": 2, "include": ["message.output_text.logprobs"]},
    ],
    ids=["text", "tools", "thinking", "logprobs"],
)
def test_the_stream_adds_up_to_the_answer_that_is_not_streamed(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    asked = {"model": TINY, "temperature": 0, **fields}
    whole(client, **asked)  # so that as much of the prompt is remembered for both
    one, other = (plain(ask(client, **asked)) for ask in (whole, added_up))
    assert one == other
    assert one["status"] == "completed" and one["usage"]["output_tokens"] > 0 and one["output"]


def plain(response: Any) -> Any:
    """A response without what is new in each."""
    value = json.loads(response.model_dump_json(exclude={"id", "created_at", "completed_at"}, exclude_none=True))
    for item in value["output"]:
        for name in ("id", "call_id", "parsed_arguments"):
            item.pop(name, None)
        for part in item.get("content") or ():
            part.pop("parsed", None)
    return value


def test_an_answer_that_was_cut_is_incomplete(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": TINY, "input": "Hello", "max_output_tokens": 2, "temperature": 0}
    one = client.responses.create(**asked)
    events = list(client.responses.create(**asked, stream=True))
    assert one.status == "incomplete" and one.incomplete_details and one.output_text
    assert one.incomplete_details.reason == "max_output_tokens"
    assert events[-1].type == "response.incomplete"
    assert plain(events[-1].response)["output"] == plain(one)["output"]


def test_an_async_client_reads_both(url: str, key: str) -> None:
    async def run() -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE) as client:
            assert (await client.responses.create(model=TINY, input=QUESTION)).output_text == ANSWER
            async with client.responses.stream(model=TINY, input=QUESTION) as stream:
                pieces = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            assert "".join(pieces) == ANSWER and len(pieces) > 3

    asyncio.run(run())


def test_events_are_counted_from_the_first_to_the_last(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="script", input=steps("a", "b"), stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.completed"


@WAYS
def test_a_call_and_its_result_come_to_the_answer(client: openai.OpenAI, ask: Any) -> None:
    said: list[Any] = [{"role": "user", "content": WEATHER}]
    first = ask(client, model=TINY, input=said, tools=TOOLS, store=False)
    call = first.output[-1]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", *CALLED)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": REPORT}
    items = [item.model_dump(exclude={"parsed_arguments"}, exclude_none=True) for item in first.output]
    assert ask(client, model=TINY, input=[*said, *items, result], tools=TOOLS).output_text == TOLD


@WAYS
def test_a_tool_can_be_named_required_or_forbidden(client: openai.OpenAI, ask: Any) -> None:
    for choice, names in (
        ({"type": "function", "name": "get_time"}, ["get_time"]),
        ("required", ["get_weather"]),
        ("none", []),
    ):
        response = ask(client, model=TINY, input=WEATHER, tools=TOOLS, tool_choice=choice)
        assert [item.name for item in response.output if item.type == "function_call"] == names


@WAYS
def test_thoughts_are_an_item_before_the_message(client: openai.OpenAI, ask: Any) -> None:
    response = ask(client, model=TINY, input=SUM, extra_body=THINK)
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert (response.output[0].content[0].text, response.output_text) == (THOUGHT, TOTAL)


def test_an_answer_of_a_given_form_is_parsed(client: openai.OpenAI) -> None:
    text = '{"city": "Oslo", "degrees": -3}'
    asked: dict[str, Any] = {"model": "script", "input": steps(text[:9], text[9:]), "text_format": Weather}
    assert client.responses.parse(**asked).output_parsed == Weather(city="Oslo", degrees=-3)
    with client.responses.stream(**asked) as stream:
        assert stream.get_final_response().output_parsed == Weather(city="Oslo", degrees=-3)


# ── kept ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@WAYS
def test_a_response_is_retrieved_gone_on_from_and_deleted(client: openai.OpenAI, ask: Any) -> None:
    first = ask(client, model=TINY, input=WEATHER, tools=TOOLS)
    kept = client.responses.retrieve(first.id)
    assert plain(kept) == plain(first) and kept.id == first.id
    result = {"type": "function_call_output", "call_id": first.output[-1].call_id, "output": REPORT}
    second = ask(client, model=TINY, input=[result], previous_response_id=first.id, tools=TOOLS)
    assert (second.output_text, second.previous_response_id) == (TOLD, first.id)
    client.responses.delete(first.id)
    for call in (client.responses.retrieve, client.responses.delete, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError) as caught:
            call(first.id)
        assert caught.value.code == "response_not_found"
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model=TINY, input="x", previous_response_id=first.id)
    assert caught.value.code == "previous_response_not_found"


def test_items_are_listed_page_by_page_in_both_orders(client: openai.OpenAI) -> None:
    words = [f"word {number}" for number in range(7)]
    said: list[Any] = [{"role": "user", "content": word} for word in words]
    response = client.responses.create(model="script", input=said)
    for order, expected in (("asc", words), ("desc", words[::-1])):
        pages = [
            [item.content[0].text for item in page.data]
            for page in client.responses.input_items.list(response.id, order=order, limit=3).iter_pages()
        ]
        assert pages == [expected[:3], expected[3:6], expected[6:]]
    items = list(client.responses.input_items.list(response.id, order="asc"))
    assert len(items) == 7 and len({item.id for item in items}) == 7


def test_what_should_not_be_kept_is_not(client: openai.OpenAI) -> None:
    response = client.responses.create(model="script", input=steps("x"), store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def test_a_conversation_of_an_agent_goes_on_from_turn_to_turn(client: openai.OpenAI) -> None:
    """As Codex asks: the whole history in each request, instructions, no storing, calls with ids of their own."""
    shell = {
        "type": "function",
        "name": "shell",
        "description": "Runs a command.",
        "strict": False,
        "parameters": {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}}},
    }
    asked: dict[str, Any] = {
        "model": "script",
        "instructions": "You are a coding agent.",
        "tools": [shell],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
        "prompt_cache_key": "0199",
    }
    call = {"tool_calls": [{"name": "shell", "arguments": {"command": ["ls"]}}]}
    plan = steps({"reasoning_content": "I list the files."}, "Looking.", call)
    said: list[Any] = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<cwd>/</cwd>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": plan}]},
    ]
    done = [
        event.item
        for event in client.responses.create(**asked, input=said, stream=True)
        if event.type == "response.output_item.done"
    ]
    assert [item.type for item in done] == ["reasoning", "message", "function_call"]
    assert json.loads(done[-1].arguments) == {"command": ["ls"]}
    said += [item.model_dump(exclude_none=True) for item in done]
    said.append({"type": "function_call_output", "call_id": done[-1].call_id, "output": '{"output": "bin"}'})
    answer = added_up(client, **asked, input=said)
    assert answer.output_text == 'The tool said: {"output": "bin"}'
    said += [item.model_dump(exclude_none=True) for item in answer.output]
    text = steps(["show", "messages"])
    said.append({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})
    seen = json.loads(client.responses.create(**asked, input=said).output_text)["messages"]
    roles = ["system", "user", "user", "assistant", "tool", "assistant", "user"]
    assert [message["role"] for message in seen] == roles
    assert seen[3]["reasoning_content"] == "I list the files." and seen[3]["tool_calls"][0]["id"] == done[-1].call_id


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
def test_each_mistake_has_its_class_and_code(client: openai.OpenAI, stream: bool) -> None:
    hosted: dict[str, Any] = {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}
    wrong: list[tuple[dict[str, Any], type[openai.APIStatusError], str]] = [
        ({"model": "nobody", "input": "x"}, openai.NotFoundError, "model_not_found"),
        ({"model": "minilm", "input": "x"}, openai.NotFoundError, "route_not_supported"),
        ({"model": TINY}, openai.BadRequestError, "missing_required_parameter"),
        ({"model": TINY, "input": "x", "background": True}, openai.BadRequestError, "unsupported_value"),
        ({"model": TINY, "input": "x", **hosted}, openai.BadRequestError, "unsupported_value"),
        ({"model": TINY, "input": "long " * 3000}, openai.BadRequestError, "context_length_exceeded"),
        ({"model": "script", "input": steps(["boom"])}, openai.InternalServerError, "model_error"),
        ({"model": "broken", "input": "x"}, openai.InternalServerError, "model_failed"),
        ({"model": "hasty", "input": steps(["wait", "/nowhere"])}, openai.InternalServerError, "timeout"),
    ]
    for fields, kind, code in wrong:
        with pytest.raises(kind) as caught:
            client.responses.create(**fields, stream=stream)
        assert caught.value.code == code, str(caught.value)


def test_a_failure_within_a_stream_is_a_response_that_failed(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="script", input=steps("so far ", ["boom"]), stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.status == "failed" and events[-1].response.error.code == "server_error"
    helper = client.responses.stream(model="script", input=steps("so far ", ["boom"]))
    with helper as stream, pytest.raises(RuntimeError, match=r"response\.completed"):
        stream.get_final_response()


def test_what_may_pass_is_tried_again_until_it_does(client: openai.OpenAI, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    patient = client.with_options(max_retries=2)
    response = patient.responses.create(model="script", input=steps(["fail", str(calls), 2], "at last"))
    assert response.output_text == "at last"
    assert len(calls.read_text().splitlines()) == 3


def test_closing_a_stream_ends_the_models_code(client: openai.OpenAI, tmp_path: Path) -> None:
    left = tmp_path / "left"
    asked: dict[str, Any] = {"model": "script", "input": steps(["finally", str(left)], "x", ["wait", "/nowhere"])}
    stream = client.responses.create(**asked, stream=True)
    next(iter(stream))
    stream.close()
    wait_for(left)
