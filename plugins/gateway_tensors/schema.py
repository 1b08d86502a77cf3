"""The JSON schemas of a graph's inputs and outputs, and a request that works when pasted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .types import Type, Value

LARGEST = 4096  # characters of an example; the gateway shows no longer ones
LENGTHS = (1, 2, 8, 16, 32, 64)  # for lengths that are open: some graphs do not take one row, or one pixel
WHOLE = {"bool": "boolean", "string": "string"}


def schema(values: Sequence[Value], *, of_outputs: bool = False) -> dict[str, Any]:
    properties = {each.name: {**_schema(each.type), "description": str(each.type)} for each in values}
    required = [each.name for each in values if not each.has_default and each.type.kind != "optional"]
    found: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    return found if of_outputs else {**found, "additionalProperties": False}


def _schema(kind: Type) -> dict[str, Any]:
    if kind.kind in ("sequence", "optional") and kind.inner is not None:
        inner = _schema(kind.inner)
        return {"type": "array", "items": inner} if kind.kind == "sequence" else inner
    if kind.kind == "values":  # of several types
        return {}
    if kind.kind != "tensor":
        return {"type": "object"}
    if kind.dims is None:
        return {}
    default = "number" if kind.element.startswith("float") else "integer"
    found: dict[str, Any] = {"type": WHOLE.get(kind.element, default)}
    for dim in reversed(kind.dims):
        length = {"minItems": dim, "maxItems": dim} if isinstance(dim, int) else {}
        found = {"type": "array", "items": found, **length}
    return found


def example(values: Sequence[Value], takes: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    """Return a request that `takes` says is answered; None if there is none, or only a long one."""
    for length in LENGTHS:
        found = _example(values, length)
        if found is None or len(json.dumps(found)) > LARGEST:
            return None
        if takes(found):
            return found
    return None


def _example(values: Sequence[Value], length: int) -> dict[str, Any] | None:
    found = {}
    for each in values:
        if each.has_default or each.type.kind == "optional":
            continue
        kind, is_list = each.type, False
        if kind.kind == "sequence" and kind.inner is not None:
            kind, is_list = kind.inner, True
        dims = [dim if isinstance(dim, int) else length for dim in kind.dims or ()]
        if kind.kind != "tensor" or math.prod(dims) > LARGEST:
            return None
        value: Any = {"bool": True, "string": "a"}.get(kind.element, 0.5 if kind.element.startswith("float") else 1)
        for dim in reversed(dims):
            value = [value] * dim
        found[each.name] = [value] if is_list else value
    return found


def with_example(found: dict[str, Any], request: Mapping[str, Any] | None) -> dict[str, Any]:
    return found if request is None else {**found, "examples": [request]}
