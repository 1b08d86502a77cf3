"""Stop strings that the gateway looks for: the text ends before the first one, however it comes in pieces."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.base import Context
from gateway.dialects.openai.chat import ChatDialect, ChatEncoder
from gateway.dialects.stops import StopCutter

from .sdk import ASK, HEX, accumulate, events, parse


def cut(pieces: list[str], stops: list[str]) -> tuple[str, str | None]:
    cutter, out = StopCutter(stops), []
    for piece in pieces:
        out.append(cutter.push(piece))
        if cutter.found is not None:
            return "".join(out), cutter.found
    return "".join(out) + cutter.rest(), None


def by_hand(text: str, stops: list[str]) -> tuple[str, str | None]:
    """Character by character, as a model would do it that looks at all of its text each time."""
    for end in range(1, len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            stop = max(ended, key=len)
            return text[: end - len(stop)], stop
    return text, None


few = st.text("ab#", max_size=12)


@given(few, st.lists(st.text("ab#", min_size=1, max_size=4), min_size=1, max_size=3), st.lists(st.integers(0, 12)))
def test_pieces_do_not_matter(text: str, stops: list[str], cuts: list[int]) -> None:
    edges = sorted({0, len(text), *(at for at in cuts if at <= len(text))})
    assert cut([text[start:end] for start, end in pairwise(edges)], stops) == by_hand(text, stops)


def test_no_more_is_held_back_than_may_be_a_beginning() -> None:
    cutter = StopCutter(["<end>"])
    assert [cutter.push(text) for text in ("a", "b<", "en", "x", "<end")] == ["a", "b", "", "<enx", ""]
    assert (cutter.rest(), cutter.found) == ("<end", None)


def encoder(stops: tuple[str, ...] = ("END",), calls: int = 1, **fields: Any) -> ChatEncoder:
    dialect = ChatDialect()
    prepared = dialect.read({**ASK, **fields}, "chat_completions")
    return dialect.encoder(prepared, Context("m", HEX, 1, calls, stops=stops))


ITEMS = ["one E", {"content": "ND two"}, " three", {"usage": {"prompt_tokens": 1, "completion_tokens": 9}}]


def test_an_answer_ends_before_the_stop_string_streamed_or_whole() -> None:
    whole, streaming = encoder(), encoder(stream=True)
    whole.feed(ITEMS)
    assert whole.is_complete
    choice = parse(whole.whole()[0]).choices[0]
    assert (choice.message.content, choice.finish_reason) == ("one ", "stop")
    sent = [streaming.start(), *(streaming.feed([item]) for item in ITEMS), streaming.finish()]
    assert accumulate(b"".join(sent)).choices[0].message.content == "one "
    assert sent[2:-1] == [b"", b"", b""]


def test_what_was_held_back_comes_when_nothing_follows() -> None:
    streaming = encoder(stream=True)
    sent = [streaming.start(), streaming.feed(["one E"]), streaming.feed(["N"]), streaming.finish()]
    assert accumulate(b"".join(sent)).choices[0].message.content == "one EN"
    whole = encoder()
    whole.feed(["one EN", {"tool_calls": [{"name": "f"}]}, {"finish_reason": "length"}])
    body = json.loads(whole.whole()[0])
    assert (body["choices"][0]["message"]["content"], body["choices"][0]["finish_reason"]) == ("one EN", "length")


def test_text_held_back_comes_before_the_call_that_follows_it() -> None:
    streaming = encoder(stream=True)
    sent = streaming.start() + streaming.feed(["E", {"tool_calls": [{"name": "f"}]}]) + streaming.finish()
    deltas = [event["choices"][0]["delta"] for event in events(sent)[1:-1]]
    assert [next(iter(delta), None) for delta in deltas[:2]] == ["content", "tool_calls"]


def test_each_choice_stops_by_itself_and_the_answer_with_the_last() -> None:
    under_way = encoder(calls=2, n=2)
    under_way.feed(["a END"], 0)
    assert not under_way.is_complete
    under_way.feed(["b "], 1)
    under_way.feed(["never"], 0)
    under_way.feed(["c END"], 1)
    assert under_way.is_complete
    assert [choice.message.content for choice in parse(under_way.whole()[0]).choices] == ["a ", "b c "]


@pytest.mark.parametrize("raw", ['data: {"choices":[{"delta":{"content":"one END two"}}]}\n\n'])
def test_sse_of_the_models_own_is_cut_too(raw: str) -> None:
    under_way = encoder()
    under_way.feed([raw])
    assert parse(under_way.whole()[0]).choices[0].message.content == "one "
