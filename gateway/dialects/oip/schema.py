"""Read a JSON schema in terms of the Open Inference Protocol: its tensors, and the types of a field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .tensors import MAX_RANK, datatype_of, described, measured

OUTPUT = "output-0"  # the name of an unnamed output
MAX_STEPS = 300  # alternatives of a field that are visited: a recursive schema has no end
MAX_STEPS_IN_ALL = 20_000  # for all fields together, since each may lead to the same alternatives
BY_TYPE = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "string": "BYTES"}
_SAYS_MORE = ("type", "properties")  # keywords that are more specific than alternatives beside them
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
Schema = Mapping[str, Any]


def metadata(schema: Schema | None) -> list[dict[str, Any]]:
    """Return the tensors that a schema describes, with -1 for an open length.

    Anything else is left out, and so are tensors that take too many steps to find.
    """
    if schema is None:
        return []
    whole, look = resolved(schema, schema), _Look(schema)
    found, left = [], MAX_STEPS_IN_ALL
    for name, inner in (fields_of(whole) if "properties" in whole else {OUTPUT: whole}).items():
        look.left = most = min(MAX_STEPS, left)
        if (tensor := next(look.tensors(inner), None)) is not None:
            datatype, shape = tensor
            found.append(described(name, datatype, shape or [1]))
        left -= most - look.left
    return found


def kinds_of(schema: Any, root: Schema) -> set[str]:
    """Return the JSON types that a schema allows, or none if it does not say or allows anything."""
    kinds = {kind for kind, _ in _Look(root).choices(schema)}
    return set() if None in kinds else {kind for kind in kinds if kind is not None and kind != "null"}


def fields_of(schema: Schema) -> Schema:
    """Return the properties of a resolved schema, or {} if it has none."""
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def resolved(schema: Any, root: Schema) -> Schema:
    """Follow the reference of a schema, and references to references up to a limit."""
    definitions = root.get("$defs")
    for _ in range(MAX_RANK):
        if not isinstance(schema, Mapping):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not isinstance(definitions, Mapping):
            return schema
        name = reference.removeprefix("#/$defs/")
        if name not in definitions:
            return schema
        schema = definitions[name]
    return {}


class Takes:
    """What predict takes, by the `schema` of its input. Each field is looked up once for all requests."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.is_array = "properties" not in schema and "array" in kinds_of(schema, schema)
        self.fields = fields_of(resolved(schema, schema))
        self._kinds: dict[str, set[str]] = {}

    def kinds(self, field: str) -> set[str]:
        """Return the JSON types of one of the fields, or none if it may be anything."""
        found = self._kinds.get(field)
        if found is None:
            found = self._kinds[field] = kinds_of(self.fields[field], self.schema)
        return found


class _Look:
    """A walk through one schema, which ends when no steps are `left`. A step copies nothing of the schema."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self.left = MAX_STEPS
        self._constants: dict[int, tuple[str, list[int]] | None] = {}  # by id; each is measured once

    def tensors(self, schema: Any, depth: int = 0) -> Iterator[tuple[str, list[int]]]:
        """Yield datatype and shape for each alternative of a schema. The first is the one to show."""
        for kind, choice in self.choices(schema):
            if kind in BY_TYPE:
                yield BY_TYPE[kind], []
            if kind == "array" and depth < MAX_RANK:
                items, constant = choice.get("items"), choice.get("const")
                if not items and isinstance(constant, list) and (known := self._of_constant(constant)):
                    yield known
                for datatype, shape in self.tensors(items, depth + 1):
                    yield datatype, [_length(choice), *shape]

    def choices(self, schema: Any, depth: int = 0) -> Iterator[tuple[str | None, Schema]]:
        """Yield the schemas behind references and alternatives, with their types."""
        if self.left <= 0:
            return
        self.left -= 1
        found = resolved(schema, self._root)
        for name in ("anyOf", "oneOf", "allOf"):
            given = found.get(name)
            if isinstance(given, list) and given and found.keys().isdisjoint(_SAYS_MORE) and depth < MAX_RANK:
                for choice in given:
                    if self.left <= 0:
                        return
                    yield from self.choices(choice, depth + 1)
                return
        if not isinstance(kinds := found.get("type"), list):
            yield _kind(found), found
            return
        for kind in kinds:
            if self.left <= 0:
                return
            self.left -= 1
            yield kind if isinstance(kind, str) else None, found

    def _of_constant(self, value: list[Any]) -> tuple[str, list[int]] | None:
        if id(value) not in self._constants:
            shape, data = measured(value) or ([], [])
            datatype = datatype_of(data)
            self._constants[id(value)] = None if datatype is None else (datatype, shape)
        return self._constants[id(value)]


def _length(schema: Schema) -> int:
    """Return the number of items in a list, or -1 if it is open."""
    least, most = schema.get("minItems"), schema.get("maxItems")
    return least if type(least) is int and least == most and least >= 0 else -1


def _kind(schema: Schema) -> str | None:
    if isinstance(schema.get("type"), str):
        return str(schema["type"])
    enum = schema.get("enum")
    known = schema["const"] if "const" in schema else enum[0] if isinstance(enum, list) and enum else None
    return _KINDS.get(type(known), "object" if "properties" in schema else None)
