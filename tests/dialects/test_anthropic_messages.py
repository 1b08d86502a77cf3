"""Anthropic's messages, judged by its SDK: what its helper puts together from a stream is the whole message."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import anthropic
import jiter
import pytest
from anthropic.types import Message
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.anthropic.messages import MessagesDialect
from gateway.dialects.base import GENERIC, MODEL_RAISED, Context
from gateway.dialects.relayed_errors import error_of
from gateway.errors import BadRequest, GatewayError, HTTPError, InvalidOutput, Loading, ModelError
from gateway.wire.values import Structured

from .anthropic_sdk import ASK, HEX, accumulate, both, encode_stream, encode_whole, encoder, events, parse, plain


def call(index: int, arguments: str, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {"tool_calls": [{"index": index, **({"id": f"c{index}"} if name else {}), "function": function}]}


# ── any answer ───────────────────────────────────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda text: not text.startswith(("data:", "event:"))
)
names = st.text("abcdefghij_", min_size=1, max_size=8)
inputs = st.dictionaries(names, st.integers() | texts | st.lists(texts, max_size=2), max_size=2)


@st.composite
def calls(draw: st.DrawFn, index: int) -> list[Any]:
    """The pieces of one tool call."""
    text = draw(st.sampled_from(["", None])) if draw(st.booleans()) else json.dumps(draw(inputs))
    first = {"index": index, "id": f"call_{index}", "function": {"name": draw(names), "arguments": ""}}
    cuts = sorted(draw(st.lists(st.integers(0, len(text or "")), max_size=3)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)] if text else []
    return [{"tool_calls": [first]}] + [
        {"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces
    ]


@st.composite
def answers(draw: st.DrawFn) -> list[Any]:
    """Values of a chat model; pieces of several calls and of text come in any order."""
    kinds = st.one_of(
        texts,
        texts.map(lambda text: {"content": text}),
        texts.map(lambda text: {"reasoning": text}),
        texts.map(lambda text: {"refusal": text}),
    )
    queues = [[draw(kinds)] for _ in range(draw(st.integers(0, 5)))]
    queues += [draw(calls(index)) for index in range(draw(st.integers(0, 3)))]
    if draw(st.booleans()):
        counts = {"prompt_tokens": draw(st.integers(0, 99)), "completion_tokens": draw(st.integers(0, 99))}
        queues.append([{"usage": counts}])
    items = []
    while queues:
        queue = draw(st.sampled_from(queues))
        items.append(queue.pop(0))
        queues = [queue for queue in queues if queue]
    reason = draw(st.sampled_from([None, "stop", "length", "content_filter"]))
    return [*items, {"finish_reason": reason, "stop_sequence": draw(st.sampled_from([None, "."]))}]


@st.composite
def cut(draw: st.DrawFn, items: Sequence[Any]) -> list[Sequence[Any]]:
    """The values as they may come over the wire, some at once."""
    cuts = sorted(draw(st.lists(st.integers(0, len(items)), max_size=4)))
    return [items[start:end] for start, end in zip([0, *cuts], [*cuts, len(items)], strict=True)]


def check_grammar(found: list[dict[str, Any]]) -> None:
    """message_start ping (start delta* stop)+ message_delta message_stop, with indices that count."""
    assert [event["type"] for event in found[:2]] == ["message_start", "ping"]
    assert [event["type"] for event in found[-2:]] == ["message_delta", "message_stop"]
    opened, count = None, 0
    for event in found[2:-2]:
        kind = event["type"].removeprefix("content_block_")
        if kind == "start":
            assert opened is None and event["index"] == count
            opened, count = event["index"], count + 1
        else:
            assert kind in ("delta", "stop") and event["index"] == opened
            opened = None if kind == "stop" else opened
    assert opened is None and count


@given(answers(), st.data())
def test_the_sdks_helper_puts_together_the_whole_message(items: list[Any], data: st.DataObject) -> None:
    batches = data.draw(cut(items))
    whole = parse(encode_whole(batches))
    stream = encode_stream(batches)
    check_grammar(events(stream))
    assert plain(accumulate(stream)) == plain(whole)
    text = "".join(
        item if isinstance(item, str) else item.get("content") or item.get("refusal") or "" for item in items
    )
    assert "".join(block.text for block in whole.content if block.type == "text") == text
    thought = "".join(item.get("reasoning") or "" for item in items if isinstance(item, dict))
    assert "".join(block.thinking for block in whole.content if block.type == "thinking") == thought


@given(answers(), st.data())
def test_a_stream_that_fails_says_so_and_never_looks_finished(items: list[Any], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(items)))
    batches = data.draw(cut([*items[:at], {"error": {"message": "no more"}, "status": 529}, *items[at:]]))
    under_way = encoder(stream=True)
    stream = b""
    for batch in batches:
        try:
            stream += under_way.feed(list(batch))
        except GatewayError as error:
            stream += under_way.fail(error)
            break
        if under_way.failure is not None:
            stream += under_way.fail(under_way.failure)
            break
    stream = under_way.start() + stream
    found = events(stream)
    assert found[-1] == {"type": "error", "error": {"type": "overloaded_error", "message": "no more"}}
    assert not {"message_delta", "message_stop"} & {event["type"] for event in found}
    with pytest.raises(anthropic.APIStatusError, match="no more") as caught:
        accumulate(stream)
    assert caught.value.type == "overloaded_error"


# ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def shape(message: Message) -> list[tuple[Any, ...]]:
    fields = {"text": ("text",), "thinking": ("thinking", "signature"), "tool_use": ("id", "name", "input")}
    return [(block.type, *(getattr(block, name) for name in fields[block.type])) for block in message.content]


def test_blocks_follow_the_order_in_which_the_model_spoke() -> None:
    message = both({"reasoning": "hm"}, "Let me ", "look.", call(0, '{"city": "Oslo"}', "weather"), "One moment.")
    assert shape(message) == [
        ("thinking", "hm", ""),
        ("text", "Let me look."),
        ("tool_use", "c0", "weather", {"city": "Oslo"}),
        ("text", "One moment."),
    ]
    assert message.stop_reason == "tool_use"


def test_thoughts_that_are_to_be_left_out_are_empty() -> None:
    thinking = {"type": "adaptive", "display": "omitted"}
    message = both({"reasoning": "h"}, {"reasoning": "m"}, "Yes.", thinking=thinking)
    assert shape(message) == [("thinking", "", ""), ("text", "Yes.")]
    assert shape(both({"reasoning": "hm"}, "Yes.", thinking={**thinking, "display": "summarized"}))[0][1] == "hm"


def test_calls_whose_pieces_interleave_are_blocks_one_after_the_other() -> None:
    values = [call(0, '{"a":', "f"), call(1, '{"b":', "g"), "text", call(0, " 1}"), call(1, " 2}")]
    assert shape(both(*values)) == [
        ("tool_use", "c0", "f", {"a": 1}),
        ("tool_use", "c1", "g", {"b": 2}),
        ("text", "text"),
    ]
    under_way = encoder(stream=True)
    assert b'"partial_json":"{\\"a\\":"' in under_way.feed(values[:1])  # the first call is streamed as it comes
    assert under_way.feed(values[1:3]) == b""
    released = events(under_way.feed(values[3:4]))
    assert [(event["type"], event["index"]) for event in released] == [
        ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1),
        ("content_block_delta", 1),
    ]


def test_arguments_stream_piece_by_piece() -> None:
    found = events(encode_stream([[call(0, '{"a"', "f")], [call(0, ": [1, ")], [call(0, "2]}")]]))
    deltas = [event["delta"]["partial_json"] for event in found if event["type"] == "content_block_delta"]
    assert deltas == ['{"a"', ": [1, ", "2]}"]


def test_a_call_without_arguments_has_an_empty_object() -> None:
    assert shape(both(call(0, "", "now")))[0][2:] == ("now", {})


@pytest.mark.parametrize("arguments", ["not json", "[1]", "null", '{"a" 5', "[" * 10_000])
def test_arguments_that_are_no_object_are_handed_over_as_they_are(arguments: str) -> None:
    message = parse(encode_whole([[call(0, arguments, "f")]]))
    assert shape(message) == [("tool_use", "c0", "f", {"_raw": arguments})]
    deltas = events(encode_stream([[call(0, arguments, "f")]]))
    assert [event["delta"]["partial_json"] for event in deltas if event["type"] == "content_block_delta"] == [arguments]


ARGUMENTS = r"""{"city": "Riga", "days": [1, 20, {"half": true}], "note": "a\"b"}"""


@pytest.mark.parametrize("length", range(1, len(ARGUMENTS) + 1))
def test_a_call_that_was_cut_has_the_same_input_streamed_and_whole(length: int) -> None:
    items = [call(0, ARGUMENTS[:length], "f"), {"finish_reason": "length"}]
    message = both(*items)
    assert message.stop_reason == "max_tokens"
    assert shape(message) == [("tool_use", "c0", "f", jiter.from_json(ARGUMENTS[:length].encode(), partial_mode=True))]


def test_more_arguments_for_a_call_that_was_complete_are_the_models_mistake() -> None:
    values = [call(0, "{}", "f"), "text", call(0, '{"more": 1}')]
    with pytest.raises(InvalidOutput, match="complete"):
        encode_whole([values])
    with pytest.raises(InvalidOutput, match="complete"):
        encode_stream([values])


def test_an_empty_answer_is_one_empty_text_block() -> None:
    for values in ((), (None,), ("",)):
        message = both(*values)
        assert shape(message) == [("text", "")] and message.stop_reason == "end_turn"


def test_an_answer_that_a_stop_string_ends_keeps_its_calls() -> None:
    dialect = MessagesDialect()
    for stream in (False, True):
        prepared = dialect.read({**ASK, "stream": stream}, "chat_completions")
        under_way = dialect.encoder(prepared, Context("m", HEX, 0, stops=("END",)))
        fed = under_way.feed([call(0, "", "f"), "so far EN", "D and more"])
        assert under_way.is_complete
        message = accumulate(under_way.start() + fed + under_way.finish()) if stream else parse(under_way.whole()[0])
        assert shape(message) == [("tool_use", "c0", "f", {}), ("text", "so far ")]
        assert message.stop_reason == "tool_use"


def test_further_text_is_framed_like_the_first() -> None:
    under_way = encoder(stream=True)
    first = under_way.feed(["a"])
    quick, slow = under_way.feed(['"b"\n\0']), encoder(stream=True)
    slow.feed(["a"])
    assert events(first)[1]["delta"] == {"type": "text_delta", "text": "a"}
    assert quick == slow.feed([{"content": '"b"\n\0'}])


# ── envelope ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("values", "reason", "sequence"),
    [
        (["x"], "end_turn", None),
        (["x", {"finish_reason": "stop"}], "end_turn", None),
        (["x", {"finish_reason": "stop", "stop_sequence": "END"}], "stop_sequence", "END"),
        (["x", {"stop_sequence": "END"}], "stop_sequence", "END"),
        (["x", {"finish_reason": "length"}], "max_tokens", None),
        (["x", {"usage": {"prompt_tokens": 1, "completion_tokens": 100}}], "max_tokens", None),
        (["x", {"finish_reason": "content_filter"}], "refusal", None),
        ([{"refusal": "I will not."}], "refusal", None),
        ([call(0, "", "f"), {"finish_reason": "stop"}], "tool_use", None),
        ([call(0, "", "f"), {"finish_reason": "length"}], "max_tokens", None),
        (["no call", {"finish_reason": "tool_calls"}], "end_turn", None),
    ],
)
def test_the_reason_to_stop_is_in_anthropics_words(values: list[Any], reason: str, sequence: str | None) -> None:
    message = both(*values)
    assert (message.stop_reason, message.stop_sequence) == (reason, sequence)


def test_what_the_model_leaves_out_is_filled_in() -> None:
    message = both("hi")
    assert (message.id, message.model, message.role, message.type) == (f"msg_{HEX}", "m", "assistant", "message")
    assert message.usage.input_tokens > 0 and message.usage.output_tokens == 1
    assert encoder().whole()[1] == [(b"x-gateway-usage", b"estimated")]


def test_counts_of_the_model_win() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 4}}
    counts = both("x", {"usage": {**usage, "completion_tokens_details": {"reasoning_tokens": 5}}}).usage
    assert (counts.input_tokens, counts.cache_read_input_tokens, counts.output_tokens) == (6, 4, 7)
    assert counts.output_tokens_details is not None and counts.output_tokens_details.thinking_tokens == 5


def test_a_stream_begins_with_the_count_that_is_known_by_then() -> None:
    known = events(encode_stream([[{"usage": {"prompt_tokens": 10, "completion_tokens": 0}}, "x"]]))[0]
    assert known["message"]["usage"] == {"input_tokens": 10, "output_tokens": 0}
    guessed = events(encode_stream([["x"], [{"usage": {"prompt_tokens": 10, "completion_tokens": 2}}]]))
    assert guessed[0]["message"]["usage"]["input_tokens"] == 3
    assert guessed[-2]["usage"] == {"input_tokens": 10, "output_tokens": 2}


def test_the_id_of_a_chat_answer_is_none_of_a_message() -> None:
    value = {"id": "chatcmpl-1", "choices": [{"index": 0, "message": {"content": "hi"}}], "system_fingerprint": "f"}
    message = both(value)
    assert message.id == f"msg_{HEX}" and shape(message) == [("text", "hi")]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ModelError(MODEL_RAISED), "api_error", GENERIC),
        (HTTPError(429, "slow down"), "rate_limit_error", "slow down"),
        (Loading("loading"), "overloaded_error", "loading"),
        (error_of({"error": {"type": "overloaded_error", "message": "busy"}}), "overloaded_error", "busy"),
        (error_of({"error": {"type": "server_error", "message": "busy"}}), "api_error", "busy"),
        (
            BadRequest(
                "This model's maximum context length is 100 tokens. However, you requested 120 tokens (90 in the "
                "messages, 30 in the completion).",
                code="context_length_exceeded",
            ),
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 90 + 30 > 100, "
            "decrease input length or `max_tokens` and try again",
        ),
        (
            BadRequest(
                "This model's maximum context length is 100 tokens. However, you requested 140 tokens (110 in the "
                "messages, 30 in the completion).",
                code="context_length_exceeded",
            ),
            "invalid_request_error",
            "prompt is too long: 110 tokens > 100 maximum",
        ),
        (
            BadRequest(
                "This model's maximum context length is 100 tokens. However, your messages resulted in 100 tokens.",
                code="context_length_exceeded",
            ),
            "invalid_request_error",
            "prompt is too long: 100 tokens > 99 maximum",  # a token of the answer has to fit
        ),
        (
            BadRequest(
                "This model's maximum context length is 100 tokens. However, your messages resulted in 110 tokens.",
                code="context_length_exceeded",
            ),
            "invalid_request_error",
            "prompt is too long: 110 tokens > 100 maximum",
        ),
        (
            BadRequest("too much", code="context_length_exceeded"),
            "invalid_request_error",
            "prompt is too long: too much",
        ),
    ],
)
def test_errors_are_in_anthropics_words(error: GatewayError, kind: str, message: str) -> None:
    [found] = events(encoder(stream=True).fail(error))
    assert found == {"type": "error", "error": {"type": kind, "message": message}}


# ── the class's own messages ─────────────────────────────────────────────────────────────────────────────────────────

COMPLETE: dict[str, Any] = {
    "id": "msg_mine",
    "type": "message",
    "role": "assistant",
    "model": "other",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "signed"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "one"},
        {"type": "text", "text": "two"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 6, "cache_read_input_tokens": 2},
    "container": {"id": "c", "expires_at": "2026-01-01T00:00:00Z"},
}


def test_a_complete_message_passes_with_the_name_that_the_client_used() -> None:
    for value in (COMPLETE, Structured(COMPLETE, json.dumps(COMPLETE))):
        assert json.loads(encode_whole([[value]], "messages")) == {**COMPLETE, "model": "m"}
        assert plain(both(value, method="messages")) == plain(Message.construct(**{**COMPLETE, "model": "m"}))


def test_what_a_message_lacks_is_filled_in() -> None:
    message = both({"type": "message", "content": [{"type": "thinking", "thinking": "x"}]}, method="messages")
    assert shape(message) == [("thinking", "x", "")]
    assert (message.id, message.stop_reason, message.role) == (f"msg_{HEX}", "end_turn", "assistant")
    assert message.usage.input_tokens > 0
    assert shape(both({"type": "message", "content": "plain"}, method="messages")) == [("text", "plain")]


def test_own_messages_may_say_it_in_chats_words_too() -> None:
    assert shape(both("a", {"content": "b"}, call(0, "{}", "f"), method="messages"))[0] == ("text", "ab")
    chunk = {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "length"}]}
    assert both(chunk, method="messages").stop_reason == "max_tokens"


STREAM: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {**COMPLETE, "content": [], "stop_reason": None, "usage": {"input_tokens": 5}},
    },
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "signed"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "xyz"}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "one"}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "text_delta", "text": "two"}},
    {"type": "content_block_stop", "index": 2},
    {
        "type": "content_block_start",
        "index": 3,
        "content_block": {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
    },
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": '{"a": '}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
    {"type": "content_block_stop", "index": 3},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 6, "cache_read_input_tokens": 2},
    },
    {"type": "message_stop"},
]


def test_events_of_anthropics_stream_are_the_message_that_they_make() -> None:
    joined = [*COMPLETE["content"][:2], {"type": "text", "text": "onetwo"}, COMPLETE["content"][4]]
    expected = plain(Message.construct(**{**COMPLETE, "model": "m", "content": joined}))
    assert plain(both(*STREAM, method="messages")) == expected
    raw = "".join(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n" for value in STREAM)
    assert plain(parse(encode_whole([[raw[:100], raw[100:]]], "messages"))) == expected


@pytest.mark.parametrize("stops", [True, False])
def test_the_pieces_of_blocks_of_other_kinds_and_citations_are_put_together(stops: bool) -> None:
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    cited = {
        "type": "char_location",
        "cited_text": "q",
        "document_index": 0,
        "start_char_index": 0,
        "end_char_index": 1,
    }
    events = [
        {"type": "content_block_start", "index": 0, "content_block": search},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"query'}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '": "x"}'}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "", "citations": []}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "so "}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": cited}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "it is"}},
        {"type": "content_block_stop", "index": 1},
    ]
    events = [STREAM[0], *(event for event in events if stops or event["type"] != "content_block_stop"), *STREAM[-2:]]
    expected = [{**search, "input": {"query": "x"}}, {"type": "text", "text": "so it is", "citations": [cited]}]
    assert plain(both(*events, method="messages"))["content"] == expected
    raw = "".join(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n" for value in events)
    assert plain(parse(encode_whole([[raw]], "messages")))["content"] == expected


@pytest.mark.parametrize("given", ["no", '{"query" "x"}', '{"query": ["x"]} x', '{"query": [' + '"x",' * 40_000])
def test_the_input_of_another_block_that_nobody_can_read_is_an_error(given: str) -> None:
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    events: list[dict[str, Any]] = [
        STREAM[0],
        {"type": "content_block_start", "index": 0, "content_block": search},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": given}},
        {"type": "content_block_stop", "index": 0},
    ]
    with pytest.raises(InvalidOutput, match="the input of a block 'server_tool_use' is not a valid JSON object"):
        encode_whole([events], "messages")
    events[2]["delta"] = {"type": "input_json_delta", "partial_json": '{"query": "'}
    broken = encode_whole([events], "messages")
    assert plain(parse(broken))["content"] == [search]


def test_an_error_among_those_events_is_an_error() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    with pytest.raises(HTTPError, match="busy"):
        encode_whole([[STREAM[0], error]], "messages")


@pytest.mark.parametrize(
    "value",
    [
        {"type": "message", "content": 5},
        {"type": "message", "content": ["x"]},
        {"type": "message", "content": [{"text": "x"}]},
        {"type": "message", "content": [{"type": "text", "text": 5}]},
        {"type": "message", "content": [{"type": "tool_use", "input": {}}]},
        {"type": "message", "content": [{"type": "tool_use", "name": "f", "input": {"a": float("nan")}}]},
        {"type": "message", "extra": float("inf")},
        {"type": "message_start"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 5}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{"}},
        {"type": "unheard_of"},
        {"type": ["list"]},
        7,
    ],
)
def test_an_object_that_is_none_of_anthropics_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        encode_whole([[value]], "messages")
    with pytest.raises(InvalidOutput):
        encode_stream([[value]], "messages")


def test_a_message_object_is_nothing_that_chat_may_return() -> None:
    with pytest.raises(InvalidOutput):
        encode_whole([[{**COMPLETE, "content": [{"type": "tool_use"}]}]])
