"""Find what of a JSON schema llguidance would not enforce, by keyword and path, and remove keywords without effect.

llguidance refuses most of it itself, but without saying where; some keywords of old drafts it ignores. What is refused
here is refused on every engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from gateway import BadRequest

LARGEST = 2**17  # characters of a schema as JSON
DEEPEST = 64  # levels of subschemas, and of values
MOST_PROPERTIES = 2000  # llguidance takes about 0.4 s for them, and four times that for twice as many

# Keywords that restrict a document and cannot be enforced token by token, with values that restrict nothing.
NOT_ENFORCED: Mapping[str, tuple[Any, ...]] = {
    "not": (False,),
    "if": (),
    "uniqueItems": (False,),
    "contains": (),
    "minContains": (),
    "maxContains": (),
    "propertyNames": (True, {}),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "unevaluatedProperties": (True, {}),
    "unevaluatedItems": (True, {}),
    "$dynamicRef": (),
    "$recursiveRef": (),
    "divisibleBy": (),
    "disallow": (),
    "extends": (),
    "x-guidance": (),  # would change how llguidance reads the schema
}
OF_IF = ("then", "else")  # without `if` they mean nothing
ONE = ("not", "if", "then", "else", "contains", "propertyNames", "additionalProperties", "additionalItems", "items")
SEVERAL = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
NAMED = ("properties", "patternProperties", "$defs", "definitions")
KEPT = ("$defs", "definitions")  # only what a $ref uses is part of the schema

Json = dict[str, Any]


class Schema:
    """A schema of a request. `where` is its path in the request."""

    def __init__(self, given: Json | bool, where: str) -> None:
        """Raises `BadRequest` for a schema that is too large, or cannot be fulfilled."""
        self.where = where
        if given is False:
            raise BadRequest(f"{where}: no document fulfils the schema false", param=where)
        _check_depth(given, where)
        if len(json.dumps(given)) > LARGEST:
            raise BadRequest(f"{where}: a schema may have at most {LARGEST} characters", param=where)
        self._properties = 0
        self.gaps: dict[str, str] = {}  # what cannot be enforced, by its path
        self._root: Json = {} if given is True else given
        self._seen: set[str] = set()
        self.value: Json = self._read(self._root, where)

    def refuse_gaps(self) -> None:
        for path, keyword in self.gaps.items():
            raise not_enforced(path, f"{keyword} cannot be enforced while an answer is generated")

    def _read(self, schema: Any, where: str) -> Any:
        """Return the schema without keywords that have no effect, and note the others."""
        if not isinstance(schema, dict):
            return schema
        read: Json = {}
        for name, value in schema.items():
            at = f"{where}.{name}"
            if name in OF_IF and "if" not in schema:
                continue
            if name in NOT_ENFORCED:
                if any(value == each and type(value) is type(each) for each in NOT_ENFORCED[name]):
                    continue
                self.gaps[at] = name
            read[name] = self._keyword(name, value, at)
        self._odd(schema, where)
        if isinstance(reference := schema.get("$ref"), str):
            self._follow(reference, f"{where}.$ref")
        return read

    def _keyword(self, name: str, value: Any, at: str) -> Any:
        if name in KEPT:
            return value  # read where it is used
        if name in NAMED and isinstance(value, dict):
            self._properties += len(value)
            if self._properties > MOST_PROPERTIES:
                what = f"{self.where}: a schema may have at most {MOST_PROPERTIES} properties"
                raise BadRequest(what, param=self.where)
            return {key: self._read(one, f"{at}.{key[:64]}") for key, one in value.items()}
        if name in SEVERAL and isinstance(value, list):
            return [self._read(one, f"{at}[{index}]") for index, one in enumerate(value)]
        return self._read(value, at) if name in ONE else value

    def _odd(self, schema: Json, where: str) -> None:
        """Note values that llguidance reads otherwise than the standard."""
        kinds = schema.get("type")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if "format" in schema and isinstance(kinds, list) and "string" not in kinds:
            self.gaps[f"{where}.format"] = "format of something that is not a string"
        least, closed = schema.get("minProperties"), schema.get("additionalProperties") is False
        needed = schema.get("required")
        sure = len(needed) + 1 if isinstance(needed, list) else 1
        if isinstance(least, int | float) and least > sure and not (closed and "patternProperties" not in schema):
            # a free key may be repeated, and then counts once
            self.gaps[f"{where}.minProperties"] = f"minProperties above {sure} where keys are free"

    def _follow(self, reference: str, at: str) -> None:
        """Read what a $ref within the schema points to, once; llguidance refuses other references itself."""
        if reference in self._seen or not reference.startswith("#/"):
            return
        self._seen.add(reference)
        found: Any = self._root
        for part in reference[2:].split("/"):
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                raise BadRequest(f"{at}: there is no {reference[:200]} in the schema", param=at)
        self._read(found, f"{self.where}.{reference[2:200].replace('/', '.')}")

    def parts(self) -> Iterator[tuple[str, Any]]:
        """Yield the paths of subschemas that can be checked one by one, the innermost first, then the whole."""
        yield from _parts(self.value, self.where, self._definitions())

    def _definitions(self) -> Json:
        return {name: self.value[name] for name in KEPT if name in self.value}


def not_enforced(where: str, why: str) -> BadRequest:
    return BadRequest(f"{where}: {why}", param=where[:200], code="unsupported_value")


def _parts(schema: Any, where: str, definitions: Json) -> Iterator[tuple[str, Any]]:
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        at = f"{where}.{name}"
        if name in NAMED and isinstance(value, dict):
            for key, one in value.items():
                yield from _parts(one, f"{at}.{key[:64]}", definitions)
        elif name in SEVERAL and isinstance(value, list):
            for index, one in enumerate(value):
                yield from _parts(one, f"{at}[{index}]", definitions)
        elif name in ONE:
            yield from _parts(value, at, definitions)
    yield where, {**definitions, **schema}


def _check_depth(value: Any, where: str) -> None:
    layer, depth = [value], 0
    while layer := [each for each in layer if isinstance(each, dict | list)]:
        depth += 1
        if depth > DEEPEST:
            raise BadRequest(f"{where}: a schema may be at most {DEEPEST} levels deep", param=where)
        layer = [item for each in layer for item in (each.values() if isinstance(each, dict) else each)]
