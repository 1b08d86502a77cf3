"""The tensors that a schema describes, whatever it says."""

from __future__ import annotations

from typing import Any

import pytest
from counting import calls_in
from fakes import PATIENT
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.oip import schema as oip_schema
from gateway.dialects.oip import values
from gateway.dialects.oip.schema import MAX_STEPS_IN_ALL, kinds_of, metadata
from gateway.errors import BadRequest

A: dict[str, Any] = {"$ref": "#/$defs/A"}
EITHER = {"anyOf": [A, {"type": "null"}]}


@pytest.mark.parametrize(
    "schema",
    [
        {"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}] * 40}}, "$ref": "#/$defs/A"},
        {"$defs": {"A": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/A"}] * 40}}}, "$ref": "#/$defs/A"},
        {"$defs": {"A": {"type": ["array", "object"] * 30, "items": {"$ref": "#/$defs/A"}}}, "$ref": "#/$defs/A"},
        {"$defs": {"A": {"properties": dict.fromkeys("abcd", EITHER)}}, "$ref": "#/$defs/A"},
    ],
    ids=["alternatives", "lists", "types", "fields"],
)
def test_the_tensors_of_a_schema_that_recurses_are_found_in_few_steps(schema: dict[str, Any]) -> None:
    def look() -> None:
        oip_schema.metadata(schema)
        oip_schema.kinds_of(schema, schema)

    assert calls_in(look) < 200_000


def of_many(count: int, definition: dict[str, Any]) -> dict[str, Any]:
    """So many fields, each of them what the one definition says."""
    return {"$defs": {"A": definition}, "properties": {f"f{number}": A for number in range(count)}}


@pytest.mark.parametrize(
    "definition",
    [
        {"type": ["object"] * 300},
        {"anyOf": [{"type": "object"}] * 300},
        {"anyOf": [A] * 1000},
        {"type": "array", "items": {"anyOf": [A] * 1000}},
        {"type": ["array"] * 30, "const": [[None]] * 3000},
    ],
    ids=["types", "alternatives", "itself", "lists of itself", "a constant"],
)
def test_what_many_fields_lead_to_is_looked_at_as_often_as_one_schema_may_ask(definition: dict[str, Any]) -> None:
    schema = of_many(2000, definition)
    assert calls_in(lambda: metadata(schema)) < 80 * MAX_STEPS_IN_ALL


def test_a_step_copies_nothing_of_the_schema() -> None:
    class Watched(dict[str, Any]):
        copied = 0

        def keys(self) -> Any:  # which a copy asks of whoever has an iterator of his own
            self.copied += 1
            return super().keys()

        def __iter__(self) -> Any:
            self.copied += 1
            return super().__iter__()

    schema = Watched({"type": ["object", "integer"], **{f"k{number}": 1 for number in range(100)}})
    assert metadata(of_many(3, schema)) == [{"name": f"f{n}", "datatype": "INT64", "shape": [1]} for n in range(3)]
    assert kinds_of(A, {"$defs": {"A": schema}}) == {"object", "integer"}
    assert schema.copied == 0


def test_a_large_schema_has_all_its_tensors() -> None:
    matrix = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    schema = of_many(2000, {"anyOf": [matrix, {"type": "null"}]})
    assert [tensor["shape"] for tensor in metadata(schema)] == [[-1, -1]] * 2000


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["array", "number", "#/$defs/A", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "anyOf",
                    "allOf",
                    "items",
                    "const",
                    "enum",
                    "$ref",
                    "$defs",
                    "minItems",
                    "maxItems",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@PATIENT
@given(st.dictionaries(st.sampled_from(["$defs", "properties", "anyOf", "type", "items", "$ref", "const"]), odd))
def test_whatever_a_schema_says_its_tensors_are_told(schema: dict[str, Any]) -> None:
    for tensor in metadata(schema):
        assert all(type(size) is int and size >= -1 for size in tensor["shape"])
    kinds_of(schema, schema)


def test_the_only_tensor_that_is_needed_is_told_from_very_many_names_in_few_steps() -> None:
    fields: dict[str, Any] = {f"f{number}": {"type": "number"} for number in range(2000)}

    class Name(str):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Name.compared += 1
            return super().__eq__(other)

        __hash__ = str.__hash__

    required = [*(Name(f"g{number}") for number in range(2000)), "f7"]
    found = values.read_raw(b"\0" * 8, {"properties": fields, "required": required})
    assert [tensor.name for tensor in found.inputs] == ["f7"]
    assert Name.compared < 10_000


@pytest.mark.parametrize("odd", [5, "x", [5], {"a": 1}, None], ids=str)
@pytest.mark.parametrize("key", ["properties", "anyOf", "required", "$defs"])
def test_an_odd_schema_refuses_bytes_without_json_in_words(key: str, odd: Any) -> None:
    with pytest.raises(BadRequest, match="the model takes"):
        values.read_raw(b"\0" * 8, {"type": "object", "properties": {}, key: odd})
