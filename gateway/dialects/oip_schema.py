"""What a JSON schema says in terms of the Open Inference Protocol: tensors, and what a field takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .oip_tensors import MAX_RANK, datatype_of, described, measured

OUTPUT = "output-0"  # the name of an answer that has none
MAX_STEPS = 300  # alternatives of a field that are looked at: those of a schema that recurses have no end
MAX_STEPS_IN_ALL = 20_000  # of all fields together: each may lead to the same ones
BY_TYPE = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "string": "BYTES"}
_SAYS_MORE = ("type", "properties")  # than the alternatives beside it
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
Schema = Mapping[str, Any]


def metadata(schema: Schema | None) -> list[dict[str, Any]]:
    """The tensors that a schema describes, -1 for a length that it leaves open. What is no tensor is left out, and so
    is what it takes more steps to find than a schema may take.
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
    """The JSON types that a schema lets in; none when it does not say, or when anything will do."""
    kinds = {kind for kind, _ in _Look(root).choices(schema)}
    return set() if None in kinds else {kind for kind in kinds if kind is not None and kind != "null"}


def fields_of(schema: Schema) -> Schema:
    """The properties of a schema that was resolved, none where it has no such thing there."""
    found = schema.get("properties")
    return found if isinstance(found, Mapping) else {}


def resolved(schema: Any, root: Schema) -> Schema:
    """A schema with its reference followed; references to references end somewhere."""
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


class _Look:
    """One walk through a schema, that ends when its steps are `left` no more. A step copies nothing of the schema."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self.left = MAX_STEPS
        self._constants: dict[int, tuple[str, list[int]] | None] = {}  # by their id; each is measured once

    def tensors(self, schema: Any, depth: int = 0) -> Iterator[tuple[str, list[int]]]:
        """Datatype and shape for each way in which a schema can be met; the first is the one to show."""
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
        """The schemas behind references and alternatives, with the type that each has there."""
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
    """How many items a list has, -1 where that is open."""
    least, most = schema.get("minItems"), schema.get("maxItems")
    return least if type(least) is int and least == most and least >= 0 else -1


def _kind(schema: Schema) -> str | None:
    if isinstance(schema.get("type"), str):
        return str(schema["type"])
    enum = schema.get("enum")
    known = schema["const"] if "const" in schema else enum[0] if isinstance(enum, list) and enum else None
    return _KINDS.get(type(known), "object" if "properties" in schema else None)
