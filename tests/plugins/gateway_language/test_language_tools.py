from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from gateway_language.calls import JsonCall
from gateway_language.tools import Hermes, Llama, Mistral, Parser, family
from hypothesis import given
from hypothesis import strategies as st

FAMILIES = [Hermes, Llama, Mistral]
FRAGMENTS = [
    *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "<tool", "</", "[TOOL", "<|py"),
    *('{"name": "f", "arguments": ', '"name"', '"arguments"', '"parameters"', '"f"', "f", "{", "}", "[", "]", ":", ","),
    *('"', "\\", ";", " ", "\n", "1", "null", "é", "word"),
]
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join)
cuts = st.lists(st.integers(0, 200), max_size=12)
words = st.text(st.characters(exclude_characters="<[{|", exclude_categories=["C", "Z"]), min_size=1, max_size=8)
said = st.lists(words, min_size=1, max_size=4).map(" ".join)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.sampled_from(["</tool_call>", "<tool_call>", '"}{', "]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
calls = st.tuples(st.sampled_from(["f", "get_weather"]), st.dictionaries(st.text(max_size=5), values, max_size=3))


def pieces(text: str, cuts: list[int]) -> list[str]:
    at = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[start:stop] for start, stop in pairwise(at)]


def parse(kind: type[Parser], *texts: str, **options: Any) -> tuple[str, list[tuple[str, str]], Parser]:
    """The content, the calls as (name, arguments), and the parser."""
    parser = kind(("f", "get_weather"), **options)
    content, calls = "", []
    for event in [event for text in texts for event in parser.push(text)] + parser.finish():
        assert event, "nothing is said with an empty event"
        if isinstance(event, str):
            content += event
            continue
        [call] = event["tool_calls"]
        function = call["function"]
        if "id" in call:
            assert (call["index"], call["type"], function["arguments"]) == (len(calls), "function", "")
            calls.append([function["name"], ""])
        else:
            assert call.keys() == {"index", "function"} and function.keys() == {"arguments"}
            calls[call["index"]][1] += function["arguments"]
    return content, [(name, arguments) for name, arguments in calls], parser


def written(kind: type[Parser], name: str, arguments: str) -> str:
    """A call as the family writes it, from the beginning that would be forced."""
    return kind.forced(name) + f" {arguments}}}" + {Hermes: "\n</tool_call>", Llama: "", Mistral: "]"}[kind]


# ── what comes out ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(said, st.lists(calls, min_size=1, max_size=3), said, cuts)
def test_calls_come_out_as_they_were_written_and_so_does_the_text_around_them(
    before: str, made: list[tuple[str, dict[str, Any]]], after: str, cuts: list[int]
) -> None:
    wanted = [(name, json.dumps(arguments)) for name, arguments in made]
    text = f"{before}\n" + "\n".join(written(Hermes, *call) for call in wanted) + f"\n{after}"
    assert parse(Hermes, *pieces(text, cuts))[:2] == (before + after, wanted)


@given(st.lists(calls, min_size=1, max_size=3), cuts)
def test_llama_writes_nothing_but_calls(made: list[tuple[str, dict[str, Any]]], cuts: list[int]) -> None:
    wanted = [(name, json.dumps(arguments)) for name, arguments in made]
    for tag in ("", "<|python_tag|>"):
        text = tag + "; ".join(written(Llama, *call) for call in wanted)
        assert parse(Llama, *pieces(text, cuts))[:2] == ("", wanted)


@given(said, st.lists(calls, min_size=1, max_size=3), cuts)
def test_mistral_writes_a_list_or_names(before: str, made: list[tuple[str, dict[str, Any]]], cuts: list[int]) -> None:
    wanted = [(name, json.dumps(arguments)) for name, arguments in made]
    whole = json.dumps([{"name": name, "arguments": arguments} for name, arguments in made])
    named = "".join(f"[TOOL_CALLS]{name}[ARGS]{arguments}" for name, arguments in wanted)
    for text in (f"{before}[TOOL_CALLS]{whole}", f"{before}[TOOL_CALLS] {whole}", before + named):
        assert parse(Mistral, *pieces(text, cuts))[:2] == (before, wanted)


@pytest.mark.parametrize("kind", FAMILIES)
@given(text=texts, cuts=cuts)
def test_however_the_text_is_cut_the_events_are_the_same(kind: type[Parser], text: str, cuts: list[int]) -> None:
    assert parse(kind, *pieces(text, cuts))[:2] == parse(kind, text)[:2] == parse(kind, *text)[:2]


@pytest.mark.parametrize("kind", FAMILIES)
@given(text=texts)
def test_a_text_without_a_call_is_all_content(kind: type[Parser], text: str) -> None:
    content, calls, _ = parse(kind, text)
    if not calls:
        assert content == text


@pytest.mark.parametrize("kind", FAMILIES)
@given(text=st.text(), cuts=cuts)
def test_plain_text_stays_what_it_is(kind: type[Parser], text: str, cuts: list[int]) -> None:
    assert parse(kind, *pieces(text, cuts))[0] == text


def test_what_is_no_tag_after_all_is_not_held_any_longer() -> None:
    parser = Hermes(())
    assert parser.push("a <tool") == ["a"]
    assert parser.push("box") == [" <toolbox"]
    assert parser.push("<tool_call") == [] and parser.finish() == ["<tool_call"]


def test_a_name_and_arguments_come_before_the_call_is_complete() -> None:
    parser = Hermes(())
    assert parser.push('<tool_call>\n{"name": "f') == []
    [begun] = parser.push('", "arg')
    assert begun["tool_calls"][0]["function"] == {"name": "f", "arguments": ""}
    assert begun["tool_calls"][0]["id"].startswith("call_")
    [more] = parser.push('uments": {"a": "x')
    assert more == {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": "x'}}]}


def test_every_call_has_an_id_of_its_own_and_mistrals_are_short() -> None:
    for kind, length in ((Hermes, 29), (Mistral, 9)):
        parser = kind(())
        events = parser.push(written(kind, "f", "{}") * 2)
        ids = [event["tool_calls"][0]["id"] for event in events if "id" in event["tool_calls"][0]]
        assert len(set(ids)) == 2 and {len(id) for id in ids} == {length}


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_single_call_is_the_end_of_the_answer(kind: type[Parser]) -> None:
    one = written(kind, "f", '{"a": 1}')
    content, calls, parser = parse(kind, one + "; \n" + one + "text", single=True)
    assert (content, calls, parser.is_over) == ("", [("f", '{"a": 1}')], True)


# ── what is written badly ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "calls", "content"),
    [
        ('{"arguments": {"a": 1}, "name": "f"}', [("f", '{"a": 1}')], ""),  # the other way round
        ('{"id": [1, {"x": "}"}], "name": "f", "parameters": {}}', [("f", "{}")], ""),
        ('{"name": "f"}', [("f", "{}")], ""),
        ('{"name": "f", "arguments": null}', [("f", "{}")], ""),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', [("f", '{"a": 1}')], ""),  # JSON within JSON
        ('{"name": "f", "arguments": ""}', [("f", "{}")], ""),
        ('{"name": "f", "arguments": 7}', [("f", "7")], ""),
        ('{"name": "f", "arguments": [1, 2] }', [("f", "[1, 2]")], ""),
        ('{"name": "f" "arguments": {"a": 1}}}', [("f", '{"a": 1}')], "}"),  # a comma missing, a brace too many
        ('{"name": "f", "arguments": {"a": 1}, oops}', [("f", '{"a": 1}')], "oops}"),
        ('{"name": "f", arguments: {}}', [("f", "arguments: {}}\n")], ""),  # broken after the name: its arguments
        ("{name: f}", [], "<tool_call>\n{name: f}\n</tool_call>"),  # and before it: content
        ('{"name": f}', [], '<tool_call>\n{"name": f}\n</tool_call>'),
        ('{"name": 1}', [], '<tool_call>\n{"name": 1}\n</tool_call>'),
        ('{"arguments": {}}', [], '<tool_call>\n{"arguments": {}}\n</tool_call>'),
        ("", [], "<tool_call>\n\n</tool_call>"),
    ],
)
def test_what_is_not_quite_a_call_is_not_lost(text: str, calls: list[Any], content: str) -> None:
    text = f"<tool_call>\n{text}\n</tool_call>"
    assert parse(Hermes, *text)[:2] == parse(Hermes, text)[:2] == (content, calls)


def test_a_call_that_breaks_off_is_as_far_as_it_came() -> None:
    assert parse(Hermes, '<tool_call>{"name": "f", "arguments": {"a": ')[1] == [("f", '{"a": ')]
    assert parse(Hermes, '<tool_call>{"name": "f')[:2] == ('<tool_call>{"name": "f', [])
    assert parse(Mistral, "yes [TOOL_CALLS]get_w")[0] == "yes [TOOL_CALLS]get_w"


@pytest.mark.parametrize("end", ["</tool_call>"[:length] for length in range(1, 12)])
def test_a_closing_tag_that_breaks_off_behind_a_whole_call_is_no_content(end: str) -> None:
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n'
    assert parse(Hermes, call + end)[:2] == parse(Hermes, *(call + end))[:2] == ("", [("f", "{}")])
    assert parse(Hermes, f"{call}so {end}")[:2] == (f"so {end}", [("f", "{}")])
    assert parse(Hermes, f"{call}</tool_call>\n{end}")[:2] == (end, [("f", "{}")])


def test_the_closing_tag_may_be_missing() -> None:
    one = '<tool_call>{"name": "f", "arguments": {}}'
    assert parse(Hermes, one + one)[:2] == ("", [("f", "{}")] * 2)


@pytest.mark.parametrize("text", ['{"name": "Ada", "parameters": {}}', '{"age": 7}', '{"name": "f', "[1]", "Hello {}"])
def test_json_that_names_no_offered_function_is_an_answer(text: str) -> None:
    assert parse(Llama, *text)[:2] == parse(Llama, text)[:2] == (text, [])


def test_a_call_in_json_is_done_at_its_brace() -> None:
    call = JsonCall()
    _, rest = call.push('{"name": "f", "arguments": {"a": 1}} and more')
    assert (call.name, call.raw) == ("f", '{"name": "f"')
    assert call.push(rest) == ('{"a": 1}', " and more")
    assert (call.is_done, call.is_broken) == (True, False)


# ── which family ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ("{% if tools %}<tools>…</tools> <tool_call>{% endif %}", Hermes),
        ("{% if tools %}[AVAILABLE_TOOLS]{% endif %} [TOOL_CALLS]", Mistral),
        ("{% if tools %}Environment: ipython{% endif %}<|python_tag|>", Llama),
        ("{{ messages }} <tool_call>", None),
        ("{% if tools %}{{ tools }}{% endif %}", None),  # takes them, but how it calls is not said
        ("{% if tools %}<tool_call><function=f><parameter=a>{% endif %}", None),  # no JSON
        ("{{ messages }}", None),
        ("", None),
    ],
)
def test_a_chat_template_tells_the_family(template: str, kind: type[Parser] | None) -> None:
    assert family(template) is kind
