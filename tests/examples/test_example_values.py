"""Values that fit a schema."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from counting import calls_in

from gateway.examples.values import MAX_STEPS, MAX_TEXT, example


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 1),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "integer", "exclusiveMinimum": 1}, 2),
        ({"type": "integer", "exclusiveMaximum": 1}, 0),
        ({"type": "integer", "multipleOf": 4, "minimum": 9}, 12),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, 0.5),
        ({"type": "string", "minLength": 10}, "Hello.Hell"),
        ({"type": "string", "maxLength": 2}, "He"),
        ({"type": "string", "format": "date-time"}, "2026-01-31T12:00:00Z"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, [1, 1, 1]),
        ({"type": "array", "items": {"type": "integer"}}, [1]),
        ({"type": "string", "examples": ["mine"], "minLength": 9}, "mine"),
    ],
    ids=str,
)
def test_a_value_keeps_to_its_bounds(schema: Any, value: Any) -> None:
    wrapped = {"type": "object", "properties": {"x": schema}, "required": ["x"]}
    assert example(wrapped) == {"x": value}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "integer"}, "minItems": MAX_STEPS + 1},
        {"type": "string", "minLength": 10**9},
        {"type": "integer", "minimum": "many", "multipleOf": 0},
        {"type": "number", "multipleOf": 1e-300, "minimum": 1e300},
        {"type": "integer", "multipleOf": 3, "minimum": 10**320},
        {"type": "number", "multipleOf": math.inf},
        {"type": "number", "minimum": math.inf, "multipleOf": 5e-324},
        {"type": "number", "minimum": math.nan, "default": math.nan},
        {"type": "integer", "const": 10**5000},
        {"type": "string", "format": ["date"], "minLength": -1},
    ],
    ids=lambda schema: "-".join(schema),
)
def test_bounds_that_nobody_could_paste_or_that_make_no_sense_cost_nothing(schema: Any) -> None:
    assert len(str(example(schema))) < 20


def lists(*sizes: int) -> dict[str, Any]:
    """Lists of lists, so many at each depth."""
    schema: dict[str, Any] = {"type": "integer"}
    for size in reversed(sizes):
        schema = {"type": "array", "items": schema, "minItems": size}
    return schema


def values_in(value: Any, known: dict[int, int]) -> int:
    """How many values it is once it is written: a list that stands in two places counts twice."""
    if not isinstance(value, list | dict):
        return 1
    if id(value) not in known:
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(values_in(one, known) for one in inside)
    return known[id(value)]


@pytest.mark.parametrize(
    "schema",
    [
        lists(2000, 2000, 2000),
        lists(1500, 1500),
        lists(*[2] * 30),
        {"type": "object", "required": ["a", "b"], "properties": {"a": lists(40, 40), "b": lists(40, 40)}},
        {"type": "array", "minItems": 1500, "items": {"default": "word" * 500}},
        {"type": "array", "minItems": 1500, "items": {"default": [0] * 1000}},
    ],
    ids=["three lists", "two lists", "many lists", "two fields", "texts", "defaults"],
)
def test_an_example_that_nobody_would_paste_is_not_made_to_see_how_long_it_is(
    schema: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    monkeypatch.setattr(json, "dumps", lambda value, **_: written.append(values_in(value, {})) or "0")
    found = example(schema)
    assert sum(written) <= MAX_TEXT
    assert values_in(found, {}) <= MAX_TEXT


def test_an_example_is_as_long_as_people_paste_and_no_longer() -> None:
    assert example(lists(30, 30)) == [[1] * 30] * 30
    assert example({"type": "object", "required": ["a"], "properties": {"a": lists(50, 50)}}) == {}
    assert example({"anyOf": [lists(50, 50), {"const": "short"}]}) == "short"
    optional = {"type": "array", "items": {"default": "long" * 2000}}
    assert example({"type": "object", "required": ["a"], "properties": {"a": optional}}) == {"a": []}
    assert len(json.dumps(example({"default": ["é" * 100] * 20}))) <= MAX_TEXT


names = [f"f{number}" for number in range(1000)]


@pytest.mark.parametrize(
    "schema",
    [
        {
            "$defs": {"A": {"type": "integer", **dict.fromkeys(names, 1)}},
            "type": "object",
            "required": names,
            "properties": {name: {"$ref": "#/$defs/A"} for name in names},
        },
        {
            "$defs": {"A": {"type": "object", "properties": {}, "required": ["b", *[1] * 1000, "c"]}},
            "anyOf": [{"$ref": "#/$defs/A", "type": "array", "minItems": 9999}] * 1000,
        },
        {
            "$defs": {"A": {"anyOf": [lists(9999)] * 1000}, "B": {"anyOf": [{"$ref": "#/$defs/A"}] * 1000}},
            "anyOf": [{"$ref": "#/$defs/B"}] * 1000,
        },
    ],
    ids=["keys beside the type", "names that are none", "alternatives"],
)
def test_the_example_of_a_schema_is_found_in_few_steps(schema: Any) -> None:
    assert calls_in(lambda: example(schema)) < 100_000
