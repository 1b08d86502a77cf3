"""Values of Models as OpenAI's Responses, streamed and whole, judged by the official SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.base import Context
from gateway.dialects.responses.route import ResponsesDialect
from gateway.errors import InvalidOutput, ModelError

from .responses_sdk import ASK, HEX, KEYS, accumulated, client, encoder, events, parse, said, stream_of, whole_of

TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


def call(index: int, name: str, arguments: str = "") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": index, "id": f"call_{index}", "function": function}]}


def piece(index: int, arguments: str) -> dict[str, Any]:
    return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}


def names(stream: bytes) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events(stream)]


# ── the stream ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stream_of_text_has_openai_s_events_in_openai_s_order() -> None:
    stream = stream_of(["Hello "], ["world"])
    assert names(stream) == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.delta", "output_text.done"),
        *("content_part.done", "output_item.done", "completed"),
    ]
    assert b"[DONE]" not in stream and b"\r" not in stream
    found = events(stream)
    assert found[0]["response"]["status"] == "in_progress" and found[0]["response"]["output"] == []
    assert found[0]["response"]["usage"] is None and found[0]["response"]["completed_at"] is None
    assert found[2]["item"]["content"] == [] and found[2]["item"]["status"] == "in_progress"
    item = found[2]["item"]["id"]
    assert item.startswith("msg_")
    for event in found[3:8]:
        assert (event["item_id"], event["output_index"], event["content_index"]) == (item, 0, 0)
    assert [event["delta"] for event in found[4:6]] == ["Hello ", "world"]
    assert found[4]["logprobs"] == [] and found[6]["text"] == "Hello world"
    assert found[-1]["response"]["output"] == [found[-2]["item"]]
    assert accumulated(stream).output_text == "Hello world"


def test_every_key_of_the_object_is_there_with_a_number_where_a_number_belongs() -> None:
    value = whole_of(["hi"])
    assert value.keys() == KEYS
    assert value["id"] == f"resp_{HEX}" and value["object"] == "response" and value["status"] == "completed"
    numbers = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "top_logprobs": 0}
    assert {name: value[name] for name in numbers} == numbers
    assert (value["truncation"], value["service_tier"], value["tool_choice"]) == ("disabled", "default", "auto")
    assert value["text"] == {"format": {"type": "text"}} and value["reasoning"] == {"effort": None, "summary": None}
    assert value["store"] is True and value["background"] is False and value["metadata"] == {}
    assert value["completed_at"] >= value["created_at"] == 1795290277
    usage = value["usage"]
    assert usage["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0}
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


def test_what_the_request_says_is_shown_again() -> None:
    asked = {
        "instructions": "Be brief.",
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 50,
        "max_tool_calls": 3,
        "tools": [TOOL],
        "tool_choice": {"type": "function", "name": "weather"},
        "parallel_tool_calls": False,
        "metadata": {"a": "b"},
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "previous_response_id": "resp_1",
        "store": False,
        "truncation": "auto",
    }
    value = whole_of(["hi"], **asked, reasoning={"effort": "low"}, text={"verbosity": "low"})
    tools = value.pop("tools")
    assert tools == [{**TOOL, "description": None, "strict": None}]
    assert {name: value.get(name) for name in asked} == {**asked, "tools": None}
    assert value["reasoning"] == {"effort": "low", "summary": None}
    assert value["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    allowed = {"type": "allowed_tools", "tools": [{"type": "function", "name": "weather"}]}
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}}
    value = whole_of(["hi"], tools=[TOOL], tool_choice=allowed, text={"verbosity": None, "format": schema})
    assert value["tool_choice"] == {**allowed, "mode": "auto"}
    assert value["text"] == {"format": {**schema, "description": None, "strict": False}}


def test_reasoning_a_call_and_text_behind_it_are_items_one_after_the_other() -> None:
    stream = stream_of(
        [{"reasoning_content": "Hm. "}, {"reasoning_content": "Yes."}],
        ["Let me see."],
        [call(0, "weather"), piece(0, '{"city":'), piece(0, '"Oslo"}')],
        ["There."],
    )
    response = accumulated(stream)
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call", "message"]
    reasoning, _, function, _ = response.output
    assert reasoning.type == "reasoning" and reasoning.content and reasoning.summary == []
    assert reasoning.content[0].text == "Hm. Yes." and reasoning.id.startswith("rs_")
    assert function.type == "function_call" and function.id and function.id.startswith("fc_")
    assert (function.call_id, function.name, function.arguments) == ("call_0", "weather", '{"city":"Oslo"}')
    assert response.output_text == "Let me see.There."
    told = [event for event in events(stream) if event["type"].startswith("response.function_call_arguments")]
    assert [event.get("delta") for event in told] == ['{"city":', '"Oslo"}', None]
    assert told[-1]["name"] == "weather" and told[-1]["arguments"] == '{"city":"Oslo"}'
    assert {event["output_index"] for event in told} == {2} and "content_index" not in told[0]
    indices = [event["output_index"] for event in events(stream) if "output_index" in event]
    assert indices == sorted(indices)


def test_parallel_calls_that_come_in_turns_are_told_one_after_the_other() -> None:
    stream = stream_of(
        [call(0, "weather", '{"city"'), call(1, "time", '{"zone"')],
        [piece(0, ': "Oslo"'), "text between", piece(1, ': "UTC"')],
        [piece(0, "}"), piece(1, "}")],
    )
    added = [name for name in names(stream) if name.startswith("output_item")]
    assert added == ["output_item.added", "output_item.done"] * 3
    response = accumulated(stream)
    assert [getattr(item, "arguments", "") for item in response.output] == ['{"city": "Oslo"}', '{"zone": "UTC"}', ""]
    assert response.output_text == "text between"


def test_a_call_is_told_as_it_comes_when_the_one_before_it_is_complete() -> None:
    under_way = encoder(stream=True)
    under_way.feed([call(0, "weather", '{"city": "Oslo"}')])
    assert b"function_call_arguments.done" in under_way.feed([call(1, "time", '{"zone"')])
    assert b'"output_index":1' in under_way.feed([piece(1, ': "UTC"')])
    assert under_way.feed([piece(0, " \n")]) == b""
    with pytest.raises(InvalidOutput, match="complete object"):
        under_way.feed([piece(0, "}")])


def test_a_call_without_arguments_gets_an_empty_object() -> None:
    stream = stream_of([call(0, "now"), "and text"])
    response = accumulated(stream)
    assert response.output[0].type == "function_call" and response.output[0].arguments == "{}"
    assert "function_call_arguments.delta" in names(stream)
    assert response.output_text == "and text"


def test_two_calls_with_one_id_are_still_two_for_the_client() -> None:
    twice = [{"tool_calls": [{"index": index, "id": "same", "name": "f", "arguments": "{}"}]} for index in (0, 1)]
    first, second = accumulated(stream_of(twice)).output
    assert first.type == second.type == "function_call"
    assert first.call_id == "same" != second.call_id


def test_a_refusal_is_a_part_of_a_message() -> None:
    stream = stream_of([{"refusal": "I "}, {"refusal": "won't."}])
    assert names(stream)[3:8] == [
        *("content_part.added", "refusal.delta", "refusal.delta", "refusal.done", "content_part.done")
    ]
    assert said(accumulated(stream)) == said(whole_of([{"refusal": "I won't."}]))


def test_an_empty_answer_has_one_empty_message() -> None:
    response = accumulated(stream_of([]))
    assert response.output_text == "" and len(response.output) == 1
    assert said(response) == said(whole_of([None]))


@pytest.mark.parametrize(("reason", "why"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete_and_says_why(reason: str, why: str) -> None:
    items = ["cut of", {"content": "f", "finish_reason": reason}]
    stream = stream_of(items)
    assert names(stream)[-1] == "incomplete"
    streamed, whole = accumulated(stream), whole_of(items)
    assert streamed.status == whole["status"] == "incomplete"
    assert streamed.incomplete_details and streamed.incomplete_details.reason == why
    assert whole["incomplete_details"] == {"reason": why} and whole["completed_at"] is None
    assert whole["output"][0]["status"] == "incomplete"


def test_a_limit_that_was_reached_is_seen_in_the_model_s_own_count() -> None:
    items = ["some", {"usage": {"prompt_tokens": 3, "completion_tokens": 8}}]
    assert whole_of(items, max_output_tokens=8)["status"] == "incomplete"
    assert whole_of(items, max_output_tokens=9)["status"] == "completed"


def test_a_failure_in_mid_stream_is_a_failed_response_and_half_a_call_is_never_done() -> None:
    stream = stream_of(["text"], [call(0, "weather", '{"ci')], [{"error": {"message": "out of luck"}}])
    last = events(stream)[-1]
    assert last["type"] == "response.failed" and b"[DONE]" not in stream
    assert last["response"]["status"] == "failed" and last["response"]["store"] is False
    assert last["response"]["error"] == {"code": "server_error", "message": "out of luck"}
    assert [item["type"] for item in last["response"]["output"]] == ["message"]
    assert "function_call_arguments.done" not in names(stream)
    sdk = client(stream, "text/event-stream")
    with sdk.responses.stream(model="m", input="x") as running, pytest.raises(RuntimeError, match="completed"):
        running.get_final_response()


def test_usage_is_the_model_s_with_the_details_that_it_knows() -> None:
    usage = {
        "prompt_tokens": 7,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    found = parse(json.dumps(whole_of(["x", {"usage": usage}])).encode()).usage
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.total_tokens) == (7, 5, 12)
    assert (found.input_tokens_details.cached_tokens, found.output_tokens_details.reasoning_tokens) == (4, 2)


def test_log_probabilities_stand_beside_their_text() -> None:
    token = {"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Ho", "logprob": -1.0}]}
    items = [
        {"content": "Hi", "logprobs": {"content": [token]}},
        {"content": "!", "logprobs": [{"token": "!", "logprob": -2.0}]},
    ]
    stream = stream_of(items)
    deltas = [event for event in events(stream) if event["type"] == "response.output_text.delta"]
    assert [[entry["token"] for entry in event["logprobs"]] for event in deltas] == [["Hi"], ["!"]]
    kept = deltas[0]["logprobs"][0]
    assert kept["bytes"] == [72, 105] and kept["top_logprobs"] == [{"token": "Ho", "logprob": -1.0, "bytes": [72, 111]}]
    assert said(accumulated(stream)) == said(whole_of(items))
    assert len(whole_of(items)["output"][0]["content"][0]["logprobs"]) == 2
    with pytest.raises(InvalidOutput, match="logprobs"):
        whole_of([{"content": "x", "logprobs": [{"no": "token"}]}])


def test_the_tokens_of_any_request_can_be_counted() -> None:
    body: dict[str, Any] = {"input": [{"role": "user", "content": "a b"}], "instructions": "c"}
    under_way = encoder("responses", **body)
    under_way.feed(["d e f"])
    messages = [{"role": "system", "content": "c"}, {"role": "user", "content": "a b"}]
    asked = under_way.uncounted([body])
    assert asked == {
        "prompt 0": {"messages": messages, "tools": None},
        "completion 0": {"text": ["d e f"]},
    }
    under_way.counted({"prompt 0": 3, "completion 0": 4})
    assert json.loads(under_way.whole()[0])["usage"]["total_tokens"] == 7
    odd = {"input": [{"role": "user", "content": "a"}, {"type": "mcp_call", "output": "b"}]}
    assert encoder("responses", **odd).uncounted([odd])["prompt 0"]["prompt"].split() == ["a", "b"]
    assert encoder().uncounted([{"messages": messages}])["prompt 0"]["messages"] == messages


@pytest.mark.parametrize(
    "pieces", [["one EN", "D two"], ["one ", "E", "N", "D"], ["one END", {"finish_reason": "stop"}]]
)
def test_a_stop_string_that_the_gateway_looks_for_ends_the_answer(pieces: list[Any]) -> None:
    prepared = ResponsesDialect().read({**ASK, "stop": "END", "stream": True}, "chat_completions")
    under_way = ResponsesDialect().encoder(prepared, Context("m", HEX, 1795290277, stops=("END",)))
    out = [under_way.feed([piece]) for piece in pieces if not under_way.is_complete]
    assert under_way.is_complete
    response = accumulated(b"".join((under_way.start(), *out, under_way.finish())))
    assert (response.output_text, response.status) == ("one ", "completed")


# ── a method of the class's own ──────────────────────────────────────────────────────────────────────────────────────

MADE = {
    "object": "response",
    "id": "resp_mine",
    "status": "incomplete",
    "incomplete_details": {"reason": "max_output_tokens"},
    "output": [
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
        {
            "type": "message",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "made by hand", "annotations": [], "more": 1},
                {"type": "refusal", "refusal": "no"},
            ],
        },
        {"type": "function_call", "name": "f", "call_id": "c", "arguments": '{"a":1}'},
    ],
    "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
    "temperature": 0.25,
    "extra": "kept",
}


def test_a_response_that_the_model_made_passes_with_what_it_leaves_out_filled_in() -> None:
    whole = whole_of([MADE], method="responses")
    assert whole.keys() == KEYS | {"extra"}
    assert (whole["id"], whole["temperature"], whole["extra"]) == ("resp_mine", 0.25, "kept")
    assert whole["usage"]["output_tokens_details"] == {"reasoning_tokens": 0} and whole["usage"]["input_tokens"] == 3
    assert all(item["id"] for item in whole["output"]) and whole["output"][2]["content"][0]["more"] == 1
    stream = stream_of([MADE], method="responses")
    last = events(stream)[-1]
    assert last["type"] == "response.incomplete"
    done = [event["item"] for event in events(stream) if event["type"] == "response.output_item.done"]
    assert last["response"]["output"] == done
    assert {event["response"]["id"] for event in events(stream) if "response" in event} == {"resp_mine"}
    assert accumulated(stream_of([{**MADE, "status": "completed"}], method="responses")).output_text == "made by hand"


def test_a_response_behind_a_part_of_another_is_no_answer() -> None:
    for items in (["text", MADE], [MADE, MADE], [{"object": "response", "output": "none"}], [{**MADE, "output": [1]}]):
        with pytest.raises(InvalidOutput):
            encoder("responses").feed(list(items))
    with pytest.raises(InvalidOutput, match="refusal"):
        encoder("responses").feed(
            [{"object": "response", "output": [{"type": "message", "content": [{"type": "refusal"}]}]}]
        )


def test_its_own_method_gets_the_request_as_it_was_sent() -> None:
    body = {**ASK, "tools": [{"type": "web_search"}], "store": False, "user": None, "anything": {"else": 1}}
    prepared = ResponsesDialect().read(body, "responses")
    assert prepared.inputs == {name: value for name, value in body.items() if name != "user"}
    assert whole_of(["x"], method="responses", **body)["tools"] == body["tools"]
    assert said(whole_of(["a", {"content": "b"}], method="responses")) == said(whole_of(["ab"]))
    assert (
        whole_of(["x"], method="responses", input=[{"role": "user", "content": "12345678"}])["usage"]["input_tokens"]
        == 2
    )


def test_a_model_may_pass_on_another_server_s_events_as_they_come() -> None:
    search = {
        "type": "web_search_call",
        "id": "ws_1",
        "status": "completed",
        "action": {"type": "search", "query": "x"},
    }
    given: list[dict[str, Any]] = [
        {"type": "response.created", "response": {"id": "resp_mine", "object": "response", "status": "in_progress"}},
        {"type": "response.in_progress", "response": {"id": "resp_mine"}},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "hm"},
        {"type": "response.output_item.added", "output_index": 1, "item": search},
        {"type": "response.web_search_call.completed", "output_index": 1},
        {"type": "response.output_item.done", "output_index": 1, "item": search},
        {"type": "response.output_text.delta", "output_index": 2, "delta": "found", "logprobs": []},
        {
            "type": "response.completed",
            "response": {"id": "resp_mine", "temperature": 0.5, "usage": {"input_tokens": 1}},
        },
    ]
    stream = stream_of(given[:1], given[1:4], given[4:], method="responses")
    response = accumulated(stream)
    assert (response.id, response.temperature, response.output_text) == ("resp_mine", 0.5, "found")
    assert [item.type for item in response.output] == ["reasoning", "web_search_call", "message"]
    assert said(response) == said(whole_of(given, method="responses"))
    late = stream_of(["x"], given[-1:], method="responses")
    assert {event["response"]["id"] for event in events(late) if "response" in event} == {f"resp_{HEX}"}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "out of luck"}}},
        {"type": "error", "message": "out of luck", "code": "server_error"},
    ],
)
def test_another_server_s_failure_is_the_model_s(event: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="out of luck"):
        encoder("responses").feed([event])
    last = events(stream_of(["some"], [event], method="responses"))[-1]
    assert last["response"]["error"] == {"code": "server_error", "message": "out of luck"}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_text.delta"},
        {"type": "response.completed"},
        {"type": "response.output_item.added", "item": "x"},
        {"type": "response.output_item.added", "item": {"type": "function_call"}},
        {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{}"},
    ],
)
def test_an_event_that_is_none_of_openai_s_is_no_answer(event: dict[str, Any]) -> None:
    with pytest.raises(InvalidOutput):
        encoder("responses").feed([event])


# ── any values ───────────────────────────────────────────────────────────────────────────────────────────────────────

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)


@st.composite
def answers(draw: st.DrawFn) -> list[Any]:
    """Values of a model: text, thoughts and refusals, and calls whose pieces come in any order among them."""
    steps: list[list[Any]] = []
    for index in range(draw(st.integers(0, 3))):
        arguments = draw(st.sampled_from(["", "{}", '{"a": 1}', '{"b": {"c": "}"}}', '{"a"', "7", '["x"]']))
        cuts = sorted(draw(st.lists(st.integers(0, len(arguments)), max_size=3)))
        pieces = [arguments[start:end] for start, end in zip([0, *cuts], [*cuts, len(arguments)], strict=True)]
        steps.append([call(index, f"f{index}", pieces[0]), *[piece(index, part) for part in pieces[1:]]])
    plain = st.one_of(
        TEXT,
        TEXT.map(lambda text: {"content": text}),
        TEXT.map(lambda text: {"reasoning_content": text}),
        TEXT.map(lambda text: {"refusal": text}),
        st.just(None),
        st.just({"content": "t", "logprobs": [{"token": "t", "logprob": -1.5}]}),
        st.builds(lambda a, b: {"usage": {"prompt_tokens": a, "completion_tokens": b}}, *[st.integers(0, 9)] * 2),
    )
    steps.append(draw(st.lists(plain, max_size=6)))
    values: list[Any] = []
    while steps := [step for step in steps if step]:
        values.append(draw(st.sampled_from(steps)).pop(0))
    if draw(st.booleans()):
        values.append({"finish_reason": draw(st.sampled_from(["stop", "length", "content_filter", "tool_calls"]))})
    return values


def split(values: list[Any], cuts: list[int]) -> list[list[Any]]:
    places = sorted(cut % (len(values) + 1) for cut in cuts)
    return [values[start:end] for start, end in zip([0, *places], [*places, len(values)], strict=True)]


@settings(max_examples=200, deadline=None)
@given(values=answers(), cuts=st.lists(st.integers(0, 50), max_size=4), limit=st.none() | st.integers(1, 9))
def test_a_stream_adds_up_to_the_whole_answer_however_it_is_cut(
    values: list[Any], cuts: list[int], limit: int | None
) -> None:
    if values and isinstance(first := values[0], str) and first.startswith(("data:", "event:")):
        values = ["x", *values]
    fields = {} if limit is None else {"max_output_tokens": limit}
    try:
        whole = whole_of(values, **fields)
    except InvalidOutput:  # text behind arguments that were complete
        return
    stream = stream_of(*split(values, cuts), **fields)
    found = events(stream)
    streamed = accumulated(stream)
    assert said(streamed) == said(whole)
    assert streamed.status == whole["status"]
    assert streamed.usage is not None and streamed.usage.to_dict() == whole["usage"]
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert found[-1]["response"]["output"] == done
    assert found[0]["response"].keys() == found[-1]["response"].keys() == KEYS
    assert [event["type"] for event in found].count("response.output_item.added") == len(done)


@settings(max_examples=100, deadline=None)
@given(values=answers(), cuts=st.lists(st.integers(0, 500), max_size=4))
def test_our_own_stream_passed_on_by_a_model_stays_what_it_was(values: list[Any], cuts: list[int]) -> None:
    values = ["x", *values]
    first = stream_of(values)
    told = events(first)
    if told[-1]["type"] == "response.failed":
        return
    second = stream_of(*split(told, cuts), method="responses")
    assert said(accumulated(second)) == said(accumulated(first))
    assert events(second)[-1]["response"]["usage"] == told[-1]["response"]["usage"]
    assert said(whole_of([first.decode()], method="responses")) == said(accumulated(first))
    assert said(whole_of([told[-1]["response"]], method="responses")) == said(accumulated(first))


@settings(max_examples=100, deadline=None)
@given(values=answers(), cuts=st.lists(st.integers(0, 50), max_size=4), at=st.integers(0, 50))
def test_a_failure_anywhere_ends_in_a_failed_response_that_keeps_what_was_done(
    values: list[Any], cuts: list[int], at: int
) -> None:
    values = ["x", *[value for value in values if not (isinstance(value, dict) and "finish_reason" in value)]]
    place = 1 + at % len(values)
    values.insert(place, {"error": {"message": "broken"}})
    stream = stream_of(["x"], *split(values[1:], cuts))
    found = events(stream)
    assert [event["type"] for event in found if event["type"].endswith(("failed", "completed", "incomplete"))] == [
        "response.failed"
    ]
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert found[-1]["response"]["output"] == done
    assert accumulated(stream).status == "failed"
