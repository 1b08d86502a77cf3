"""Values that fit a schema."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.example_values import MAX_STEPS, example


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
        {"type": "string", "format": ["date"], "minLength": -1},
    ],
    ids=str,
)
def test_bounds_that_nobody_could_paste_or_that_make_no_sense_cost_nothing(schema: Any) -> None:
    assert len(str(example(schema))) < 20
