"""Chat answers, judged by the official SDK: what it puts together is what the Model said, streamed or whole."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from gateway.dialects.base import GENERIC, MODEL_RAISED
from gateway.errors import GatewayError, HTTPError, InvalidOutput, ModelError
from gateway.wire.values import Structured
from gateway.worker.bodies import failures

from .sdk import HEX, accumulate, answer, chunks, encode_stream, encode_whole, encoder, events, parse, streamed

# ── any answer, in any clothes ───────────────────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: not text.startswith(("data:", "event:"))
)
names = st.text("abcdefghij_", min_size=1, max_size=8)
counts = st.integers(0, 10_000)


@st.composite
def dressed_text(draw: st.DrawFn, text: str) -> list[Any]:
    """Values that all mean this text."""
    style = draw(st.sampled_from(["str", "dict", "parts", "chunk", "structured", "bytes", "pieces"]))
    if style == "bytes":
        data = text.encode()
        cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    if style == "pieces":
        return [*text, "", None]
    return {
        "str": [text],
        "dict": [{"content": text}],
        "parts": [{"role": "assistant", "content": [{"type": "text", "text": text}]}],
        "chunk": [{"id": "x", "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}}]}],
        "structured": [Structured({"content": text}, json.dumps({"content": text}))],
    }[style]


@st.composite
def dressed_call(draw: st.DrawFn, index: int) -> tuple[tuple[str | None, str, str], list[Any]]:
    """A tool call, and values that mean it; it is the `index`-th of its choice."""
    name, identity = draw(names), draw(st.none() | st.uuids().map(str))
    arguments = json.dumps(draw(st.dictionaries(names, st.integers() | texts, max_size=2)))
    style = draw(st.sampled_from(["flat", "dict", "deltas", "repeated", "legacy"]))
    call: dict[str, Any] = {"id": identity} if identity else {}
    if style == "flat":
        return (identity, name, arguments), [{"tool_calls": [{**call, "name": name, "arguments": arguments}]}]
    if style == "dict":
        value = {"name": name, "arguments": json.loads(arguments)}
        compact = json.dumps(json.loads(arguments), separators=(",", ":"), ensure_ascii=False)
        return (identity, name, compact), [{"tool_calls": [{**call, "type": "function", "function": value}]}]
    if style == "legacy":
        return (None, name, arguments), [{"function_call": {"name": name, "arguments": arguments}}]
    middle = draw(st.integers(0, len(arguments)))
    first = {**call, "index": index, "function": {"name": name, "arguments": arguments[:middle]}}
    rest: dict[str, Any] = {"index": index, "function": {"arguments": arguments[middle:]}}
    if style == "repeated":  # a server that says it all again with each delta
        rest = {**call, **rest, "type": "function", "function": {"name": name, "arguments": arguments[middle:]}}
    return (identity, name, arguments), [
        {"choices": [{"index": 0, "delta": {"tool_calls": [part]}}]} for part in (first, rest)
    ]


@st.composite
def answers(draw: st.DrawFn) -> tuple[dict[str, Any], list[Any]]:
    """What one choice says, and values that mean it."""
    meant: dict[str, Any] = {"content": "", "reasoning_content": "", "refusal": "", "calls": [], "finish": None}
    items: list[Any] = []
    for kind in draw(st.lists(st.sampled_from(["content", "reasoning_content", "refusal", "call"]), max_size=6)):
        if kind == "call":
            call, values = draw(dressed_call(len(meant["calls"])))
            meant["calls"].append(call)
            items += values
        else:
            text = draw(texts)
            meant[kind] += text
            items += draw(dressed_text(text)) if kind == "content" else [{kind: text}]
    if draw(st.booleans()):
        meant["finish"] = draw(st.sampled_from(["stop", "length", "content_filter"]))
        items.append({"finish_reason": meant["finish"]})
    if draw(st.booleans()):
        meant["usage"] = (draw(counts), draw(counts))
        prompt, completion = meant["usage"]
        items.append({"usage": {"prompt_tokens": prompt, "completion_tokens": completion}})
    return meant, items


def check(completion: ChatCompletion, meant: list[dict[str, Any]]) -> None:
    assert [choice.index for choice in completion.choices] == list(range(len(meant)))
    for choice, wanted in zip(completion.choices, meant, strict=True):
        message: Any = choice.message
        assert message.role == "assistant"
        assert (message.content or "") == wanted["content"]
        assert (message.refusal or "") == wanted["refusal"]
        assert (getattr(message, "reasoning_content", None) or "") == wanted["reasoning_content"]
        calls = [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []]
        assert [(name, arguments) for _, name, arguments in calls] == [call[1:] for call in wanted["calls"]]
        for (found, _, _), (identity, _, _) in zip(calls, wanted["calls"], strict=True):
            assert found == identity if identity else found.startswith("call_")
        finish = wanted["finish"]
        if wanted["calls"] and finish in (None, "stop"):
            finish = "tool_calls"
        assert choice.finish_reason == (finish or "stop")
    assert completion.model == "m"


def check_usage(completion: ChatCompletion, meant: list[dict[str, Any]]) -> None:
    usage = completion.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    counted = [wanted.get("usage") for wanted in meant]
    if None not in counted:
        assert usage.completion_tokens == sum(completion for _, completion in counted)
        assert usage.prompt_tokens == counted[0][0]
    elif counted == [None] * len(counted):
        assert usage.prompt_tokens > 0


@given(answers(), st.data())
def test_the_sdk_reads_the_same_answer_from_a_stream_and_from_a_whole(
    case: tuple[dict[str, Any], list[Any]], data: st.DataObject
) -> None:
    meant, items = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(items)), max_size=4)))
    batches = [(0, items[start:end]) for start, end in zip([0, *cuts], [*cuts, len(items)], strict=True)]
    whole = parse(encode_whole(batches))
    stream = accumulate(encode_stream(batches, stream_options={"include_usage": True}))
    for completion in (whole, stream):
        check(completion, [meant])
        check_usage(completion, [meant])
    assert whole.usage == stream.usage
    assert whole.choices[0].finish_reason == stream.choices[0].finish_reason


@given(st.lists(answers(), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_n_runs_merged_in_any_order_are_n_whole_choices(
    cases: list[tuple[dict[str, Any], list[Any]]], random: Any
) -> None:
    meant, queues = [case[0] for case in cases], [list(case[1]) for case in cases]
    batches = []
    while any(queues):
        run = random.choice([run for run, queue in enumerate(queues) if queue])
        size = random.randint(1, 2)
        batches.append((run, queues[run][:size]))
        del queues[run][:size]
    n = len(cases)
    whole = parse(encode_whole(batches, calls=n, n=n))
    stream = accumulate(encode_stream(batches, calls=n, n=n, stream_options={"include_usage": True}))
    for completion in (whole, stream):
        check(completion, meant)
        check_usage(completion, meant)
    assert whole.usage == stream.usage


# ── the stream ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_role_comes_once_per_choice_and_first_in_order() -> None:
    stream = events(encode_stream([(1, ["b"]), (0, ["a"])], calls=2, n=2))
    roles = [(c["index"], c["delta"]) for e in stream[:2] for c in e["choices"]]
    assert roles == [(0, {"role": "assistant", "content": ""}), (1, {"role": "assistant", "content": ""})]
    assert all("role" not in c["delta"] for e in stream[2:-1] for c in e["choices"])


def test_every_chunk_carries_one_id_created_and_model() -> None:
    stream = events(encode_stream([(0, ["a", "b"]), (0, [{"content": "c"}])]))
    assert {(e["id"], e["created"], e["model"], e["object"]) for e in stream[:-1]} == {
        (f"chatcmpl-{HEX}", 1795290277, "m", "chat.completion.chunk")
    }


def test_the_models_own_id_and_created_are_kept_for_the_whole_stream() -> None:
    chunk = {"id": "chatcmpl-own", "created": 5, "system_fingerprint": "fp", "choices": [{"delta": {"content": "a"}}]}
    later = {"id": "other", "created": 6, "choices": [{"delta": {"content": "b"}}]}
    stream = events(encode_stream([(0, [chunk]), (0, [later])]))[:-1]
    assert {(e["id"], e["created"], e["system_fingerprint"]) for e in stream} == {("chatcmpl-own", 5, "fp")}
    whole = answer(chunk, later)
    assert (whole.id, whole.created, whole.system_fingerprint) == ("chatcmpl-own", 5, "fp")


def test_the_name_the_client_sent_wins_over_the_models() -> None:
    assert answer({"model": "llama-3", "choices": [{"message": {"content": "a"}}]}).model == "m"


def test_stream_ends_with_finish_then_done() -> None:
    *_, finish, done = events(encode_stream([(0, ["a"])]))
    assert finish["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert done == "[DONE]"


def test_usage_chunk_is_last_has_no_choices_and_comes_only_when_asked_for() -> None:
    with_usage = events(encode_stream([(0, ["a"])], stream_options={"include_usage": True}))
    *others, last, done = with_usage
    assert last["choices"] == [] and set(last["usage"]) == {"prompt_tokens", "completion_tokens", "total_tokens"}
    assert all(e["usage"] is None for e in others) and done == "[DONE]"
    without = events(encode_stream([(0, ["a", {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}])]))
    assert all("usage" not in e for e in without[:-1])


def test_each_chunk_has_the_counts_so_far_when_they_are_asked_for() -> None:
    asked = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    told = [{"usage": {"prompt_tokens": 7, "completion_tokens": count}} for count in (1, 2)]
    found = events(encode_stream([(0, [told[0], "a"]), (0, [told[1], "b"])], **asked))[:-1]
    assert found[0]["usage"] is None  # of the role, which is written when the first values are counted already
    assert [chunk["usage"]["completion_tokens"] for chunk in found[1:]] == [1, 2, 2, 2]
    assert {chunk["usage"]["prompt_tokens"] for chunk in found[1:]} == {7}
    silent = events(encode_stream([(0, ["a", "b"])], **asked))[:-1]
    assert [chunk["usage"] is None for chunk in silent] == [True] * 4 + [False]  # the model told none
    two = events(encode_stream([(0, [told[0], "a"]), (1, [told[1], "b"])], calls=2, n=2, **asked))[:-1]
    assert (two[0]["usage"], two[-2]["usage"]["completion_tokens"]) == (None, 3)
    lone = {"stream_options": {"continuous_usage_stats": True}}
    assert all("usage" not in chunk for chunk in events(encode_stream([(0, [told[0], "a"])], **lone))[:-1])


def test_counts_so_far_are_not_estimated_again_for_each_of_very_many_pieces() -> None:
    asked = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    under_way = encoder(stream=True, **asked)
    began = time.process_time()
    assert under_way.feed([{"usage": {"prompt_tokens": 7}}, *["a"] * 40_000]).count(b'"usage":null') == 40_000
    assert time.process_time() - began < 5


def test_of_very_many_parts_the_thoughts_are_told_apart_in_one_pass() -> None:
    thought = {"type": "thinking", "thinking": "hm"}
    assert answer({"content": [thought, {"type": "text", "text": "a"}, thought]}).choices[0].message.content == "a"
    began = time.process_time()
    with pytest.raises(InvalidOutput, match="content is a list"):
        encoder().feed([{"content": [thought] * 5000 + [None] * 60_000}])
    assert time.process_time() - began < 2  # comparing each with each takes several times as long


def test_empty_pieces_make_no_chunks() -> None:
    assert encode_stream([(0, ["", None, "a", "", b""]), (0, [""])]) == encode_stream([(0, ["a"])])


def test_an_empty_answer_is_a_good_answer() -> None:
    assert streamed().choices[0].finish_reason == "stop"
    assert answer(None).choices[0].message.content == ""


def test_deltas_hold_no_counters_and_no_lists_without_index() -> None:
    items = [{"content": "a", "usage": {"prompt_tokens": 1}}, {"tool_calls": [{"name": "f"}, {"name": "g"}]}]
    for event in events(encode_stream([(0, items)]))[:-1]:
        for choice in event["choices"]:
            assert not any(isinstance(value, int | float) for value in choice["delta"].values())
            assert all("index" in call for call in choice["delta"].get("tool_calls", []))


def test_id_type_and_name_of_a_call_come_with_its_first_delta_only() -> None:
    deltas = [
        {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": part}}]}
        for part in ('{"a"', ":1}")
    ]
    found = [e["choices"][0]["delta"]["tool_calls"][0] for e in events(encode_stream([(0, deltas)]))[1:3]]
    assert found == [
        {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ":1}"}},
    ]


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_error_in_mid_stream_raises_in_the_sdk_with_message_and_code() -> None:
    under_way = encoder(stream=True)
    stream = under_way.feed(["a"])
    stream = under_way.start() + stream + under_way.fail(HTTPError(400, "no more", code="enough"))
    with pytest.raises(openai.APIError, match="no more") as caught:
        accumulate(stream)
    assert caught.value.code == "enough"


def test_a_failed_stream_never_looks_finished() -> None:
    under_way = encoder(stream=True)
    under_way.feed(["a"])
    tail = under_way.fail(GatewayError("broken"))
    assert tail.endswith(b"\n\n") and b"[DONE]" not in tail and b"finish_reason" not in tail


def test_what_came_before_a_failure_goes_out_first() -> None:
    under_way = encoder(stream=True)
    assert b'"content":"a"' in under_way.feed(["a", {"error": {"message": "stop here"}}, "never"])
    assert isinstance(under_way.failure, HTTPError)
    with pytest.raises(HTTPError, match="stop here"):
        under_way.finish()


def test_a_failure_before_anything_else_is_raised() -> None:
    with pytest.raises(HTTPError, match="no"):
        encoder(stream=True).feed([{"error": "no"}, "a"])


def test_a_models_exception_has_a_generic_text_for_clients_unless_debugging() -> None:
    assert MODEL_RAISED == failures.GENERIC
    assert GENERIC.encode() in encoder(stream=True).fail(ModelError(MODEL_RAISED))
    assert b"ValueError: x" in encoder(stream=True).fail(ModelError(f"{MODEL_RAISED} ValueError: x"))


@given(answers(), st.data())
def test_a_failure_anywhere_ends_without_a_reason_and_without_done(
    case: tuple[dict[str, Any], list[Any]], data: st.DataObject
) -> None:
    items = [item for item in case[1] if not (isinstance(item, dict) and "finish_reason" in item)]
    at, size = data.draw(st.integers(0, len(items))), data.draw(st.integers(1, 3))
    items.insert(at, {"error": {"message": "broken", "code": "c"}})
    under_way = encoder(stream=True, stream_options={"include_usage": True})
    stream, error = under_way.start(), None
    for start in range(0, len(items), size):
        try:
            stream += under_way.feed(items[start : start + size])
            error = under_way.failure
        except GatewayError as raised:
            error = raised
        if error is not None:
            break
    assert error is not None
    stream += under_way.fail(error)
    assert b"[DONE]" not in stream and b'"finish_reason":"' not in stream
    with pytest.raises(openai.APIError, match="broken"):
        accumulate(stream)


# ── the whole answer ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_whole_answer_has_every_required_field() -> None:
    body = json.loads(encode_whole([(0, ["hi"])]))
    usage = body.pop("usage")
    assert body == {
        "id": f"chatcmpl-{HEX}",
        "object": "chat.completion",
        "created": 1795290277,
        "model": "m",
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hi", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
    }
    assert all(type(usage[name]) is int for name in ("prompt_tokens", "completion_tokens", "total_tokens"))


def test_tool_calls_are_absent_without_any_and_content_is_null_with_nothing_else() -> None:
    plain = json.loads(encode_whole([(0, ["hi"])]))["choices"][0]["message"]
    assert "tool_calls" not in plain
    called = json.loads(encode_whole([(0, [{"tool_calls": [{"name": "f"}]}])]))["choices"][0]["message"]
    assert called["content"] is None
    refused = json.loads(encode_whole([(0, [{"refusal": "no"}])]))["choices"][0]["message"]
    assert (refused["content"], refused["refusal"]) == (None, "no")


def test_a_call_without_arguments_has_an_empty_object_that_clients_can_parse() -> None:
    for completion in (answer({"tool_calls": [{"name": "f"}]}), streamed({"tool_calls": [{"name": "f"}]})):
        [call] = completion.choices[0].message.tool_calls or []
        assert call.function.arguments == "{}"  # type: ignore[union-attr]


def test_unknown_keys_of_the_first_dict_are_kept_in_a_whole_answer() -> None:
    body = json.loads(encode_whole([(0, [{"choices": [{"message": {"content": "a"}}], "service_tier": "x", "my": 1}])]))
    assert (body["service_tier"], body["my"]) == ("x", 1)


def test_a_success_never_has_a_top_level_error() -> None:
    assert b'"error"' not in encode_whole([(0, [{"error": None, "choices": [{"message": {"content": "a"}}]}])])


def test_raw_text_of_any_script_survives() -> None:
    text = 'é "quoted" \\ \n\t\x00 \U0001f600 \u2028'
    assert answer(text).choices[0].message.content == text
    assert streamed(text, text).choices[0].message.content == text * 2


# ── reasons and counts ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("items", "fields", "reason"),
    [
        (["a"], {}, "stop"),
        ([{"content": "a", "finish_reason": "length"}], {}, "length"),
        ([{"finish_reason": "content_filter"}], {}, "content_filter"),
        ([{"tool_calls": [{"name": "f"}]}], {}, "tool_calls"),
        ([{"tool_calls": [{"name": "f"}], "finish_reason": "stop"}], {}, "tool_calls"),
        ([{"tool_calls": [{"name": "f"}], "finish_reason": "length"}], {}, "length"),
        ([{"function_call": {"name": "f"}, "finish_reason": "function_call"}], {}, "tool_calls"),
        (["a", {"usage": {"completion_tokens": 5}}], {"max_tokens": 5}, "length"),
        (["a", {"usage": {"completion_tokens": 4}}], {"max_completion_tokens": 5}, "stop"),
        (["a" * 400], {"max_tokens": 1}, "stop"),  # an estimate is no count
        ([{"content": "a", "stop_sequence": "END"}], {}, "stop"),
    ],
)
def test_finish_reason_is_the_models_or_what_its_output_shows(
    items: list[Any], fields: dict[str, Any], reason: str
) -> None:
    assert answer(*items, **fields).choices[0].finish_reason == reason
    assert streamed(*items, **fields).choices[0].finish_reason == reason


def test_usage_of_the_model_wins_and_a_missing_total_is_the_sum() -> None:
    usage = answer("a", {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}).usage
    assert usage is not None and (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 4, 7)
    given_total = answer("a", {"usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 9}}).usage
    assert given_total is not None and given_total.total_tokens == 9


def test_details_of_usage_are_passed_on() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 2}, "completion_tokens_details": {"reasoning_tokens": 1}}
    usage = answer("a", {"usage": {"prompt_tokens": 3, "completion_tokens": 4, **details}}).usage
    assert usage is not None and usage.prompt_tokens_details is not None and usage.completion_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 2
    assert usage.completion_tokens_details.reasoning_tokens == 1


def test_the_last_usage_counts_when_a_model_reports_as_it_goes() -> None:
    items = [{"content": "a", "usage": {"prompt_tokens": 3, "completion_tokens": count}} for count in (1, 2, 3)]
    usage = answer(*items).usage
    assert usage is not None and usage.completion_tokens == 3
    twice = parse(encode_whole([(0, items), (1, items)], calls=2, n=2)).usage
    assert twice is not None and (twice.prompt_tokens, twice.completion_tokens) == (3, 6)


def test_estimated_usage_says_so_and_is_never_zero() -> None:
    under_way = encoder()
    under_way.feed(["12345"])
    body, headers = under_way.whole()
    assert headers == [(b"x-gateway-usage", b"estimated")]
    assert json.loads(body)["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_counts_that_the_model_left_out_are_estimated() -> None:
    under_way = encoder()
    under_way.feed(["12345", {"usage": {"completion_tokens": 9}}])
    body, headers = under_way.whole()
    assert headers and json.loads(body)["usage"] == {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}


def test_metrics_see_tokens_and_reason() -> None:
    under_way = encoder(stream=True)
    under_way.feed(["a", {"usage": {"prompt_tokens": 3, "completion_tokens": 4}, "finish_reason": "length"}])
    assert under_way.usage() == (3, 4, "length", False)


# ── n choices of one run ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_list_of_n_items_is_n_choices() -> None:
    items = [["a", {"content": "b"}, "c"]]
    for completion in (answer(*items, n=3), streamed(*items, n=3)):
        assert [choice.message.content for choice in completion.choices] == ["a", "b", "c"]
    assert [c.message.content for c in streamed(["a", "b"], ["c", "d"], n=2).choices] == ["ac", "bd"]


def test_an_envelope_with_n_choices_answers_n() -> None:
    value = {"choices": [{"index": i, "message": {"content": str(i)}, "finish_reason": "stop"} for i in (1, 0)]}
    for completion in (answer(value, n=2), streamed(value, n=2)):
        assert [choice.message.content for choice in completion.choices] == ["0", "1"]


@pytest.mark.parametrize("value", ["one", ["a", "b"], {"choices": [{"index": 1, "message": {"content": "x"}}]}])
def test_fewer_choices_than_asked_are_never_answered_silently(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        answer(value, n=3)
    with pytest.raises(InvalidOutput):
        encode_stream([(0, [value])], n=3)


@pytest.mark.parametrize("index", [1, -1, 10**9])
def test_a_choice_nobody_asked_for_is_invalid(index: int) -> None:
    with pytest.raises(InvalidOutput):
        answer({"choices": [{"index": index, "message": {"content": "x"}}]})


# ── logprobs, reasoning, legacy functions ────────────────────────────────────────────────────────────────────────────

TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}


@pytest.mark.parametrize("value", [[TOKEN], {"content": [TOKEN]}, {"content": [TOKEN], "refusal": None}])
def test_logprobs_of_a_message_or_a_choice_reach_the_client(value: Any) -> None:
    items = [{"content": "a", "logprobs": value}, {"choices": [{"delta": {"content": "b"}, "logprobs": value}]}]
    for completion in (answer(*items), streamed(*items)):
        logprobs = completion.choices[0].logprobs
        assert logprobs is not None and [token.token for token in logprobs.content or []] == ["a", "a"]


def test_an_answer_in_which_nothing_is_said_has_a_list_of_no_logprobs() -> None:
    for completion in (answer("", logprobs=True), streamed("", logprobs=True)):
        logprobs = completion.choices[0].logprobs
        assert logprobs is not None and (logprobs.content, logprobs.refusal) == ([], None)
    assert answer("", logprobs=False).choices[0].logprobs is None
    assert answer("said", logprobs=True).choices[0].logprobs is None  # of a class that knows none


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_both_names_of_reasoning_are_read_and_one_is_written(name: str) -> None:
    items = [{name: "think "}, {"choices": [{"delta": {name: "hard"}}]}, "so"]
    for completion in (answer(*items), streamed(*items)):
        message: Any = completion.choices[0].message
        assert (message.reasoning_content, message.content) == ("think hard", "so")
        assert not hasattr(message, "reasoning")


def test_a_client_of_functions_gets_a_function_call() -> None:
    fields = {"functions": [{"name": "f", "parameters": {}}], "function_call": "auto"}
    items = [{"tool_calls": [{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": "{}"}]}]
    for completion in (answer(*items, **fields), streamed(*items, **fields)):
        [choice] = completion.choices
        assert choice.finish_reason == "function_call" and choice.message.tool_calls is None
        assert choice.message.function_call is not None
        assert (choice.message.function_call.name, choice.message.function_call.arguments) == ("f", '{"a":1}')


# ── SSE that the model frames itself ─────────────────────────────────────────────────────────────────────────────────

RAW = [
    'data: {"choices":[{"index":0,"delta":{"content":"a',
    b'b"}}]}\n\ndata: {"choices":[{"delta":{"content":"c"}}]}\n\n',
    "data: [DONE]\n\n",
]


def test_raw_sse_is_read_as_chunks_where_it_cannot_be_passed_through() -> None:
    assert answer(*RAW).choices[0].message.content == "abc"
    assert parse(encode_whole([(0, RAW), (1, ["x"])], calls=2, n=2)).choices[0].message.content == "abc"


def test_raw_sse_that_is_no_json_is_invalid() -> None:
    for bad in ("data: hello\n\n", "data: [1]\n\n", "data: NaN\n\n", "data: " + "[" * 2000 + "\n\n"):
        with pytest.raises(InvalidOutput):
            answer(bad)


def test_chunks_hold_what_the_sdk_expects_of_each() -> None:
    for chunk in chunks(encode_stream([(0, ["a", {"tool_calls": [{"name": "f"}]}])])):
        assert chunk.object == "chat.completion.chunk" and isinstance(chunk.created, int)
