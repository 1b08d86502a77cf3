"""Schemas of an endpoint's request and answer: a JSON schema, or a Pydantic class that makes one.

`fault` checks a schema when it is registered. `checker` makes the function that refuses bodies which do not match.
`shown` returns the schema for the API document. An unknown keyword is a fault: silently ignoring a rule would be worse
than refusing the schema.
"""

from __future__ import annotations

import operator
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import msgspec

from .errors import BadRequest, TooLarge
from .linear_patterns import linear
from .schema_words import KINDS, fault_of, referred, several
from .wording import a_type, listed

Given = Mapping[str, Any] | type[Any]
Steps = tuple[str | int, ...]
MOST_VALUES = 1 << 18  # values in a body that is checked
MOST_OF_A_CLASS = 1 << 15  # if Pydantic checks it: in one call that blocks all threads
MOST_ERRORS = 1 << 18  # that Pydantic finds in a body, about a microsecond each
MOST_LISTED = 1 << 10  # errors of which Pydantic is asked for the first: it makes a list of all
LONGEST = 1.0  # seconds of a processor to compare a body with a JSON schema
OFTEN = 64  # comparisons between two looks at the clock
Key = tuple[bool, Any]


class Root:
    """A schema, and the time until which values may be compared with its parts: a large body is cheap to send."""

    __slots__ = ("_compared", "_known", "_until", "schema")

    def __init__(self, schema: Mapping[str, Any], known: dict[int, tuple[frozenset[Key], list[Any]]]) -> None:
        self.schema, self._known = schema, known
        self._compared, self._until = 0, time.thread_time() + LONGEST

    def count(self, compared: int = 1) -> None:
        """Count comparisons.

        Raises:
            TooLarge: all have taken too long.
        """
        self._compared += compared
        if self._compared >= OFTEN:
            self._compared = 0
            if time.thread_time() > self._until:
                raise TooLarge(
                    "the body takes too long to check against the schema of this route; send it in several requests"
                )

    def is_one_of(self, value: Any, choices: list[Any]) -> bool:
        """Whether a value is one of an `enum`, which may be long: it is looked up, unless it is an array or object."""
        if (known := self._known.get(id(choices))) is None:
            plain = frozenset(_key(one) for one in choices if not isinstance(one, list | dict))
            known = self._known[id(choices)] = plain, [one for one in choices if isinstance(one, list | dict)]
        if not isinstance(value, list | dict):
            return _key(value) in known[0]
        self.count(len(known[1]))
        return any(_same(value, one) for one in known[1])


class Mismatch(NamedTuple):
    """Where a value does not match, and how. `must` is a phrase that begins with a verb, such as "must be …".

    It is a function where making the phrase takes long: of several alternatives only one is told.
    """

    at: Steps
    must: str | Callable[[], str]
    code: str = "invalid_value"


def is_class(given: Any) -> bool:
    """Whether it is a Pydantic class. Pydantic is not imported to find out."""
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    return base is not None and isinstance(given, type) and issubclass(given, base)


def fault(given: Any) -> str | None:
    """Return what is wrong with a schema, or None if it can be used."""
    if is_class(given):
        try:
            shown(given)
        except Exception as error:  # from Pydantic: a field that JSON cannot represent
            return f"has no JSON schema: {str(error).splitlines()[0]}"
        return None
    if not isinstance(given, Mapping):
        return f"is {a_type(given)}; expected a JSON schema, as a dict, or a subclass of pydantic.BaseModel"
    try:
        msgspec.json.encode(given)
    except (TypeError, ValueError, RecursionError) as error:
        return f"is not a JSON schema: {type(error).__name__}: {error}"
    return fault_of(given)


def shown(given: Given, mode: Literal["validation", "serialization"] = "validation") -> dict[str, Any]:
    """Return the JSON schema itself."""
    if is_class(given):
        schema: dict[str, Any] = given.model_json_schema(mode=mode)  # type: ignore[union-attr]
        return schema
    assert isinstance(given, Mapping)
    return dict(given)


def most_values(given: Given) -> int:
    """Return how many values a body may have that is checked."""
    if not is_class(given):
        return MOST_VALUES
    schema = shown(given)
    return min(MOST_OF_A_CLASS, max(1, MOST_ERRORS // _most_errors(schema, schema)))


def _most_errors(part: Any, root: Mapping[str, Any]) -> int:
    """Return how many errors Pydantic may find in one value: of each form of a union, each field that is missing."""
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    own = _errors(part, root, ()) if isinstance(part, dict) else 1
    return max([own, *(_most_errors(each, root) for each in inner)])


def _errors(schema: Any, root: Mapping[str, Any], seen: tuple[str, ...]) -> int:
    if not isinstance(schema, dict):
        return 1
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference not in seen:
        return _errors(referred(reference, root), root, (*seen, reference))
    required = schema.get("required")
    forms = [
        each for word in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(word), list) for each in schema[word]
    ]
    return max(1, sum(_errors(each, root, seen) for each in forms), len(required) if isinstance(required, list) else 0)


def checker(given: Given) -> Callable[[dict[str, Any]], None]:
    """Return a function that raises `BadRequest`, with the path to the error, for a body that does not match.

    `model` is the gateway's own field, so a schema that allows no additional fields need not name it.
    """
    schema = shown(given)
    is_ours = "model" not in schema.get("properties", {})
    known: dict[int, tuple[frozenset[Key], list[Any]]] = {}

    def check(body: dict[str, Any]) -> None:
        fields = {name: value for name, value in body.items() if name != "model"} if is_ours else body
        try:
            found = _of_class(fields, given) if is_class(given) else mismatch(fields, schema, Root(schema, known))
        except RecursionError:
            raise BadRequest("the body is nested too deep to be checked", code="invalid_value") from None
        if found is not None:
            raise refusal(found)

    return check


def refusal(found: Mismatch) -> BadRequest:
    name = place(found.at)
    if found.code == "missing_required_parameter":
        return BadRequest(f"missing required parameter: '{name}'", param=name, code=found.code)
    what = f"'{name}'" if name else "the body"
    must = found.must if isinstance(found.must, str) else found.must()
    return BadRequest(f"{what} {must}", param=name or None, code=found.code)


def place(at: Steps) -> str:
    """ "messages[0].role" """
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in at]
    return "".join(parts).removeprefix(".")


def _of_class(fields: dict[str, Any], given: Any) -> Mismatch | None:
    """Validate as JSON and strictly, so that the API document and the validation agree: "3" is not a number."""
    from pydantic import ValidationError

    try:
        given.model_validate_json(msgspec.json.encode(fields), strict=True)
    except ValidationError as error:
        if (found := error.error_count()) > MOST_LISTED:
            return Mismatch((), f"is not valid in {found} ways; send fewer values to be told where")
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "missing":
            *outer, name = first["loc"]
            return Mismatch((*_steps_in(fields, outer), name), "", "missing_required_parameter")
        text = first["msg"].removeprefix("Value error, ")
        return Mismatch(_steps_in(fields, first["loc"]), f"is not valid: {text[:1].lower()}{text[1:]}")
    return None


def _steps_in(value: Any, steps: Iterable[str | int]) -> Steps:
    """Return the steps that lead through the value. Pydantic also names the type that it tried, as in ("n", "int")."""
    found: list[str | int] = []
    for step in steps:
        is_index = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if is_index or (isinstance(value, dict) and step in value):
            found.append(step)
            value = value[step]
    return tuple(found)


# ── JSON Schema ──────────────────────────────────────────────────────────────────────────────────────────────────────


def mismatch(value: Any, schema: Any, root: Root, at: Steps = ()) -> Mismatch | None:
    """Return the first mismatch between a JSON value and a schema, or None if it matches.

    Raises:
        TooLarge: the check would take too long.
    """
    root.count()
    if isinstance(schema, bool):
        return None if schema else Mismatch(at, "is not taken")
    if "$ref" in schema and (found := mismatch(value, referred(schema["$ref"], root.schema), root, at)):
        return found
    if (kinds := schema.get("type")) is not None and not _is_any(value, kinds):
        expected = " or ".join(KINDS[kind] for kind in several(kinds))
        return Mismatch(at, f"must be {expected}, not {KINDS[_kind(value)]}", "invalid_type")
    if "enum" in schema and not root.is_one_of(value, schema["enum"]):
        return Mismatch(at, lambda: f"must be one of {', '.join(map(_json, schema['enum']))}")
    if "const" in schema and not _same(value, schema["const"]):
        return Mismatch(at, lambda: f"must be {_json(schema['const'])}")
    if found := _combined(value, schema, root, at):
        return found
    if isinstance(value, str):
        return _text(value, schema, at)
    if isinstance(value, list):
        return _array(value, schema, root, at)
    if isinstance(value, dict):
        return _object(value, schema, root, at)
    return None if value is None or isinstance(value, bool) else _number(value, schema, at)


def _combined(value: Any, schema: Any, root: Root, at: Steps) -> Mismatch | None:
    for one in schema.get("allOf", ()):
        if found := mismatch(value, one, root, at):
            return found
    for word in ("anyOf", "oneOf"):
        if word in schema:
            tried = [mismatch(value, one, root, at) for one in schema[word]]
            good = tried.count(None)
            if not good:
                return _nearest([each for each in tried if each is not None], at)
            if word == "oneOf" and good > 1:
                return Mismatch(at, f"matches {good} of the allowed forms, and must match exactly one")
    if "not" in schema and mismatch(value, schema["not"], root, at) is None:
        return Mismatch(at, lambda: f"must not be {_json(value)[:100]}")
    return None


def _nearest(found: list[Mismatch], at: Steps) -> Mismatch:
    """Return the mismatch of the alternative that the value comes nearest to: the one deepest inside the value."""
    deepest = max(found, key=lambda each: (len(each.at), each.code != "invalid_type"))
    if deepest.at == at and deepest.code == "invalid_type":
        phrases = [str(each.must) for each in found]  # all are about types, because that is preferred least
        expected = " or ".join(dict.fromkeys(each.partition(", not ")[0].removeprefix("must be ") for each in phrases))
        return Mismatch(at, f"must be {expected}, not {phrases[-1].rpartition(', not ')[2]}", deepest.code)
    return deepest


def _text(value: str, schema: Any, at: Steps) -> Mismatch | None:
    if len(value) < schema.get("minLength", 0):
        return Mismatch(at, f"must have at least {schema['minLength']} characters")
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        return Mismatch(at, f"must have at most {schema['maxLength']} characters")
    if "pattern" in schema and not linear(schema["pattern"])(value):
        return Mismatch(at, f"must match {schema['pattern']}")
    return None


def _number(value: float, schema: Any, at: Steps) -> Mismatch | None:
    for word, (is_good, says) in _BOUNDS.items():
        if word in schema and not is_good(value, schema[word]):
            return Mismatch(at, partial(_bound, says, schema[word], value))
    return None


def _bound(says: str, bound: float, value: float) -> str:
    return f"must be {says} {bound}, not {_json(value)[:100]}"


def _is_multiple(value: float, bound: float) -> bool:
    """Compare the numbers as they are written: 0.3 is a multiple of 0.1, although the binary fractions are not."""
    if isinstance(value, int) and isinstance(bound, int):
        return value % bound == 0
    (whole, places), (step, steps) = _exact(value), _exact(bound)
    most = max(places, steps)
    return bool(whole * 10 ** (most - places) % (step * 10 ** (most - steps)) == 0)


def _exact(number: float) -> tuple[int, int]:
    """Return a whole number, and how many of its digits are behind the point: several times faster than fractions."""
    if isinstance(number, int):
        return number, 0
    digits, _, exponent = repr(number).partition("e")
    before, _, behind = digits.partition(".")
    return int(before + behind), len(behind) - int(exponent or 0)


_BOUNDS: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "minimum": (operator.ge, "at least"),
    "maximum": (operator.le, "at most"),
    "exclusiveMinimum": (operator.gt, "more than"),
    "exclusiveMaximum": (operator.lt, "less than"),
    "multipleOf": (_is_multiple, "a multiple of"),
}


def _array(value: list[Any], schema: Any, root: Root, at: Steps) -> Mismatch | None:
    if len(value) < schema.get("minItems", 0):
        return Mismatch(at, f"must hold at least {schema['minItems']}, not {len(value)}")
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        return Mismatch(at, f"must hold at most {schema['maxItems']}, not {len(value)}")
    first = schema.get("prefixItems", ())
    others = schema.get("items", True)
    for index, item in enumerate(value):
        if found := mismatch(item, first[index] if index < len(first) else others, root, (*at, index)):
            return found
    return None


def _object(value: dict[str, Any], schema: Any, root: Root, at: Steps) -> Mismatch | None:
    for name in schema.get("required", ()):
        if name not in value:
            return Mismatch((*at, name), "", "missing_required_parameter")
    if len(value) < schema.get("minProperties", 0):
        return Mismatch(at, f"must have at least {schema['minProperties']} fields")
    if "maxProperties" in schema and len(value) > schema["maxProperties"]:
        return Mismatch(at, f"must have at most {schema['maxProperties']} fields")
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, item in value.items():
        if name not in known and others is False:
            return Mismatch((*at, name), lambda: f"is not known here (have: {listed(known)})")
        if found := mismatch(item, known.get(name, others), root, (*at, name)):
            return found
    return None


def _is_any(value: Any, kinds: str | Iterable[str]) -> bool:
    kind = _kind(value)
    return any(each == kind or (each == "number" and kind == "integer") for each in several(kinds))


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return "integer"
    kinds = ((float, "number"), (str, "string"), (list, "array"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "object")


def _key(value: Any) -> Key:
    """Two values that are the same have the same key."""
    return isinstance(value, bool), value


def _same(value: Any, other: Any) -> bool:
    """Compare as JSON does: true is not 1."""
    return bool(value == other) and isinstance(value, bool) == isinstance(other, bool)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
