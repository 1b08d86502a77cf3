"""Answers of a served model on both engines obey the form that a request asks for."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

pytest.importorskip("torch")
pytest.importorskip("xllamacpp")

from gateway_language.structured import guide as guides
from gguf_models import TINY, loaded, words_of_tiny_chat, write
from schema_kinds import KINDS, random_schema

from gateway import BadRequest

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
ITEM = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 3, "maximum": 99}, "b": {"type": "string", "maxLength": 5}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}},
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=["torch", "llamacpp"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if request.param == "torch":
        with loaded(TINY, "torch") as model:
            yield model
        return
    place = tmp_path_factory.mktemp("tiny")
    write(place / "tiny.gguf")
    with words_of_tiny_chat(), loaded(place, "llamacpp") as model:
        yield model


async def answer(model: Any, **fields: Any) -> dict[str, Any]:
    """The parts of an answer, put together."""
    whole: dict[str, Any] = {"content": "", "thought": "", "calls": [], "scores": []}
    run = model.completions if "prompt" in fields else model.chat_completions
    given = {} if "prompt" in fields else {"messages": CAPITAL}
    async for item in run({**given, "max_tokens": 80, **fields}):
        event = {"content": item} if isinstance(item, str) else item
        whole["content"] += event.get("content") or ""
        whole["thought"] += event.get("reasoning_content") or ""
        whole["scores"] += (event.get("logprobs") or {}).get("content", [])
        for call in event.get("tool_calls", ()):
            if "id" in call:
                whole["calls"].append([call["function"]["name"], ""])
            whole["calls"][-1][1] += call["function"].get("arguments", "")
        whole |= {name: event[name] for name in ("finish_reason", "usage") if name in event}
    return whole


def ask(model: Any, **fields: Any) -> dict[str, Any]:
    return asyncio.run(answer(model, **fields))


def of_schema(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, **more}}


def tools(*, strict: bool, names: tuple[str, ...] = ("get_weather", "get_time")) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name, "strict": strict, "parameters": CITY}} for name in names]


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "how", [{}, {"temperature": 1.5, "seed": 7}, {"temperature": 1, "min_p": 0.05, "seed": 3, "min_tokens": 9}]
)
@pytest.mark.parametrize("strict", [True, False, None])
def test_an_answer_obeys_its_schema(model: Any, how: dict[str, Any], strict: bool | None) -> None:
    whole = ask(model, response_format=of_schema(ITEM, strict=strict), **how)
    jsonschema.validate(json.loads(whole["content"]), ITEM)
    assert whole["finish_reason"] == "stop"
    assert ask(model, response_format=of_schema(ITEM), **how)["content"] == whole["content"]  # a seed repeats it


def test_what_ends_answers_and_what_scores_them_is_as_before(model: Any) -> None:
    form = of_schema(ITEM)
    whole = ask(model, response_format=form, logprobs=True, top_logprobs=2, ignore_eos=True)
    assert whole["finish_reason"] == "stop" and json.loads(whole["content"])
    assert len(whole["scores"]) == whole["usage"]["completion_tokens"]
    assert "".join(score["token"] for score in whole["scores"]) == whole["content"]
    cut = ask(model, response_format=form, max_tokens=4)
    assert cut["finish_reason"] == "length" and whole["content"].startswith(cut["content"])
    stopped = ask(model, response_format=form, stop=['"b"'])
    assert stopped["finish_reason"] == "stop" and '"b"' not in stopped["content"]
    other = ask(model, response_format=form, logit_bias={"10": -100}, presence_penalty=1.5, temperature=1, seed=1)
    assert other["finish_reason"] == "length" or jsonschema.validate(json.loads(other["content"]), ITEM) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object", "schema": ITEM}},
        {"structured_outputs": {"json": ITEM, "disable_any_whitespace": True}},
        {"structured_outputs": {"json": json.dumps(ITEM)}},
        {"guided_json": ITEM},
        {"json_schema": ITEM},
        {"format": ITEM},
    ],
)
def test_every_way_to_ask_for_a_schema_is_the_same(model: Any, fields: dict[str, Any]) -> None:
    for more in ({}, {"prompt": "Say: one two three"}):
        whole = ask(model, **fields, **more)
        assert whole["finish_reason"] == "stop"
        jsonschema.validate(json.loads(whole["content"]), ITEM)
        if "disable_any_whitespace" in str(fields):
            assert whole["content"] == json.dumps(
                json.loads(whole["content"]), separators=(",", ":"), ensure_ascii=False
            )


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"guided_json_object": True},
        {"structured_outputs": {"json_object": True}},
        {"format": "json"},
    ],
)
def test_any_object_is_an_object(model: Any, fields: dict[str, Any]) -> None:
    whole = ask(model, temperature=1, seed=2, max_tokens=300, **fields)
    assert whole["content"].startswith("{")
    assert whole["finish_reason"] == "length" or isinstance(json.loads(whole["content"]), dict)


def test_no_answer_that_ends_breaks_a_random_schema(model: Any) -> None:
    source = random.Random(2026)
    schemas = [random_schema(source) for _ in range(200)]

    async def run() -> list[dict[str, Any]]:
        gate = asyncio.Semaphore(16)

        async def one(at: int, schema: dict[str, Any]) -> dict[str, Any]:
            async with gate:
                return await answer(model, response_format=of_schema(schema), max_tokens=60, temperature=1, seed=at)

        return await asyncio.gather(*(one(at, schema) for at, schema in enumerate(schemas)))

    ended = 0
    for schema, whole in zip(schemas, asyncio.run(run()), strict=True):
        if whole["finish_reason"] == "stop":
            jsonschema.validate(json.loads(whole["content"]), schema)
            ended += 1
    assert ended >= 150


def test_every_kind_of_schema_is_generated(model: Any) -> None:
    async def run() -> list[dict[str, Any]]:
        return await asyncio.gather(
            *(answer(model, response_format=of_schema(schema), temperature=0.9, seed=5) for schema, _, _ in forms)
        )

    forms = [kind for kind in KINDS.values() if isinstance(kind[0], dict)]
    for (schema, _, _), whole in zip(forms, asyncio.run(run()), strict=True):
        if whole["finish_reason"] == "stop":
            older = isinstance(schema.get("items"), list)  # before 2020
            jsonschema.validate(
                json.loads(whole["content"]),
                schema,
                jsonschema.Draft7Validator if older else jsonschema.Draft202012Validator,
            )


# ── other forms, thoughts, calls ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"guided_regex": "[0-9]{3}-x"}, "[0-9]{3}-x"),
        ({"regex": "[0-9]{3}-x"}, "[0-9]{3}-x"),
        ({"structured_outputs": {"regex": "(a|b){5}"}}, "(a|b){5}"),
        ({"guided_choice": ["Oslo", "Paris is nice"]}, "Oslo|Paris is nice"),
        ({"structured_outputs": {"choice": ["é", "z"]}}, "é|z"),
        ({"grammar": 'root ::= "ab" [0-9]{3} "\\u00e9"'}, "ab[0-9]{3}é"),
        ({"guided_grammar": 'start: "ab" b\nb: "c"~3'}, "abccc"),
        ({"structured_outputs": {"grammar": "root ::= [a-f]{4}"}}, "[a-f]{4}"),
    ],
)
def test_an_answer_has_the_form_of_a_text(model: Any, fields: dict[str, Any], pattern: str) -> None:
    for more in ({}, {"temperature": 1.2, "seed": 4}, {"prompt": "x"}):
        whole = ask(model, **fields, **more)
        assert re.fullmatch(pattern, whole["content"]), whole["content"]
        assert whole["finish_reason"] == "stop"


def test_an_open_end_ends_as_the_model_likes(model: Any) -> None:
    assert ask(model, guided_regex=r"(?s:.*)")["content"] == ask(model)["content"] == "Paris"


def test_a_thought_is_free_and_only_where_it_was_asked_for(model: Any) -> None:
    assert ask(model, response_format=of_schema(ITEM))["thought"] == ""
    whole = ask(model, response_format=of_schema(ITEM), enable_thinking=True, temperature=1, seed=1, max_tokens=200)
    assert whole["finish_reason"] == "length" or json.loads(whole["content"])


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_time"}}])
@pytest.mark.parametrize("strict", [True, False])
def test_a_forced_call_obeys_the_schema_of_its_function(model: Any, choice: Any, strict: bool) -> None:
    for seed in range(3):
        given = {
            "tools": tools(strict=strict),
            "tool_choice": choice,
            "temperature": 1.2,
            "seed": seed,
            "max_tokens": 200,
        }
        whole = ask(model, parallel_tool_calls=False, **given)
        [(name, arguments)] = whole["calls"]
        jsonschema.validate(json.loads(arguments), CITY)
        assert (whole["finish_reason"], whole["content"]) == ("tool_calls", "")
        assert choice == "required" or name == "get_time"


def test_a_strict_function_may_be_called_or_not(model: Any) -> None:
    assert ask(model, tools=tools(strict=True))["content"] == "Paris"
    weather = [{"role": "user", "content": "What is the weather in Paris?"}]
    free = ask(model, messages=weather, tools=tools(strict=False, names=("get_weather",)))
    whole = ask(model, messages=weather, tools=tools(strict=True, names=("get_weather",)))
    assert [name for name, _ in free["calls"]] == [name for name, _ in whole["calls"]] == ["get_weather"]
    assert json.loads(free["calls"][0][1]) == {"city": "Paris"}  # which the schema does not allow
    jsonschema.validate(json.loads(whole["calls"][0][1]), CITY)


def test_a_call_may_come_instead_of_the_form(model: Any) -> None:
    for seed in range(3):
        whole = ask(
            model, tools=tools(strict=False), response_format=of_schema(ITEM), temperature=1, seed=seed, max_tokens=200
        )
        if whole["finish_reason"] == "stop":
            jsonschema.validate(json.loads(whole["content"]), ITEM)
        elif whole["finish_reason"] == "tool_calls":
            jsonschema.validate(json.loads(whole["calls"][0][1]), CITY)


# ── refusing ─────────────────────────────────────────────────────────────────────────────────────────────────────────

FORM = {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": of_schema({"items": {"uniqueItems": True}})},
            "response_format.json_schema.schema.items.uniqueItems",
        ),
        ({"response_format": of_schema({}, strict=1)}, "response_format.json_schema.strict"),
        ({"response_format": {"type": "json_object", "strict": True}}, "response_format.strict"),
        ({"structured_outputs": {"json": {}, "regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {"structural_tag": "a"}}, "structured_outputs.structural_tag"),
        ({"structured_outputs": {"json": {}, "whitespace_pattern": " "}}, "structured_outputs.whitespace_pattern"),
        ({"guided_choice": [1]}, "guided_choice"),
        ({"guided_choice": "a"}, "guided_choice"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"grammar": "root ::= ("}, "grammar"),
        ({"grammar": {"type": "json"}}, "grammar"),
        ({"format": "xml"}, "format"),
        ({"guided_regex": "a", **FORM}, "guided_regex"),
        ({"bad_words": ["a"], **FORM}, "bad_words"),
        ({"allowed_token_ids": [1], **FORM}, "allowed_token_ids"),
        ({"messages": [*CAPITAL, {"role": "assistant", "content": "{", "prefix": True}], **FORM}, "response_format"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}]},
            "tools[0].function.parameters.not",
        ),
    ],
)
def test_a_form_that_cannot_be_had_is_refused_by_its_name(model: Any, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ask(model, **fields)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.message


def test_without_the_package_a_form_is_refused_and_a_call_is_only_begun(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guides.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadRequest, match="response_format needs the package llguidance") as caught:
        ask(model, **FORM)
    assert caught.value.param == "response_format"
    assert ask(model, tools=tools(strict=False), tool_choice="required")["calls"]
    with pytest.raises(BadRequest, match="llguidance"):
        ask(model, tools=tools(strict=True), tool_choice="required")


def test_a_form_that_becomes_too_complex_ends_the_answer_alone(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guides.Guide, "mask", lambda self: self._fail() or bytes(self.count // 8 + 1))
    monkeypatch.setattr(guides.Guide, "take", lambda self, token: self._fail())
    monkeypatch.setattr(guides.Guides, "make", _unchecked)

    async def run() -> list[Any]:
        both = answer(model, **FORM), answer(model)
        return await asyncio.gather(*both, return_exceptions=True)

    failed, other = asyncio.run(run())
    assert isinstance(failed, BadRequest) and "too complex" in failed.message
    assert other["content"] == "Paris"


def _unchecked(self: guides.Guides, grammar: str, where: str, *, shown: str = "") -> guides.Guide:
    import llguidance

    return guides.Guide(llguidance.LLMatcher(self._tokens(), grammar), shown, self._count)
