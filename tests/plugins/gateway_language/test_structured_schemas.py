"""What the grammar of a schema accepts, compared with jsonschema; no model is needed for that."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest

pytest.importorskip("transformers")

from gateway_language.structured.asked import Form
from gateway_language.structured.constraint import Constraint
from gateway_language.structured.grammars import Call, Calls, Thoughts, Writer
from gateway_language.structured.guide import Guide, Guides
from gateway_language.structured.schemas import DEEPEST, LARGEST, MOST_PROPERTIES
from gateway_language.tools import Hermes, Llama, Mistral
from schema_kinds import KINDS, REFUSED, random_schema

from gateway import BadRequest

TINY = Path(__file__).parents[3] / "models" / "tiny-chat"
CHECKED = jsonschema.FormatChecker()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY, local_files_only=True)


@pytest.fixture(scope="module")
def guides(tokenizer: Any) -> Guides:
    return Guides(tokenizer, len(tokenizer))


def of_schema(guides: Guides, schema: Any, **how: Any) -> Guide:
    return Form(Constraint("json", schema, "schema", **how), None, None).guide(guides, {}, None)


def takes(guide: Guide, tokenizer: Any, text: str) -> bool:
    """Whether a guide takes the whole text, token by token. It takes what its mask has; where only one text is
    possible, the mask has the longest token alone."""
    for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
        is_offered = bool(guide.mask()[token >> 3] >> (token & 7) & 1)
        is_taken = guide.take(token)
        assert is_taken or not is_offered
        if not is_taken:
            return False
    return guide.may_end


def written(document: Any) -> list[str]:
    return [json.dumps(document, ensure_ascii=False), json.dumps(document, ensure_ascii=False, indent=2)]


def fulfils(document: Any, schema: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema, format_checker=CHECKED).is_valid(document))


# ── kinds of schemas ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", KINDS)
def test_a_schema_takes_what_fulfils_it_and_nothing_else(guides: Guides, tokenizer: Any, name: str) -> None:
    schema, valid, invalid = KINDS[name]
    for document in valid:
        for text in written(document):
            assert takes(of_schema(guides, schema), tokenizer, text), text
    for document in invalid:
        for text in written(document):
            assert not takes(of_schema(guides, schema), tokenizer, text), text


def test_there_are_as_many_kinds_as_were_measured() -> None:
    assert len(KINDS) >= 58 and len(REFUSED) >= 25


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_cannot_be_enforced_is_refused_with_its_place(guides: Guides, name: str) -> None:
    schema, path = REFUSED[name]
    with pytest.raises(BadRequest) as caught:
        of_schema(guides, schema)
    assert caught.value.param == f"schema{path}"
    assert caught.value.message.startswith(f"schema{path}: ")
    assert caught.value.code in ("unsupported_value", "invalid_value")


def test_an_unused_definition_is_no_part_of_the_schema(guides: Guides, tokenizer: Any) -> None:
    assert takes(of_schema(guides, {"type": "integer", "$defs": {"a": {"not": {}}}}), tokenizer, "12")


def test_a_key_has_one_spelling(guides: Guides, tokenizer: Any) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert not takes(of_schema(guides, schema), tokenizer, '{"\\u0061": "x"}')
    assert not takes(of_schema(guides, schema), tokenizer, '{"a": 1, "a": "x"}')
    assert takes(of_schema(guides, schema), tokenizer, '{"b": "a\\n\\"\\\\"}')


def test_random_documents_are_judged_as_by_jsonschema(guides: Guides, tokenizer: Any) -> None:
    source, seen = random.Random(15), {True: 0, False: 0}
    for _ in range(100):
        schema = random_schema(source)
        others = [random_document(source) for _ in range(3)]
        for document in [*others, like(schema, source)]:
            is_taken = takes(of_schema(guides, schema), tokenizer, json.dumps(document, ensure_ascii=False))
            assert is_taken == fulfils(document, schema), (schema, document)
            seen[is_taken] += 1
    assert min(seen.values()) > 50


def random_document(source: random.Random) -> Any:
    return source.choice([1, "a", None, True, [], {}, 2.5, ["a"], {"k0": 1}, {"k0": "a", "k1": None}, "12", -40, 100])


def like(schema: dict[str, Any], source: random.Random) -> Any:
    """A document that probably fulfils the schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return like(schema["anyOf"][0], source)
    kind = schema["type"]
    if kind == "object":
        return {name: like(one, source) for name, one in schema["properties"].items() if name in schema["required"]}
    if kind == "array":
        return [like(schema["items"], source) for _ in range(schema["maxItems"])]
    if kind in ("integer", "number"):
        return -(-schema["minimum"] // 3) * 3
    return {"string": {"^[0-9]{2}$": "12"}.get(schema.get("pattern", ""), "x"), "boolean": True, "null": None}[kind]


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def nested(levels: int) -> dict[str, Any]:
    return {"items": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"enum": ["a" * LARGEST]}, f"at most {LARGEST} characters"),
        (
            {"properties": {f"p{index}": {} for index in range(MOST_PROPERTIES + 1)}},
            f"at most {MOST_PROPERTIES} properties",
        ),
        (nested(DEEPEST + 1), f"at most {DEEPEST} levels deep"),
        ({"allOf": [{"anyOf": [{"minLength": 10 * i + j} for j in range(10)]} for i in range(6)]}, "too large"),
    ],
)
def test_a_schema_beyond_the_bounds_is_refused(guides: Guides, schema: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        of_schema(guides, schema)


# ── other forms ──────────────────────────────────────────────────────────────────────────────────────────────────────

GBNF = 'root ::= "say " [^a-c"]{2} ("x" | "\\u00e9" | .) # a comment. here\n'


@pytest.mark.parametrize(
    ("kind", "value", "right", "wrong"),
    [
        ("regex", "[0-9]{3}-x+", ["123-x", "000-xxx"], ["12-x", "123-", "123-xy"]),
        ("regex", "^a/b\\d$", ["a/b7"], ["a/b", "a/bc"]),
        ("choice", ("Oslo", 'a "b"\n', "é"), ["Oslo", 'a "b"\n', "é"], ["Osl", "Oslo ", "e"]),
        ("grammar", GBNF, ["say ddx", "say ddé", "say dd\n"], ["say adx", "say dd", 'say d"x']),
        ("grammar", 'start: "a" b\nb: "c"+', ["ac", "acc"], ["a", "acd"]),
        ("grammar", '%llguidance {}\nstart: "a" | "b"', ["a", "b"], ["ab", "c"]),
    ],
)
def test_a_text_takes_its_form(guides: Guides, tokenizer: Any, kind: Any, value: Any, right: Any, wrong: Any) -> None:
    for thoughts, before in (
        (None, ""),
        (Thoughts(True), "so { it is\n</think>\n\n"),
        (Thoughts(False), "<think>x</think>"),
    ):
        for texts, expected in ((right, True), (wrong, False)):
            for text in texts:
                guide = Form(Constraint(kind, value, "form"), None, None).guide(guides, {}, thoughts)
                assert takes(guide, tokenizer, before + text) is expected, before + text


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("regex", "("),
        ("regex", "(?=a)b"),
        ("grammar", 'root ::= "a" ('),
        ("grammar", "root ::= x"),
        ("grammar", "start: b"),
    ],
)
def test_a_broken_form_is_refused_by_its_name(guides: Guides, kind: Any, value: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Form(Constraint(kind, value, "form"), None, None).guide(guides, {}, None)
    assert caught.value.param == "form" and caught.value.status == 400


# ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────────────

CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}
OFFERED = [Call("get", CITY), Call("<tool_call>", {"type": "object"})]


@pytest.mark.parametrize(
    ("family", "one", "two"),
    [
        (
            Hermes,
            '<tool_call>\n{"name": "get", "arguments": {"city": "Rome"}}\n</tool_call>',
            '\n<tool_call>\n{"name": "<tool_call>", "arguments": {}}\n</tool_call>',
        ),
        (Llama, '{"name": "get", "parameters": {"city": "Oslo"}}', '; {"name": "<tool_call>", "parameters":{}}'),
        (
            Mistral,
            '[TOOL_CALLS][{"name": "get", "arguments": {"city": "Rome"}}]',
            ', {"name": "<tool_call>", "arguments": {}}]',
        ),
    ],
)
def test_calls_obey_the_schema_of_their_function(
    guides: Guides, tokenizer: Any, family: Any, one: str, two: str
) -> None:
    def made(**how: bool) -> Guide:
        return guides.make(
            Writer({}).whole(None, None, Calls(family, OFFERED, **{"must": True, "single": False, **how})), "tools"
        )

    both = (one.removesuffix("]") if family is Mistral else one) + two
    assert takes(made(), tokenizer, one) and takes(made(), tokenizer, both) and takes(made(single=True), tokenizer, one)
    assert not takes(made(single=True), tokenizer, both)
    for wrong in (one.replace("Rome", "Bonn").replace("Oslo", "Bonn"), one.replace("get", "put"), "Hello"):
        assert not takes(made(), tokenizer, wrong)
    parsed = family([call.name for call in OFFERED])
    events = [*parsed.push(both), *parsed.finish()]
    assert [event["tool_calls"][0]["function"]["name"] for event in events if "id" in event["tool_calls"][0]] == [
        "get",
        "<tool_call>",
    ]


@pytest.mark.parametrize(("family", "opens"), [(Hermes, "<tool_call>\n"), (Mistral, "[TOOL_CALLS][")])
def test_text_may_come_before_a_strict_call(guides: Guides, tokenizer: Any, family: Any, opens: str) -> None:
    closes = "\n</tool_call>" if family is Hermes else "]"

    def made(answer: str | None = None) -> Guide:
        return guides.make(Writer({}).whole(answer, None, Calls(family, OFFERED, must=False, single=False)), "tools")

    right = opens + '{"name": "get", "arguments": {"city": "Rome"}}' + closes
    for text in ("", "Hello", "So be it. " + right, right):
        assert takes(made(), tokenizer, text), text
    assert not takes(made(), tokenizer, "So be it. " + right.replace("Rome", "Bonn"))
    assert takes(made('"yes"'), tokenizer, "yes") and takes(made('"yes"'), tokenizer, right)
    assert not takes(made('"yes"'), tokenizer, "no")
