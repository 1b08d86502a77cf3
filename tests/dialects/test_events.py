"""What each value of a Model means, row by row; what nothing means is invalid_model_output, never a guess."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from gateway.dialects.events import Failed, Finish, Head, Logprobs, Reasoning, Refusal, Text, ToolCall, Usage, usage_of
from gateway.dialects.normalize import Normalizer
from gateway.errors import GatewayError, HTTPError, InvalidOutput
from gateway.wire.values import decode
from gateway.worker.bodies.results import pack


def travelled(value: Any) -> Any:
    """The value as the gateway gets it from a worker."""
    return decode(pack(value))


def meaning(*values: Any, width: int = 1) -> list[Any]:
    normalizer = Normalizer(0, width)
    found = [event for value in values for event in normalizer.feed(travelled(value))]
    return [*found, *normalizer.end()]


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_str_is_text_and_nothing_is_nothing() -> None:
    assert meaning("a", "", "b", None, b"") == [Text(0, "a"), Text(0, "b")]


@given(st.text(), st.lists(st.integers(0, 200)))
def test_bytes_cut_anywhere_are_the_text_they_encode(text: str, cuts: list[int]) -> None:
    data = text.encode("utf-8", "replace")
    edges = sorted({0, len(data), *(cut for cut in cuts if cut <= len(data))})
    pieces = [data[start:end] for start, end in pairwise(edges)]
    normalizer = Normalizer()
    normalizer._first = False  # or text that begins like SSE would be read as such
    found = [event for piece in pieces for event in normalizer.feed(piece)] + normalizer.end()
    assert "".join(event.text for event in found) == data.decode()  # type: ignore[union-attr]


def test_half_a_character_at_the_end_or_before_a_str_becomes_a_replacement_mark() -> None:
    assert meaning(b"\xe2\x82") == [Text(0, "\ufffd")]
    assert meaning(b"\xe2\x82", "x") == [Text(0, "\ufffdx")]


def test_lone_surrogates_of_a_model_do_no_harm() -> None:
    assert meaning("a\ud83d") == [Text(0, "a?")]


# ── shorthand ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "events"),
    [
        ({"content": "a"}, [Text(0, "a")]),
        ({"content": None, "finish_reason": "stop"}, [Finish(0, "stop")]),
        ({"content": [{"type": "text", "text": "a"}, "b"]}, [Text(0, "ab")]),
        ({"role": "assistant", "content": "a"}, [Text(0, "a")]),
        ({"role": "assistant", "content": ""}, []),
        ({"reasoning_content": "r", "content": "a"}, [Reasoning(0, "r"), Text(0, "a")]),
        ({"reasoning": "r"}, [Reasoning(0, "r")]),
        ({"reasoning_content": None, "reasoning": "r"}, [Reasoning(0, "r")]),
        ({"refusal": "no"}, [Refusal(0, "no")]),
        ({"finish_reason": "length"}, [Finish(0, "length")]),
        ({"finish_reason": "function_call"}, [Finish(0, "tool_calls")]),
        ({"stop_sequence": "###"}, [Finish(0, "stop", "###")]),
        ({"usage": {"prompt_tokens": 1, "completion_tokens": 2}}, [Usage(1, 2)]),
        ({"usage": None, "content": "a"}, [Text(0, "a")]),
        ({"usage": {}, "content": "a"}, [Text(0, "a")]),
        ({"logprobs": [{"token": "a"}]}, [Logprobs(0, [{"token": "a"}], [])]),
        ({"logprobs": {"content": [], "refusal": None}}, []),
        ({"error": None, "content": "a"}, [Text(0, "a")]),
    ],
)
def test_shorthand(value: Any, events: list[Any]) -> None:
    assert meaning(value) == events


@pytest.mark.parametrize(
    "value",
    [
        {"role": "assistant"},
        {},
        {"text": "a"},
        {"generated_text": "a"},
        {"content": 5},
        {"content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"content": {"a": 1}},
        {"reasoning": {"a": 1}},
        {"refusal": ["no"]},
        {"finish_reason": "whim"},
        {"finish_reason": 1},
        {"usage": 5},
        {"logprobs": 5},
        {"logprobs": {"tokens": ["a"]}},
        {"logprobs": [{"token": "a", "logprob": float("-inf")}]},
        {"tool_calls": "f"},
        {"tool_calls": ["f"]},
        {"choices": "a"},
        {"choices": ["a"]},
        {"choices": [{"index": 0}]},
        {"choices": [{"message": "a"}]},
        {"choices": [{"message": {"content": "a"}}], "score": float("nan")},
        {"choices": [{"message": {"content": "a"}}], "vector": numpy.zeros(2)},
        5,
        1.5,
        True,
        ["a"],
        ["a", "b"],
        [],
        ("a", {"usage": {}}),
        numpy.zeros(3),
    ],
)
def test_a_shape_that_nobody_documented_is_invalid_output(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        meaning(value)


def test_the_message_names_the_keys_that_it_does_not_know() -> None:
    with pytest.raises(InvalidOutput, match="generated_text, score"):
        meaning({"score": 1, "generated_text": "a"})


# ── libraries' objects ───────────────────────────────────────────────────────────────────────────────────────────────


class Delta(pydantic.BaseModel):
    content: str = ""
    finish_reason: str | None = None


class Person(pydantic.BaseModel):
    name: str
    age: int = 3


def test_a_pydantic_instance_with_known_keys_is_shorthand_by_its_set_fields() -> None:
    assert meaning(Delta(content="a")) == [Text(0, "a")]


def test_a_pydantic_instance_without_known_keys_is_the_answer_to_a_response_format() -> None:
    assert meaning(Person(name="x")) == [Text(0, '{"name":"x","age":3}')]


def test_the_sdks_own_objects_are_taken_apart() -> None:
    delta = {"content": "a", "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]}
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    chunk = ChatCompletionChunk.model_validate(
        {"id": "x", "object": "chat.completion.chunk", "created": 5, "model": "up", "choices": [choice]}
    )
    assert meaning(chunk) == [Head("x", 5, None, {}), Text(0, "a"), ToolCall(0, 0, "c", "f", "{}")]
    message = {"role": "assistant", "content": "a"}
    whole = ChatCompletion.model_validate(
        {
            "id": "x",
            "object": "chat.completion",
            "created": 5,
            "model": "up",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
        }
    )
    assert meaning(whole) == [Head("x", 5, None, {}), Text(0, "a"), Finish(0, "stop"), Usage(1, 2, 3)]


def test_instances_inside_a_dict_are_read_as_dicts() -> None:
    class Count(pydantic.BaseModel):
        prompt_tokens: int = 1
        completion_tokens: int = 2

    class Call(pydantic.BaseModel):
        name: str
        arguments: Person

    value = {
        "usage": Count(prompt_tokens=3, completion_tokens=4),
        "tool_calls": [Call(name="f", arguments=Person(name="x"))],
    }
    call, usage = meaning(value)
    assert (call.name, call.arguments, usage) == ("f", '{"name":"x"}', Usage(3, 4))


# ── envelopes ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_choices_without_an_index_count_by_their_place() -> None:
    value = {"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}
    assert meaning(value, width=2)[1:] == [Text(0, "a"), Text(1, "b")]


def test_text_of_a_completions_choice_is_text() -> None:
    assert meaning({"choices": [{"text": "a", "finish_reason": "stop"}]})[1:] == [Text(0, "a"), Finish(0, "stop")]


def test_a_usage_chunk_without_choices_is_usage() -> None:
    assert meaning({"choices": [], "usage": {"prompt_tokens": 1}})[1:] == [Usage(1, None)]


def test_a_run_answers_the_choices_from_its_own_on() -> None:
    normalizer = Normalizer(3)
    assert normalizer.feed({"choices": [{"index": 0, "message": {"content": "a"}}]})[1:] == [Text(3, "a")]


# ── errors ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "status", "kind", "code", "param"),
    [
        ({"error": "no"}, 500, "server_error", "model_error", None),
        ({"error": {"message": "no"}, "status": 400}, 400, "invalid_request_error", "invalid_value", None),
        ({"error": {"message": "no", "status_code": 429}}, 429, "rate_limit_error", "rate_limit_exceeded", None),
        ({"error": {"message": "no", "type": "mine", "code": "c", "param": "p"}}, 500, "mine", "c", "p"),
        ({"error": {"message": "no", "code": 5}, "status": 200}, 500, "server_error", "model_error", None),
        ({"error": {"message": "no"}, "status": 1000}, 500, "server_error", "model_error", None),
    ],
)
def test_a_dict_with_error_is_a_failure_in_its_own_words(
    value: Any, status: int, kind: str, code: str, param: str | None
) -> None:
    [failed] = meaning(value)
    assert isinstance(failed, Failed) and isinstance(failed.error, HTTPError)
    error = failed.error
    assert (error.message, error.status, error.type, error.code, error.param) == ("no", status, kind, code, param)


# ── tool calls ───────────────────────────────────────────────────────────────────────────────────────────────────────


def calls(*values: Any) -> list[tuple[int, str | None, str | None, str]]:
    return [
        (event.call, event.id, event.name, event.arguments) for event in meaning(*({"tool_calls": v} for v in values))
    ]


def test_arguments_may_be_a_dict() -> None:
    assert calls([{"id": "c", "name": "f", "arguments": {"a": [1, "é"]}}]) == [(0, "c", "f", '{"a":[1,"é"]}')]


def test_a_missing_id_is_made() -> None:
    [(_, identity, _, _)] = calls([{"name": "f"}])
    assert identity is not None and len(identity) == len("call_") + 32


def test_complete_calls_without_index_count_by_their_place_even_with_one_name() -> None:
    found = calls([{"name": "f", "arguments": "1"}, {"name": "f", "arguments": "2"}], [{"name": "g"}])
    assert [(index, name, arguments) for index, _, name, arguments in found] == [
        (0, "f", "1"),
        (1, "f", "2"),
        (2, "g", ""),
    ]


def test_a_piece_without_index_or_name_belongs_to_the_last_call() -> None:
    found = calls([{"id": "c", "name": "f", "arguments": ""}], [{"arguments": "{"}], [{"function": {"arguments": "}"}}])
    assert found == [(0, "c", "f", ""), (0, None, None, "{"), (0, None, None, "}")]


def test_a_known_id_finds_its_call() -> None:
    found = calls([{"id": "c", "name": "f"}, {"id": "d", "name": "g"}], [{"id": "c", "arguments": "1"}])
    assert found == [(0, "c", "f", ""), (1, "d", "g", ""), (0, None, None, "1")]


def test_repeated_ids_and_names_are_dropped() -> None:
    piece = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "1"}}
    assert calls([piece], [piece]) == [(0, "c", "f", "1"), (0, None, None, "1")]


def test_indices_of_the_model_are_renumbered_from_zero_as_they_appear() -> None:
    found = calls(
        [{"index": 7, "id": "c", "name": "f"}],
        [{"index": 10**9, "id": "d", "name": "g"}],
        [{"index": 7, "arguments": "1"}],
    )
    assert found == [(0, "c", "f", ""), (1, "d", "g", ""), (0, None, None, "1")]


def test_parallel_calls_that_all_say_index_zero_are_told_apart_by_their_ids() -> None:
    found = calls([{"index": 0, "id": "c", "name": "f"}], [{"index": 0, "id": "d", "name": "g"}])
    assert found == [(0, "c", "f", ""), (1, "d", "g", "")]


def test_a_name_may_come_after_the_id() -> None:
    found = calls(
        [{"index": 0, "id": "c", "function": {"name": None}}],
        [{"index": 0, "function": {"name": "f", "arguments": "1"}}],
    )
    assert found == [(0, "c", "f", "1")]


@pytest.mark.parametrize(
    "value",
    [
        [{"arguments": "{}"}],
        [{"id": "c", "arguments": "{}"}],
        [{"id": "c"}],
        [{"function": 5}],
        [{"type": "custom", "custom": {"name": "f"}}],
        [{"index": 0, "name": "f"}, {"index": 0, "name": "g"}],
        [{"name": "f", "arguments": {"a": float("nan")}}],
    ],
)
def test_a_call_that_makes_no_sense_is_invalid(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        calls(value)


# ── counts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("value", "usage"),
    [
        ({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}, Usage(1, 2, 3)),
        ({"input_tokens": 1, "output_tokens": 2}, Usage(1, 2)),
        ({"prompt_tokens": 1.0}, Usage(1, None)),
        ({"prompt_tokens": float("nan"), "completion_tokens": -1}, None),
        ({"prompt_tokens": "many"}, None),
        ({"prompt_tokens": 2**53, "completion_tokens": 2**53 + 1}, Usage(2**53, None)),
        ({"prompt_tokens": 1e308, "completion_tokens": 10**400}, None),
        (
            {"prompt_tokens": 1, "total_tokens": 1e308, "prompt_tokens_details": {"cached_tokens": 1e308}},
            Usage(1, None),
        ),
        ({"prompt_tokens": 1, "prompt_tokens_details": ["x"]}, Usage(1, None)),
        ({"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}}, Usage(1, None, None, 1)),
    ],
)
def test_counts_that_are_none_are_no_counts(value: Any, usage: Usage | None) -> None:
    assert usage_of(value) == usage


# ── whatever comes ───────────────────────────────────────────────────────────────────────────────────────────────────

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "content reasoning refusal tool_calls function_call logprobs finish_reason usage choices message delta "
                "index id name arguments function error status created text role".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(plain, max_size=4), st.integers(1, 3))
def test_any_values_at_all_are_events_or_a_defined_error(values: list[Any], width: int) -> None:
    normalizer = Normalizer(0, width)
    try:
        found = [event for value in values for event in normalizer.feed(value)] + normalizer.end()
    except GatewayError:
        return
    assert all(0 <= getattr(event, "choice", 0) < width for event in found)
