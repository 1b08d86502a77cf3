"""Take fields of a JSON request by type. Errors name the field."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import BadRequest
from ..wording import a_type, listed

MOST_ECHOED = 64  # characters of a client's word in an error: the whole of a large one would take long to write
_NAMES: dict[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    list: "an array",
    dict: "an object",
}


def take(body: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """Return an optional field of a JSON type; null counts as absent.

    Raises:
        BadRequest: invalid_type.
    """
    value = body.get(name)
    if value is None:
        return default
    if kind is float:
        good = isinstance(value, int | float) and not isinstance(value, bool)  # JSON has no infinity
    elif kind is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    else:
        good = isinstance(value, kind)
    if not good:
        raise wrong_type(name, _NAMES[kind], value)
    return value


def take_range(body: dict[str, Any], name: str, least: int, most: int | None, default: Any = None) -> Any:
    """Return an optional integer within bounds."""
    value = take(body, name, int, default)
    if value is not None and (value < least or (most is not None and value > most)):
        bounds = f"at least {least}" if most is None else f"between {least} and {most}"
        raise BadRequest(f"'{name}' must be {bounds}, not {echoed(value)}", param=name)
    return value


def put(chat: dict[str, Any], name: str, value: Any, word: str) -> None:
    """Set the chat field `name` from a request's field `word` with the same meaning. The request may have both.

    Raises:
        BadRequest: they have different values.
    """
    if chat.get(name, value) != value:
        raise BadRequest(f"'{name}' and '{word}' have different values; send '{word}'", param=name)
    chat[name] = value


def echoed(value: Any) -> str:
    """Return a client's value for an error: a short piece of a string, and of an array or an object only its kind."""
    if isinstance(value, str):
        return repr(value[:MOST_ECHOED])
    return _NAMES[type(value)] if isinstance(value, list | dict) else repr(value)[:MOST_ECHOED]


def wrong_type(name: str, expected: str, value: Any) -> BadRequest:
    got = "null" if value is None else _NAMES.get(type(value)) or a_type(value)
    return BadRequest(f"'{name}' must be {expected}, not {got}", param=name, code="invalid_type")


def missing(name: str, got: Iterable[str] = ()) -> BadRequest:
    """Return the error for a missing field. `got` are the fields sent instead, perhaps from another service's API."""
    told = f" (got: {listed(each[:MOST_ECHOED] for each in got)})" if got else ""
    return BadRequest(f"missing required parameter: '{name}'{told}", param=name, code="missing_required_parameter")
