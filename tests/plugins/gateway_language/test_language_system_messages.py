"""Messages of the system, wherever they stand, by the chat templates there are: nothing of them is refused or lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("transformers")

from gateway_language import system_messages as system
from gateway_language.prompts import Prompts
from test_language_prompts import CHATML, Characters

from gateway import BadRequest

# As Qwen 3.5
FIRST = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('System message must be at the beginning.') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# As gpt-oss: no word of those that stand elsewhere.
DEAF = (
    "{% for m in messages %}{% if loop.first or m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# As DeepSeek R1: the last one wins.
LAST = (
    "{% set ns = namespace(told='') %}{% for m in messages if m.role == 'system' %}{% set ns.told = m.content %}"
    "{% endfor %}{{ ns.told }}{% for m in messages if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# As Gemma 3: the first is within the user's first turn, and turns alternate.
WITHIN = (
    "{% if messages[0].role == 'system' %}{% set told, rest = messages[0].content + '\n\n', messages[1:] %}"
    "{% else %}{% set told, rest = '', messages %}{% endif %}"
    "{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<|{{ m.role }}|>{{ told if loop.first }}{{ m.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# As Gemma 2, and as templates that know nobody but the user and the assistant.
NONE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content | trim }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TWO = "{% for m in messages if m.role in ('user', 'assistant') %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
TEMPLATES = [CHATML, FIRST, DEAF, LAST, WITHIN, NONE, TWO]

AGENT = [("user", "Q"), ("system", "S")]  # as Claude Code begins
LATER = [("system", "R"), ("user", "Q"), ("assistant", "A"), ("system", "S"), ("user", "P")]
SEVERAL = [("system", "R"), ("developer", "S"), ("user", "Q")]
BETWEEN = [("user", "Q"), ("system", "S"), ("user", "P")]
ALONE = [("system", "S")]


def prompt(template: str, turns: Any, **fields: Any) -> str:
    tokenizer = Characters(template)
    messages = [{"role": role, "content": text} for role, text in turns]
    return tokenizer.decode(Prompts(tokenizer, None, False).chat({"messages": messages, **fields}).ids)


@pytest.mark.parametrize(
    ("turns", "wanted"),
    [
        (AGENT, "<|system|>S<|end|><|user|>Q<|end|><|assistant|>"),
        (
            LATER,
            "<|system|>R\n\nS<|end|><|user|>Q<|end|><|assistant|>A<|end|><|user|>P<|end|><|assistant|>",
        ),
        (SEVERAL, "<|system|>R\n\nS<|end|><|user|>Q<|end|><|assistant|>"),
        (BETWEEN, "<|system|>S<|end|><|user|>Q\n\nP<|end|><|assistant|>"),
    ],
)
def test_a_template_that_wants_the_system_first_gets_all_of_it_there(turns: Any, wanted: str) -> None:
    assert prompt(FIRST, turns) == wanted
    assert prompt(DEAF, turns) == wanted


def test_a_template_that_takes_it_anywhere_gets_it_where_it_stands() -> None:
    for turns in (AGENT, LATER, SEVERAL, BETWEEN, ALONE):
        written = "".join(f"<|{role.replace('developer', 'system')}|>{text}<|end|>" for role, text in turns)
        assert prompt(CHATML, turns) == written + "<|assistant|>"


def test_a_template_that_keeps_the_last_only_gets_one() -> None:
    assert prompt(LAST, LATER).startswith("R\n\nS<|user|>Q")
    assert prompt(LAST, AGENT) == "S<|user|>Q<|end|><|assistant|>"  # the last is all


def test_turns_alternate_also_where_only_the_system_spoke_between_two() -> None:
    assert prompt(WITHIN, LATER).startswith("<|user|>R\n\nS\n\nQ<|end|><|assistant|>A<|end|>")
    assert prompt(NONE, BETWEEN) == "<|user|>S\n\nQ\n\nP<|end|><|assistant|>"
    with pytest.raises(BadRequest, match="alternate"):  # the client's own doing
        prompt(WITHIN, [("system", "S"), ("user", "Q"), ("user", "P")])


def test_a_template_that_knows_no_system_gets_it_from_the_user() -> None:
    for template in (NONE, TWO):
        assert prompt(template, AGENT).startswith("<|user|>S\n\nQ<|end|>")
        assert prompt(template, LATER).startswith("<|user|>R\n\nS\n\nQ<|end|><|assistant|>A<|end|><|user|>P<|end|>")
        assert prompt(template, ALONE).startswith("<|user|>S<|end|>")


def test_a_message_goes_on_whatever_the_system_says() -> None:
    turns = [*BETWEEN, ("assistant", "In Rey")]
    for template in TEMPLATES:
        assert prompt(template, turns, continue_final_message=True).endswith("<|assistant|>In Rey")


def test_a_template_that_changes_what_it_is_told_is_asked_once_more_and_believed() -> None:
    assert (
        prompt("{% for m in messages %}{{ m.content | upper }}{% endfor %}", [("system", "be"), ("user", "q")]) == "BEQ"
    )


def test_what_is_refused_anyhow_is_refused_in_the_words_for_what_was_sent() -> None:
    template = "{{ raise_exception('not ' + messages[0].content) }}"
    with pytest.raises(BadRequest, match="does not accept these messages: not Q"):
        prompt(template, AGENT)


TURNS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4)


@given(TURNS, st.sampled_from(TEMPLATES))
@settings(max_examples=40, deadline=None)
def test_every_word_is_in_the_prompt_and_the_turns_keep_their_order(
    before: list[tuple[int, int]], template: str
) -> None:
    """`before`: how often the system speaks before each question and before its answer."""
    turns: list[tuple[str, str]] = []
    for at, (first, second) in enumerate(before):
        turns += [("system", f"[s{at}a{number}]") for number in range(first)] + [("user", f"[q{at}]")]
        turns += [("system", f"[s{at}b{number}]") for number in range(second)] + [("assistant", f"[a{at}]")]
    text = prompt(template, turns)
    assert all(text.count(said) == 1 for _, said in turns)
    for roles in (("system",), ("user", "assistant")):
        places = [text.index(said) for role, said in turns if role in roles]
        assert places == sorted(places)


def test_messages_without_the_system_are_read_once() -> None:
    asked = [{"role": "user", "content": "Q"}, {"role": "system", "content": " "}]
    assert list(system.readings(asked)) == [asked]
