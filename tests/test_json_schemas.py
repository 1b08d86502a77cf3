from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from gateway import json_schemas
from gateway.errors import BadRequest, TooLarge
from gateway.json_schemas import MOST_ERRORS, MOST_OF_A_CLASS, checker, fault, most_values, shown

ROWS: dict[str, Any] = {
    "type": "object",
    "required": ["rows"],
    "additionalProperties": False,
    "properties": {
        "rows": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"$ref": "#/$defs/row"}},
        "unit": {"enum": ["m", 1, None]},
        "seed": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
        "note": {"type": ["string", "null"], "minLength": 2, "maxLength": 3, "pattern": "^a"},
        "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "step": {"type": "number", "maximum": 9, "multipleOf": 0.5},
        "kind": {"const": True},
        "shape": {"oneOf": [{"type": "integer"}, {"type": "number", "maximum": 3}]},
        "pair": {"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False},
        "labels": {
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": {"type": "string"},
        },
        "other": {"not": {"type": "string"}, "allOf": [{"type": ["string", "integer"]}, {"minimum": 2}]},
    },
    "$defs": {"row": {"type": "object", "required": ["x"], "properties": {"x": {"type": "number"}}}},
}
MISSING = "missing_required_parameter"
GOOD: dict[str, Any] = {"rows": [{"x": 1}]}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"model": "m"},
        {"unit": None, "seed": 0, "note": "abc", "share": 0.5, "step": 4.5, "kind": True, "shape": 4},
        {"seed": None, "note": None, "pair": ["a", 1], "labels": {"a": "b"}, "other": 2, "shape": 2.5},
        {"rows": [{"x": 1.5, "y": "anything"}, {"x": 2.0}]},
    ],
)
def test_a_body_that_fits_is_taken(more: dict[str, Any]) -> None:
    assert fault(ROWS) is None
    checker(ROWS)({**GOOD, **more})


@pytest.mark.parametrize(
    ("more", "param", "said", "code"),
    [
        ({"rows": None}, "rows", "'rows' must be an array, not null", "invalid_type"),
        ({"rows": []}, "rows", "'rows' must hold at least 1, not 0", "invalid_value"),
        ({"rows": [{"x": 1}] * 3}, "rows", "'rows' must hold at most 2, not 3", "invalid_value"),
        (
            {"rows": [{"x": 1}, {}]},
            "rows[1].x",
            "missing required parameter: 'rows[1].x'",
            MISSING,
        ),
        ({"rows": [{"x": True}]}, "rows[0].x", "'rows[0].x' must be a number, not a boolean", "invalid_type"),
        ({"rose": 1}, "rose", "'rose' is not known here (have: kind, labels, note, ", "invalid_value"),
        ({"unit": True}, "unit", "'unit' must be one of \"m\", 1, null", "invalid_value"),
        ({"seed": "1"}, "seed", "'seed' must be an integer or null, not a string", "invalid_type"),
        ({"seed": -1}, "seed", "'seed' must be at least 0, not -1", "invalid_value"),
        ({"note": "a"}, "note", "'note' must have at least 2 characters", "invalid_value"),
        ({"note": "abcd"}, "note", "'note' must have at most 3 characters", "invalid_value"),
        ({"note": "bcd"}, "note", "'note' must match ^a", "invalid_value"),
        ({"share": 0}, "share", "'share' must be more than 0, not 0", "invalid_value"),
        ({"share": 1.0}, "share", "'share' must be less than 1, not 1.0", "invalid_value"),
        ({"step": 9.5}, "step", "'step' must be at most 9, not 9.5", "invalid_value"),
        ({"step": 0.3}, "step", "'step' must be a multiple of 0.5, not 0.3", "invalid_value"),
        ({"kind": 1}, "kind", "'kind' must be true", "invalid_value"),
        ({"shape": 2}, "shape", "'shape' matches 2 of the allowed forms, and must match exactly one", "invalid_value"),
        ({"pair": [1]}, "pair[0]", "'pair[0]' must be a string, not an integer", "invalid_type"),
        ({"pair": ["a", 1, 2]}, "pair[2]", "'pair[2]' is not taken", "invalid_value"),
        ({"labels": {}}, "labels", "'labels' must have at least 1 fields", "invalid_value"),
        ({"labels": {"a": "", "b": ""}}, "labels", "'labels' must have at most 1 fields", "invalid_value"),
        ({"labels": {"a": 1}}, "labels.a", "'labels.a' must be a string, not an integer", "invalid_type"),
        ({"other": "x"}, "other", "'other' must not be \"x\"", "invalid_value"),
        ({"other": 1}, "other", "'other' must be at least 2, not 1", "invalid_value"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(more: dict[str, Any], param: str, said: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        checker(ROWS)({**GOOD, **more})
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)
    assert caught.value.message.startswith(said)


def test_a_schema_that_names_model_decides_on_it_too() -> None:
    with pytest.raises(BadRequest, match="'model' must be one of"):
        checker({"properties": {"model": {"enum": ["a"]}}})({"model": "b"})


def below(schema: Any) -> dict[str, Any]:
    return {"properties": {"a": schema}}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("object", "is a str; expected a JSON schema, as a dict, or a subclass of pydantic.BaseModel"),
        (dict, "is a type; expected a JSON schema"),
        ({"typ": "object"}, "has unsupported keywords: typ"),
        ({"properties": {"a": {"uniqueItems": True}}}, "has unsupported keywords: uniqueItems"),
        ({"type": "dict"}, "type 'dict' (have: array, boolean"),
        ({"properties": {"a": "string"}}, "a str in place of a schema"),
        ({"properties": {1: {}}}, "properties is a dict; expected a dict of schemas by names that are strings"),
        ({"properties": [{}]}, "properties is a list; expected a dict of schemas"),
        ({"required": "rows"}, "required is a str; expected a list of names"),
        ({"$ref": "https://example.com/schema"}, "points outside the schema"),
        ({"$ref": "#/$defs/x"}, "is not a JSON schema: KeyError"),
        ({"$ref": "#"}, "refers to itself endlessly"),
        (below({"$ref": "#/properties/a"}), "refers to itself endlessly"),
        (below({"anyOf": [{"type": "null"}, {"not": {"$ref": "#/properties/a"}}]}), "refers to itself endlessly"),
        (below({"minimum": "3"}), "is not a JSON schema: TypeError: minimum is a str; expected a number"),
        (below({"maximum": True}), "maximum is True; expected a number"),
        (below({"exclusiveMinimum": float("nan")}), "exclusiveMinimum is nan; expected a number"),
        (below({"multipleOf": 0}), "multipleOf is 0; expected a number above 0"),
        (below({"minLength": "3"}), "minLength is a str; expected a whole number, 0 or more"),
        (below({"maxItems": -1}), "maxItems is -1; expected a whole number, 0 or more"),
        (below({"enum": 5}), "enum is 5; expected a list of values"),
        (below({"anyOf": []}), "anyOf is empty; expected a list of schemas"),
        (below({"pattern": 1}), "pattern is 1; expected a string"),
        (below({"type": {"a": 1}}), "type is a dict; expected the name of a type, or a list of them"),
        ({"pattern": "("}, "is not a JSON schema: ValueError: pattern '(': unclosed group"),
        ({"pattern": "(?=a)b"}, "is not a JSON schema: ValueError: pattern '(?=a)b': look-around"),
        ({"default": object()}, "is not a JSON schema: TypeError"),
    ],
)
def test_what_is_no_schema_is_told(given: Any, told: str) -> None:
    assert told in (fault(given) or "")


@pytest.mark.parametrize(
    ("value", "step", "fits"),
    [
        (0.3, 0.1, True),
        (0.35, 0.1, False),
        (1e300, 0.1, True),
        (10**399, 10, True),
        (10**399 + 1, 10, False),
        (10**399, 0.5, True),
        (1e-320, 3, False),
        (6.0, 3, True),
    ],
)
def test_a_multiple_is_one_of_the_numbers_as_they_are_written(value: float, step: float, fits: bool) -> None:
    check = checker({"properties": {"n": {"multipleOf": step}}})
    if fits:
        check({"n": value})
    else:
        with pytest.raises(BadRequest, match="'n' must be a multiple of"):
            check({"n": value})


class Small(BaseModel):
    n: Annotated[int, Field(le=9)]


@pytest.mark.parametrize(
    "schema", [*({"properties": {"n": each}} for each in ({"maximum": 9}, {"not": {"type": "integer"}})), Small]
)
def test_an_integer_of_any_length_is_compared_and_said_shortly(schema: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        checker(schema)({"n": 10**399})
    assert caught.value.param == "n" and len(caught.value.message) < 200


def test_a_body_that_is_nested_too_deep_to_be_compared_is_refused() -> None:
    schema = {"properties": {"tree": {"$ref": "#/$defs/tree"}}, "$defs": {"tree": {"items": {"$ref": "#/$defs/tree"}}}}
    assert fault(schema) is None
    body: Any = []
    for _ in range(900):
        body = [body]
    with pytest.raises(BadRequest, match="nested too deep"):
        checker(schema)({"tree": body})


class Part(BaseModel):
    name: str
    count: int = Field(1, ge=1)


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")
    parts: list[Part]

    @field_validator("parts")
    @classmethod
    def are_few(cls, parts: list[Part]) -> list[Part]:
        if len(parts) > 2:
            raise ValueError("Two parts at most")
        return parts


def test_a_class_of_pydantic_is_a_schema() -> None:
    assert fault(Order) is None
    assert set(shown(Order)["$defs"]) == {"Part"}
    checker(Order)({"model": "m", "parts": [{"name": "a"}]})


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({}, "parts", "missing required parameter: 'parts'"),
        ({"parts": [{"name": "a"}, {}]}, "parts[1].name", "missing required parameter: 'parts[1].name'"),
        (
            {"parts": [{"name": "a", "count": "3"}]},
            "parts[0].count",
            "'parts[0].count' is not valid: input should be",
        ),
        ({"parts": [{"name": "a", "count": 0}]}, "parts[0].count", "'parts[0].count' is not valid: input should be"),
        ({"parts": [], "more": 1}, "more", "'more' is not valid: extra inputs are not permitted"),
        ({"parts": [{"name": "a"}] * 3}, "parts", "'parts' is not valid: two parts at most"),
    ],
)
def test_what_a_class_of_pydantic_refuses_is_refused_with_its_place(body: Any, param: str, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        checker(Order)(body)
    assert (caught.value.status, caught.value.param) == (400, param)
    assert caught.value.message.startswith(said)


class Either(BaseModel):
    n: int | list[Part] | None = None
    by_name: dict[str, int] = {}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": "1"}, "n"),
        ({"n": [{"name": "a"}, {}]}, "n"),
        ({"by_name": {"a": "x"}}, "by_name.a"),
        ({"by_name": []}, "by_name"),
    ],
)
def test_the_place_is_one_of_the_body_where_pydantic_names_a_form_that_it_tried(body: Any, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        checker(Either)(body)
    assert caught.value.param == param


def test_a_class_that_has_no_schema_is_told() -> None:
    class Odd(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        call: Callable[[], int]

    assert (fault(Odd) or "").startswith("has no JSON schema: ")


def test_a_body_that_would_take_long_to_compare_is_refused() -> None:
    """A schema may compare each value with several parts of it, and one that refers to itself with very many."""
    tree = {"$ref": "#/$defs/tree"}
    nested = {"properties": {"left": tree}, "required": ["left"]}
    schema = {"properties": {"tree": tree}, "$defs": {"tree": {"anyOf": [nested, nested]}}}
    assert fault(schema) is None
    body: dict[str, Any] = {}
    for _ in range(60):
        body = {"left": body}
    with pytest.raises(TooLarge, match="takes too long to check"):
        checker(schema)({"tree": body})


def items(schema: Any) -> dict[str, Any]:
    return {"properties": {"rows": {"items": schema}}}


@pytest.mark.parametrize(("rule", "value"), [({"enum": ["6", "7"]}, "7"), ({"multipleOf": 0.01}, 1.5)])
def test_the_clock_is_looked_at_often(rule: Any, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body is compared for a second at most, however long each comparison takes."""
    looks = count()
    monkeypatch.setattr(json_schemas.time, "thread_time", lambda: next(looks) / 10)
    check, body = checker(items(rule)), [value] * 64
    check({"rows": body * 5})
    looks = count()
    with pytest.raises(TooLarge, match="takes too long to check"):
        check({"rows": body * 20})


class Never(list[Any]):
    """A list of choices that must not be gone through for each value."""

    passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return super().__iter__()


def test_a_long_list_of_choices_is_not_gone_through_for_each_value_nor_told_for_each() -> None:
    choices = Never([str(number) for number in range(249)] + [1, None, [1]])
    schema = items({"anyOf": [{"enum": choices}, {"type": "string"}]})
    assert fault(schema) is None
    check, before = checker(schema), choices.passes
    check({"rows": ["x"] * 100 + ["7", 1, 1.0, None, [1]]})
    assert choices.passes <= before + 2
    for value in (True, [2], 2):
        with pytest.raises(BadRequest):
            check({"rows": [value]})


def test_what_a_class_refuses_in_very_many_places_is_not_told_in_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    class Numbers(BaseModel):
        rows: list[int]

    with pytest.raises(BadRequest, match="in 2000 ways; send fewer values"):
        checker(Numbers)({"rows": ["x"] * 2000})
    with pytest.raises(BadRequest, match=r"'rows\[0\]' is not valid"):
        checker(Numbers)({"rows": ["x"] * 1000})


def test_of_a_class_with_many_forms_and_fields_a_body_may_have_fewer_values() -> None:
    class Fields(BaseModel):
        a: int
        b: int

    Wide = create_model("Wide", **{f"f{number}": (int, ...) for number in range(1000)})  # type: ignore[call-overload]
    either: Any = Fields
    for number in range(15):
        either = either | create_model(f"Kind{number}", kind=(int, ...), value=(int, ...))
    Batch = create_model("Batch", rows=(list[either], ...))
    assert most_values(Part) == MOST_OF_A_CLASS
    assert most_values(Batch) == MOST_ERRORS // 32
    assert most_values(create_model("All", rows=(list[Wide], ...))) == MOST_ERRORS // 1000


@pytest.mark.parametrize("pattern", ["^[^@ ]+@[^@ ]+$", "[^@]+@", "(a+)+$", "(a|aa)*b"])
def test_a_pattern_holds_nobody_up_whatever_the_text(pattern: str) -> None:
    schema = {"properties": {"mail": {"type": "string", "pattern": pattern}}}
    assert fault(schema) is None
    check = checker(schema)
    with pytest.raises(BadRequest, match="'mail' must match"):  # an engine that backtracks takes seconds, or for ever
        check({"mail": "a" * 80_000 + "!"})
