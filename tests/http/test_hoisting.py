"""Schemas of models in the API document: definitions once, references that lead somewhere, however they recurse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
from counting import calls_in
from fakes import PATIENT
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.http.document.hoisting import MAX_DEFINITIONS, PLACE, hoist


class Node(BaseModel):
    left: Node | None = None
    right: Node | None = None
    children: list[Node] = []
    others: dict[str, Node] = {}


class Cat(BaseModel):
    kind: str = "cat"


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from references(item)


def test_a_recursive_schema_is_as_large_as_pydantic_wrote_it() -> None:
    schema, components = Node.model_json_schema(), dict[str, Any]()
    found = hoist(schema, "PredictM", components)
    assert len(json.dumps([found, components])) < 2 * len(json.dumps(schema))
    assert set(references([found, components])) == {f"{PLACE}PredictM.Node"}
    assert components["PredictM.Node"]["properties"]["children"]["items"] == {"$ref": f"{PLACE}PredictM.Node"}
    assert "$defs" not in found


def test_definitions_of_one_name_of_several_models_are_several() -> None:
    components: dict[str, Any] = {}
    for prefix, kind in (("A", "cat"), ("B", "dog"), ("A", "cow")):
        hoist({"$defs": {"Pet": {"const": kind}}, "$ref": "#/$defs/Pet"}, prefix, components)
    assert components == {"A.Pet": {"const": "cat"}, "B.Pet": {"const": "dog"}, "A.Pet.2": {"const": "cow"}}


def test_a_reference_out_of_the_schema_lets_in_anything() -> None:
    schema = {"properties": {"a": {"$ref": "https://elsewhere.example/s.json"}, "b": {"$ref": "#"}, "c": {"$ref": 5}}}
    assert hoist(schema, "M", {}) == {"properties": {"a": {}, "b": {}, "c": {"$ref": 5}}}


def test_the_mapping_of_a_discriminator_follows() -> None:
    schema = {
        "$defs": {"Cat": {}},
        "oneOf": [{"$ref": "#/$defs/Cat"}],
        "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat"}},
        "properties": {"mapping": {"anyOf": [{"$ref": "#/$defs/Cat"}]}},
    }
    found = hoist(schema, "M", {})
    assert found["discriminator"]["mapping"] == {"cat": f"{PLACE}M.Cat"}
    assert found["properties"]["mapping"]["anyOf"] == [{"$ref": f"{PLACE}M.Cat"}]


def test_a_schema_that_nests_too_deep_lets_in_anything_and_leaves_nothing_behind() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5000):
        schema = {"items": schema}
    components: dict[str, Any] = {"Kept": {}}
    assert hoist({"$defs": {"Deep": schema}, "$ref": "#/$defs/Deep"}, "M", components) == {}
    assert components == {"Kept": {}}


@pytest.mark.parametrize(
    "names",
    [[chr(0x4E00 + number) for number in range(1000)], ["_", *(f"_.{number}" for number in range(2, 1000)), "é", "è"]],
    ids=["names that become one", "names that have the numbers"],
)
def test_names_that_are_one_once_they_are_written_are_told_apart_in_few_steps(names: list[str]) -> None:
    class Asked(dict[str, Any]):
        questions = 0

        def __contains__(self, name: object) -> bool:
            self.questions += 1
            return super().__contains__(name)

    components = Asked()
    defined = {"$defs": {name: {"const": name} for name in names}, "$ref": f"#/$defs/{names[-1]}"}
    found = hoist(defined, "M", components)
    assert components.questions < 4 * len(names)
    assert [*components.values()] == [{"const": name} for name in names]
    assert components[found["$ref"].removeprefix(PLACE)] == {"const": names[-1]}


def test_mappings_inside_mappings_are_each_followed_once() -> None:
    def nested(levels: int) -> Any:
        value: Any = {"a": "#/$defs/Cat"}
        for _ in range(levels):
            value = {"mapping": value}
        return {"$defs": {"Cat": {}}, **value}

    few, twice = (calls_in(partial(hoist, nested(levels), "M", {})) for levels in (8, 16))
    assert twice < 3 * few
    assert hoist({"mapping": [1]}, "M", {}) == {"mapping": [1]}


def test_more_definitions_than_anybody_reads_let_in_anything_and_are_not_looked_at() -> None:
    definitions = {f"D{number}": {} for number in range(MAX_DEFINITIONS)}
    components: dict[str, Any] = {}
    hoist({"$defs": definitions, "$ref": "#/$defs/D1"}, "M", components)
    assert len(components) == MAX_DEFINITIONS
    components.clear()
    assert hoist({"$defs": {**definitions, "More": {}}, "$ref": "#/$defs/D1"}, "M", components) == {}
    assert components == {}


names = st.sampled_from(["A", "B", "a/b", "é", "", "A.B"])
schemas = st.recursive(
    st.builds(lambda name: {"$ref": f"#/$defs/{name}"}, names) | st.just({"type": "string"}) | st.text() | st.none(),
    lambda inner: (
        st.fixed_dictionaries({}, optional={"items": inner, "anyOf": st.lists(inner, max_size=4), "$ref": inner})
        | st.dictionaries(names, inner, max_size=3).map(lambda found: {"properties": found})
    ),
    max_leaves=12,
)


@PATIENT
@given(st.dictionaries(names, schemas, max_size=5), schemas.filter(lambda found: isinstance(found, dict)))
def test_whatever_a_model_says_every_reference_leads_somewhere(definitions: dict[str, Any], root: Any) -> None:
    components: dict[str, Any] = {}
    found = hoist({**root, "$defs": definitions}, "M", components)
    assert {reference.removeprefix(PLACE) for reference in references([found, components])} <= components.keys()
    assert len(msgspec.json.encode([found, components])) <= 4 * len(msgspec.json.encode([root, definitions])) + 1000
