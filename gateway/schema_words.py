"""The keywords of a JSON schema: which are supported, what values they take, and how a `$ref` is resolved.

A schema is checked once, when it is registered, so a request never meets a schema that cannot be compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from .linear_patterns import linear
from .wording import a_type, listed

# Annotations: keywords that do not affect validation.
REMARKS = frozenset(
    "$schema $id $comment $defs definitions title description default example examples format deprecated readOnly "
    "writeOnly discriminator".split()
)
RULES = frozenset(
    "$ref type enum const anyOf oneOf allOf not properties required additionalProperties minProperties maxProperties "
    "items prefixItems minItems maxItems minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength "
    "maxLength pattern".split()
)
KINDS = {
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "a boolean",
    "array": "an array",
    "object": "an object",
    "null": "null",
}


def fault_of(given: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the keywords of a schema and its subschemas, or None if all can be compared."""
    found: dict[int, Mapping[str, Any]] = {}
    try:
        _gather(given, given, found)
        if unknown := sorted({word for each in found.values() for word in each} - REMARKS - RULES):
            return f"has unsupported keywords: {listed(unknown)}"
        fine: set[int] = set()
        if any(_is_round(each, given, fine, set()) for each in found.values()):
            return "refers to itself endlessly"
    except RecursionError:
        return "is nested too deep, or within itself"
    except (TypeError, ValueError, KeyError, AttributeError, re.error) as error:
        return f"is not a JSON schema: {type(error).__name__}: {error}"
    return None


def referred(reference: str, root: Mapping[str, Any]) -> Any:
    """Resolve a `$ref`.

    Raises:
        ValueError: it points outside the schema.
    """
    if not reference.startswith("#"):
        raise ValueError(f"$ref {reference!r} points outside the schema")
    found: Any = root
    for step in filter(None, reference[1:].split("/")):
        found = found[step.replace("~1", "/").replace("~0", "~")]
    return found


def several(kinds: str | Iterable[str]) -> list[str]:
    """Return the types in `type` as a list; it may be a single one."""
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _gather(schema: Any, root: Mapping[str, Any], found: dict[int, Mapping[str, Any]]) -> None:
    """Collect every subschema by its identity, and check the values of their keywords."""
    if isinstance(schema, bool) or id(schema) in found:
        return
    if not isinstance(schema, Mapping):
        raise TypeError(f"{a_type(schema)} in place of a schema")
    found[id(schema)] = schema
    for word, value in schema.items():
        if word in _EXPECTED and not _EXPECTED[word][0](value):
            raise TypeError(f"{word} is {_said(value)}; expected {_EXPECTED[word][1]}")
    for kind in several(schema.get("type", ())):
        if kind not in KINDS:
            raise ValueError(f"type {kind!r} (have: {listed(KINDS)})")
    linear(schema.get("pattern", ""))
    inner: list[Any] = [*_beside(schema, root), *schema.get("prefixItems", ())]
    inner += [schema[word] for word in ("items", "additionalProperties") if word in schema]
    for word in ("properties", "$defs", "definitions"):
        inner += schema.get(word, {}).values()
    for each in inner:
        _gather(each, root, found)


def _beside(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the subschemas that apply to the same value."""
    if "$ref" in schema:
        yield referred(schema["$ref"], root)
    if "not" in schema:
        yield schema["not"]
    for word in ("anyOf", "oneOf", "allOf"):
        yield from schema.get(word, ())


def _is_round(schema: Any, root: Mapping[str, Any], fine: set[int], above: set[int]) -> bool:
    """Whether a schema refers back to itself for the same value, so that a comparison would not end."""
    if isinstance(schema, bool) or id(schema) in fine:
        return False
    if id(schema) in above:
        return True
    inside = above | {id(schema)}
    if any(_is_round(each, root, fine, inside) for each in _beside(schema, root)):
        return True
    fine.add(id(schema))
    return False


# ── values of keywords ───────────────────────────────────────────────────────────────────────────────────────────────


def _said(value: Any) -> str:
    return repr(value) if isinstance(value, int | float) else "empty" if value in ([], ()) else a_type(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _is_step(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _is_full_list(value: Any) -> bool:
    return _is_list(value) and len(value) > 0


def _are_names(value: Any) -> bool:
    return _is_list(value) and all(isinstance(name, str) for name in value)


def _are_kinds(value: Any) -> bool:
    return isinstance(value, str) or (_are_names(value) and len(value) > 0)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "type": (_are_kinds, "the name of a type, or a list of them"),
    "enum": (_is_full_list, "a list of values"),
    "required": (_are_names, "a list of names"),
    "prefixItems": (_is_list, "a list of schemas"),
    "multipleOf": (_is_step, "a number above 0"),
    **dict.fromkeys(("$ref", "pattern"), (_is_text, "a string")),
    **dict.fromkeys(("anyOf", "oneOf", "allOf"), (_is_full_list, "a list of schemas")),
    **dict.fromkeys(
        ("properties", "$defs", "definitions"), (_is_object, "a dict of schemas by names that are strings")
    ),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), (_is_number, "a number")),
    **{
        f"{end}{what}": (_is_count, "a whole number, 0 or more")
        for end in ("min", "max")
        for what in ("Length", "Items", "Properties")
    },
}
