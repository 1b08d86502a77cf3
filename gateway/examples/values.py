"""Make a value that matches a JSON schema, for example calls and the API page.

Schemas come from models and may be of any form. Recursive parts are left out where allowed. An invalid schema, or one
whose example would be too long, gives an empty object.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

MAX_STEPS = 2000  # schemas and values visited; a small schema can unfold without limit
MAX_DEPTH = 50
MAX_TEXT = 4096  # characters of the example as JSON
MARKS = 2  # characters around a JSON list, between values, and after a key
_PLAIN: dict[str, Any] = {"integer": 1, "number": 1.0, "boolean": True, "null": None}
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_FORMATS = {
    "date": "2026-01-31",
    "time": "12:00:00",
    "date-time": "2026-01-31T12:00:00Z",
    "duration": "PT1H",
    "email": "ada@example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "byte": "SGVsbG8=",
    "base64": "SGVsbG8=",
}


class _NoExample(Exception):
    """This part of the schema has no example."""


class _TooLong(Exception):
    """The schema takes more than MAX_STEPS steps."""


def example(schema: Any) -> Any:
    """Return an example from the schema's examples and defaults, with required properties only. It never raises."""
    definitions = schema.get("$defs") if isinstance(schema, Mapping) else None
    try:
        return _Look(definitions if isinstance(definitions, Mapping) else {}).at(schema)
    except (_NoExample, _TooLong, ArithmeticError, TypeError, ValueError, RecursionError):
        return {}


class _Look:
    """A walk through one schema. Sizes are checked before values are made: `[x] * n` is small until it is written."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._open: list[str] = []  # definitions that are being expanded
        self._depth = 0
        self._steps = MAX_STEPS  # steps left
        self._room = MAX_TEXT  # characters left for the example

    def at(self, schema: Any) -> Any:
        self._step()
        if self._depth > MAX_DEPTH:
            raise _NoExample
        if not isinstance(schema, Mapping):
            return self._given({})
        self._depth += 1
        try:
            return self._of(schema)
        finally:
            self._depth -= 1

    def _step(self) -> None:
        self._steps -= 1
        if self._steps < 0:
            raise _TooLong

    def _take(self, characters: int) -> None:
        if characters > self._room:
            raise _NoExample
        self._room -= characters

    def _given(self, value: Any) -> Any:
        """Return a value unchanged, if there is room for it."""
        self._step()
        if isinstance(value, Mapping):
            self._take(MARKS)
            for key, inner in value.items():
                self._name(key)
                self._given(inner)
        elif isinstance(value, list):
            self._take(MARKS)
            for inner in value:
                self._take(MARKS)
                self._given(inner)
        else:
            self._plain(value)
        return value

    def _name(self, name: str) -> None:
        self._plain(name)
        self._take(2 * MARKS)

    def _plain(self, value: Any) -> None:
        if isinstance(value, str) and len(value) > self._room:  # writing it would take long
            raise _NoExample
        self._take(len(json.dumps(value, allow_nan=False)))

    def _of(self, schema: Mapping[str, Any]) -> Any:
        if isinstance(reference := schema.get("$ref"), str):
            return self._definition(reference.rpartition("/")[2])
        for key in ("examples", "enum"):
            if isinstance(given := schema.get(key), list) and given:
                return self._given(given[0])
        for key in ("default", "const"):
            if key in schema:
                return self._given(schema[key])
        for key in ("anyOf", "oneOf", "allOf"):
            if isinstance(given := schema.get(key), list) and given:
                return self._first(given)
        kind = schema.get("type")
        if isinstance(kind, list) and kind:
            kind = kind[0]
        if kind == "array":
            return self._list(schema.get("items"), schema.get("minItems"))
        if kind in ("integer", "number"):
            return self._given(_within(schema, kind))
        if kind == "string":
            return self._given(_text(schema))
        if isinstance(kind, str) and kind in _PLAIN:
            return self._given(_PLAIN[kind])
        properties, required = schema.get("properties"), schema.get("required")
        if not isinstance(required, list) or not isinstance(properties, Mapping):
            return self._given({})
        return dict(self._fields(properties, required))

    def _fields(self, properties: Mapping[str, Any], required: list[Any]) -> Iterator[tuple[str, Any]]:
        self._take(MARKS)
        for name in required:
            self._step()
            if isinstance(name, str):
                self._name(name)
                yield name, self.at(properties.get(name))

    def _definition(self, name: str) -> Any:
        if name in self._open:  # the example would contain itself
            raise _NoExample
        self._open.append(name)
        try:
            return self.at(self._definitions.get(name))
        finally:
            self._open.pop()

    def _first(self, alternatives: list[Any]) -> Any:
        room = self._room
        for schema in alternatives:
            try:
                return self.at(schema)
            except _NoExample:
                self._room = room
        raise _NoExample

    def _list(self, items: Any, least: Any) -> list[Any]:
        count = least if isinstance(least, int) and least > 1 else 1
        room = self._room
        try:
            self._take(MARKS)
            before = self._room
            self._take(MARKS)
            item = self.at(items)
            self._take((before - self._room) * (count - 1))
            return [item] * count
        except _NoExample:
            if isinstance(least, int) and least > 0:
                raise
            self._room = room
            self._take(MARKS)
            return []


def _within(schema: Mapping[str, Any], kind: str) -> int | float:
    """Return a number within the bounds, near 1. With multipleOf, the smallest multiple that fits."""
    step: float = 1 if kind == "integer" else 0.5
    value: float = _PLAIN[kind]
    bounds = {name: schema[name] for name in _BOUNDS if isinstance(schema.get(name), int | float)}
    if "multipleOf" in bounds and bounds["multipleOf"] > 0:
        step = value = bounds["multipleOf"]
        value *= max(1, math.ceil(bounds.get("minimum", value) / step))
    if value < bounds.get("minimum", value):
        value = bounds["minimum"]
    if value > bounds.get("maximum", value):
        value = bounds["maximum"]
    if value <= bounds.get("exclusiveMinimum", -math.inf):
        value = bounds["exclusiveMinimum"] + step
    if value >= bounds.get("exclusiveMaximum", math.inf):
        value = bounds["exclusiveMaximum"] - step
    return value


def _text(schema: Mapping[str, Any]) -> str:
    """Return a text of the schema's format, or of the required length."""
    given, least, most = (schema.get(name) for name in ("format", "minLength", "maxLength"))
    text = _FORMATS.get(given, "Hello.") if isinstance(given, str) else "Hello."
    if isinstance(least, int) and least > len(text):
        text = text * (min(least, MAX_TEXT) // len(text) + 1)
        text = text[:least]
    return text[:most] if isinstance(most, int) and most >= 0 else text
