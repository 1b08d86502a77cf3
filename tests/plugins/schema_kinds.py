"""Kinds of JSON schemas, with documents that fulfil them and documents that do not."""

from __future__ import annotations

import random
from typing import Any

Kind = tuple[dict[str, Any] | bool, list[Any], list[Any]]  # a schema, valid and invalid documents


def closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


PERSON = closed(name={"type": "string"}, age={"type": "integer", "minimum": 0})
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
LIST = closed(value={"type": "integer"}, next={"anyOf": [{"$ref": "#"}, {"type": "null"}]})

KINDS: dict[str, Kind] = {
    "anything": ({}, [1, "a", None, {"a": [1]}], []),
    "true": (True, [1, {"a": None}], []),
    "string": ({"type": "string"}, ["", "a b", "é😀"], [1, None, ["a"]]),
    "integer": ({"type": "integer"}, [0, -5, 123456], [1.5, "1", True]),
    "number": ({"type": "number"}, [0, -1.25, 1e3], ["1", None]),
    "boolean": ({"type": "boolean"}, [True, False], [0, "true"]),
    "null": ({"type": "null"}, [None], [0, "null", False]),
    "object": ({"type": "object"}, [{}, {"a": {"b": 1}}], [[], "a"]),
    "array": ({"type": "array"}, [[], [1, "a", None]], [{}, 1]),
    "several types": ({"type": ["string", "null"]}, ["a", None], [1, []]),
    "enum of texts": ({"enum": ["red", "green"]}, ["red", "green"], ["blue", "re", 1]),
    "enum of all": ({"enum": [1, "1", None, {"a": 1}]}, [1, "1", None, {"a": 1}], [2, {"a": 2}, True]),
    "enum with type": ({"type": "string", "enum": ["a", 1]}, ["a"], [1, "b"]),
    "const": ({"const": "yes"}, ["yes"], ["no", True]),
    "const object": ({"const": {"a": [1]}}, [{"a": [1]}], [{"a": [2]}, {}]),
    "minLength": ({"type": "string", "minLength": 2}, ["ab", "éé"], ["a", "é", ""]),
    "maxLength": ({"type": "string", "maxLength": 2}, ["", "ab", "😀😀"], ["abc", "😀😀😀"]),
    "pattern": ({"type": "string", "pattern": "^[a-z]{2}-[0-9]+$"}, ["ab-1", "zz-123"], ["a-1", "ab-", "ab-1x"]),
    "pattern inside": ({"type": "string", "pattern": "[0-9]"}, ["a1b", "7"], ["ab", ""]),
    "pattern and length": ({"type": "string", "pattern": "^a+$", "maxLength": 3}, ["a", "aaa"], ["aaaa", "b"]),
    "pattern with letters": ({"type": "string", "pattern": "^[é-ü]+$"}, ["éü"], ["e", ""]),
    "date": ({"type": "string", "format": "date"}, ["2024-02-29"], ["2024-13-01", "2024-2-1", "x"]),
    "date-time": ({"type": "string", "format": "date-time"}, ["2024-02-28T10:00:00Z"], ["2024-02-28", "x"]),
    "time": ({"type": "string", "format": "time"}, ["10:00:00Z"], ["25:00:00Z", "x"]),
    "email": ({"type": "string", "format": "email"}, ["a@b.org"], ["a", "a@"]),
    "ipv4": ({"type": "string", "format": "ipv4"}, ["10.0.0.1"], ["999.0.0.1", "10.0.0"]),
    "ipv6": ({"type": "string", "format": "ipv6"}, ["::1"], ["12345::", "x"]),
    "uuid": ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567"]),
    "uri": ({"type": "string", "format": "uri"}, ["https://a.org/b?c=d"], ["not a uri"]),
    "hostname": ({"type": "string", "format": "hostname"}, ["a.example.org"], ["-a", "a b"]),
    "minimum": ({"type": "integer", "minimum": 10}, [10, 1000], [9, -10]),
    "maximum": ({"type": "number", "maximum": 1.5}, [1.5, -3, 0], [1.6, 2]),
    "exclusive bounds": ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5], [0, 1, 1.2]),
    "negative bounds": ({"type": "integer", "minimum": -20, "maximum": -3}, [-20, -3], [-21, -2, 5]),
    "multipleOf": ({"type": "integer", "multipleOf": 3}, [0, 3, 999], [4, 10]),
    "multipleOf a fraction": ({"type": "number", "multipleOf": 0.25}, [0.25, 0.75], [0.3]),
    "multipleOf and bounds": ({"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 30}, [7, 28], [0, 35, 8]),
    "items": ({"type": "array", "items": {"type": "integer"}}, [[], [1, 2]], [["a"], [1, None]]),
    "minItems": ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [[1, 2], [1, 2, 3]], [[], [1]]),
    "maxItems": ({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, [[], [1, 2]], [[1, 2, 3]]),
    "prefixItems": (
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
        [["a", 1]],
        [[1, "a"], ["a"], ["a", 1, 2]],
    ),
    "prefixItems and items": (
        {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "integer"}},
        [["a"], ["a", 1, 2]],
        [["a", "b"], [1]],
    ),
    "items as a list": (
        {"type": "array", "items": [{"type": "string"}], "additionalItems": False},
        [["a"]],
        [[1], ["a", 1]],
    ),
    "nested arrays": (
        {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}},
        [[[True], []]],
        [[True]],
    ),
    "required": (PERSON, [{"name": "a", "age": 3}], [{"name": "a"}, {}, {"name": "a", "age": -1}]),
    "optional": (
        {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
            "additionalProperties": False,
        },
        [{}, {"a": 1}, {"b": "x"}, {"a": 1, "b": "x"}],
        [{"a": "x"}, {"c": 1}],
    ),
    "open object": ({"type": "object", "properties": {"a": {"type": "integer"}}}, [{"a": 1, "z": "q"}], [{"a": "x"}]),
    "additionalProperties": (
        {"type": "object", "additionalProperties": {"type": "integer"}},
        [{"a": 1, "b": 2}],
        [{"a": "x"}],
    ),
    "required beyond properties": (
        {"type": "object", "required": ["b"], "additionalProperties": {"type": "integer"}},
        [{"b": 1}],
        [{"b": "x"}, {}],
    ),
    "patternProperties": (
        {"type": "object", "patternProperties": {"^n_": {"type": "integer"}}, "additionalProperties": False},
        [{"n_a": 1}, {}],
        [{"n_a": "x"}, {"other": 1}],
    ),
    "minProperties": ({**PERSON, "required": [], "minProperties": 1}, [{"name": "a"}], [{}]),
    "maxProperties": ({"type": "object", "maxProperties": 1}, [{}, {"a": 1}], [{"a": 1, "b": 2}]),
    "nested objects": (closed(a=closed(b=closed(c={"type": "null"}))), [{"a": {"b": {"c": None}}}], [{"a": {"b": {}}}]),
    "array of objects": ({"type": "array", "items": PERSON}, [[{"name": "a", "age": 1}]], [[{"name": "a"}]]),
    "anyOf": ({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]}, [5, "a"], ["ab", None]),
    "anyOf beside bounds": ({"type": "integer", "anyOf": [{"minimum": 3}], "maximum": 5}, [3, 5], [2, 6]),
    "oneOf of types": ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, ["a", 1], [None, 1.5]),
    "allOf": ({"allOf": [{"type": "string"}, {"minLength": 2}, {"maxLength": 3}]}, ["ab", "abc"], ["a", "abcd", 1]),
    "allOf of objects": (
        {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"properties": {"a": {"minimum": 2}}},
            ]
        },
        [{"a": 2}],
        [{"a": 1}, {}],
    ),
    "$ref": (
        {"$defs": {"p": PERSON}, "type": "array", "items": {"$ref": "#/$defs/p"}},
        [[{"name": "a", "age": 1}]],
        [[{}]],
    ),
    "definitions": ({"definitions": {"p": {"type": "string"}}, "$ref": "#/definitions/p"}, ["a"], [1]),
    "$ref with siblings": (
        {"$defs": {"p": {"type": "string"}}, "$ref": "#/$defs/p", "maxLength": 2},
        ["ab"],
        ["abc", 1],
    ),
    "recursive": (
        TREE,
        [{"value": 1}, {"value": 1, "children": [{"value": 2, "children": []}]}],
        [{"value": 1, "children": [{}]}],
    ),
    "recursive to the root": (
        LIST,
        [{"value": 1, "next": {"value": 2, "next": None}}],
        [{"value": 1}, {"value": 1, "next": 3}],
    ),
    "names with quotes": (closed(**{'a"b\\é': {"type": "integer"}}), [{'a"b\\é': 1}], [{"ab": 1}]),
    "annotations": ({"type": "string", "title": "T", "description": "D", "default": 3, "examples": [1]}, ["a"], [1]),
    "neutral keywords": (
        {"type": "array", "uniqueItems": False, "dependentRequired": {}, "then": False},
        [[1, 1]],
        [1],
    ),
}

# What cannot be enforced token by token, and the path of the keyword.
REFUSED: dict[str, tuple[dict[str, Any] | bool, str]] = {
    "not": ({"properties": {"a": {"not": {"type": "string"}}}}, ".properties.a.not"),
    "if": ({"if": {"type": "string"}, "then": {"minLength": 1}}, ".if"),
    "uniqueItems": ({"type": "array", "items": {"type": "array", "uniqueItems": True}}, ".items.uniqueItems"),
    "contains": ({"contains": {"const": 1}}, ".contains"),
    "minContains": ({"minContains": 1}, ".minContains"),
    "propertyNames": ({"propertyNames": {"maxLength": 1}}, ".propertyNames"),
    "dependentRequired": ({"dependentRequired": {"a": ["b"]}}, ".dependentRequired"),
    "dependentSchemas": ({"dependentSchemas": {"a": False}}, ".dependentSchemas"),
    "dependencies": ({"dependencies": {"a": ["b"]}}, ".dependencies"),
    "unevaluatedProperties": ({"unevaluatedProperties": False}, ".unevaluatedProperties"),
    "unevaluatedItems": ({"unevaluatedItems": False}, ".unevaluatedItems"),
    "$dynamicRef": ({"$dynamicRef": "#a"}, ".$dynamicRef"),
    "$recursiveRef": ({"$recursiveRef": "#"}, ".$recursiveRef"),
    "draft 3": ({"anyOf": [{"disallow": "string"}]}, ".anyOf[0].disallow"),
    "divisibleBy": ({"divisibleBy": 2}, ".divisibleBy"),
    "extends": ({"extends": {"type": "string"}}, ".extends"),
    "x-guidance": ({"x-guidance": {"lenient": True}, "uniqueItems": False}, ".x-guidance"),
    "overlapping oneOf": ({"allOf": [{"oneOf": [{"type": "number"}, {"type": "integer"}]}]}, ".allOf[0].oneOf"),
    "unknown format": ({"properties": {"a": {"type": "string", "format": "colour"}}}, ".properties.a.format"),
    "format of a number": ({"type": "integer", "format": "int32"}, ".format"),
    "look-ahead": ({"type": "string", "pattern": "(?=a)b"}, ".pattern"),
    "back-reference": ({"type": "string", "pattern": r"(a)\1"}, ".pattern"),
    "repeated free keys": ({"type": "object", "minProperties": 3}, ".minProperties"),
    "behind a $ref": ({"$defs": {"p": {"contains": {}}}, "items": {"$ref": "#/$defs/p"}}, ".$defs.p.contains"),
    "another document": ({"$ref": "https://example.org/a.json"}, ".$ref"),
    "a $ref to nothing": ({"items": {"$ref": "#/$defs/p"}}, ".items.$ref"),
    "an unknown type": ({"type": "text"}, ".type"),
    "false": (False, ""),
    "no number": ({"type": "integer", "minimum": 5, "maximum": 3}, ".minimum"),
    "itself only": ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}, ""),
}


def random_schema(source: random.Random, depth: int = 2) -> dict[str, Any]:
    """A schema that a document of some tens of tokens can fulfil."""
    kind = source.choice(
        ["string", "integer", "number", "enum", "boolean", "null", *["object", "array", "anyOf"] * (depth > 0)]
    )
    if kind == "object":
        properties = {f"k{index}": random_schema(source, depth - 1) for index in range(source.randint(0, 2))}
        needed = [name for name in properties if source.random() < 0.7]
        return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}
    if kind == "array":
        least = source.randint(0, 1)
        most = least + source.randint(0, 2)
        return {"type": "array", "items": random_schema(source, depth - 1), "minItems": least, "maxItems": most}
    if kind == "anyOf":
        return {"anyOf": [random_schema(source, depth - 1) for _ in range(2)]}
    if kind == "string":
        pattern = {"pattern": source.choice(["^[a-z]+$", "^[0-9]{2}$", "x"])} if source.random() < 0.3 else {}
        return {"type": "string", "maxLength": source.randint(2, 8), **pattern}
    if kind in ("integer", "number"):
        low = source.randint(-50, 50)
        return {
            "type": kind,
            "minimum": low,
            "maximum": low + source.randint(3, 1000),
            **({"multipleOf": 3} if source.random() < 0.2 else {}),
        }
    return {"enum": [source.choice(["a", 1, None, "é"]), "other"]} if kind == "enum" else {"type": kind}
