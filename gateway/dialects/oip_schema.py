"""What a JSON schema says in terms of the Open Inference Protocol: tensors, and what a field takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .oip_tensors import MAX_RANK, datatype_of, described, measured

OUTPUT = "output-0"  # the name of an answer that has none
MAX_STEPS = 300  # alternatives that are looked at: those of a schema that recurses have no end
BY_TYPE = {"number": "FP64", "integer": "INT64", "boolean": "BOOL", "string": "BYTES"}
Schema = Mapping[str, Any]


def metadata(schema: Schema | None) -> list[dict[str, Any]]:
    """The tensors that a schema describes, -1 for a length that it leaves open. What is no tensor is left out."""
    if schema is None:
        return []
    whole = resolved(schema, schema)
    fields = whole.get("properties") if "properties" in whole else {OUTPUT: whole}
    found = []
    for name, inner in dict(fields or {}).items():
        tensor = next(_tensors(inner, schema, iter(range(MAX_STEPS))), None)
        if tensor is not None:
            datatype, shape = tensor
            found.append(described(name, datatype, shape or [1]))
    return found


def _tensors(schema: Any, root: Schema, steps: Iterator[int], depth: int = 0) -> Iterator[tuple[str, list[int]]]:
    """Datatype and shape for each way in which a schema can be met; the first is the one to show."""
    for choice in _choices(schema, root, steps):
        kind = _kind(choice)
        if kind in BY_TYPE:
            yield BY_TYPE[kind], []
        if kind == "array" and depth < MAX_RANK:
            least, most = choice.get("minItems"), choice.get("maxItems")
            size = least if least is not None and least == most else -1
            items = choice.get("items", {})
            if not items and isinstance(choice.get("const"), list):
                shape, data = measured(choice["const"]) or ([], [])
                if (datatype := datatype_of(data)) is not None:
                    yield datatype, shape
            for datatype, shape in _tensors(items, root, steps, depth + 1):
                yield datatype, [size, *shape]


def kinds_of(schema: Any, root: Schema) -> set[str]:
    """The JSON types that a schema lets in; none when it does not say, or when anything will do."""
    kinds = [_kind(choice) for choice in _choices(schema, root, iter(range(MAX_STEPS)))]
    return set() if None in kinds else {kind for kind in kinds if kind is not None and kind != "null"}


def _choices(schema: Any, root: Schema, steps: Iterator[int], depth: int = 0) -> Iterator[dict[str, Any]]:
    """The schemas behind references and alternatives, until there are no more steps."""
    if next(steps, None) is None:
        return
    found = resolved(schema, root)
    for name in ("anyOf", "oneOf", "allOf"):
        if found.get(name) and "type" not in found and "properties" not in found and depth < MAX_RANK:
            for choice in found[name]:
                yield from _choices(choice, root, steps, depth + 1)
            return
    if isinstance(found.get("type"), list):
        for kind in found["type"]:
            if next(steps, None) is not None:
                yield {**found, "type": kind}
        return
    yield found


def resolved(schema: Any, root: Schema) -> dict[str, Any]:
    """A schema with its reference followed; references to references end somewhere."""
    for _ in range(MAX_RANK):
        if not isinstance(schema, Mapping):
            return {}
        name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
        if name not in root.get("$defs", {}):
            return dict(schema)
        schema = root["$defs"][name]
    return {}


def _kind(schema: dict[str, Any]) -> str | None:
    if isinstance(schema.get("type"), str):
        return str(schema["type"])
    known = schema["const"] if "const" in schema else next(iter(schema.get("enum") or ()), None)
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(known), "object" if "properties" in schema else None)
