from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from gateway_language.answer import Answer, Thinking
from gateway_language.text import StopStrings
from gateway_language.tools import Hermes
from hypothesis import given
from hypothesis import strategies as st

FRAGMENTS = [
    "<think>",
    "</think>",
    "<thi",
    "</",
    "<tool_call>",
    '{"name": "f", "arguments": {}}',
    " ",
    "\n",
    "a",
    "END",
]
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=20).map("".join)
cuts = st.lists(st.integers(0, 100), max_size=10)
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": "END"}}\n</tool_call>'


def answer(*texts: str, opened: bool = False, stops: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the events of one answer add up to."""
    parts = Answer(Thinking(opened), Hermes(("f",)), StopStrings(stops))
    found = {"thought": "", "said": "", "called": ""}
    events = []
    for text in texts:
        events += parts.push(text)
        if parts.is_over:
            break
    for event in [*events, *parts.finish()]:
        if isinstance(event, str):
            assert event
            found["said"] += event
        elif "reasoning_content" in event:
            assert event["reasoning_content"] and not found["said"] and not found["called"]
            found["thought"] += event["reasoning_content"]
        else:
            [call] = event["tool_calls"]
            found["called"] += call["function"].get("name", "") + call["function"]["arguments"]
    return {name: text for name, text in found.items() if text}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<think>\nI add.\n</think>\n\n4", {"thought": "I add.", "said": "4"}),
        ("\n<think>a\nb </think>c\n", {"thought": "a\nb", "said": "c\n"}),
        ("<think>\n\n</think>\n\n4", {"said": "4"}),  # a thought of nothing
        ("<think>\nI was cut of", {"thought": "I was cut of"}),
        ("<think>\na\n</thi", {"thought": "a"}),  # cut within the tag, as tokens cut it
        ("<think>a</", {"thought": "a"}),
        ("<think>a <", {"thought": "a <"}),  # as likely less-than
        ("<thi", {"said": "<thi"}),
        ("  <thinner", {"said": "  <thinner"}),
        ("a <think>b</think>", {"said": "a <think>b</think>"}),  # only at the beginning
        ("<think>a</think>b</think>", {"thought": "a", "said": "b</think>"}),
        (f"<think>call it</think>{CALL}", {"thought": "call it", "called": 'f{"a": "END"}'}),
        (f"<think>{CALL}</think>yes", {"thought": CALL, "said": "yes"}),  # thought of, not called
    ],
)
def test_a_thought_at_the_beginning_is_told_apart(text: str, found: dict[str, str]) -> None:
    assert answer(text) == answer(*text) == found


def test_a_thought_that_the_prompt_has_opened_needs_no_tag() -> None:
    assert answer("\nI add.\n</think>\n\n4", opened=True) == {"thought": "I add.", "said": "4"}
    assert answer("\n</think>\n\n" + CALL, opened=True) == {"called": 'f{"a": "END"}'}


@given(texts, cuts, st.booleans(), st.sampled_from([(), ("END",), ("a\n", "END")]))
def test_however_the_text_is_cut_the_answer_is_the_same(
    text: str, cuts: list[int], opened: bool, stops: tuple[str, ...]
) -> None:
    at = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[start:stop] for start, stop in pairwise(at)]
    whole = answer(text, opened=opened, stops=stops)
    assert answer(*pieces, opened=opened, stops=stops) == answer(*text, opened=opened, stops=stops) == whole


def test_stop_strings_look_at_what_is_said_only() -> None:
    text = f"<think>END</think>one {CALL} two END three"
    assert answer(text, stops=("END",)) == {"thought": "END", "said": "onetwo ", "called": 'f{"a": "END"}'}


def test_a_stop_string_does_not_reach_over_a_call() -> None:
    assert answer(f"E{CALL}ND", stops=("END",))["said"] == "END"
