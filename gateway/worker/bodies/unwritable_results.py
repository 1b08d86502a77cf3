"""Results that the fast encoder rejects: encode them after all, or report the path of the value and how to fix it.

A result that is encoded at once never comes here, so it does not pay for a walk over all values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...wording import path_of
from .failures import Unserializable
from .value_hints import hint, named

_KEYS = (str, int, float, type(None))  # a bool is an int


@dataclass(frozen=True, slots=True)
class Form:
    """A target format. `convert` turns an unsupported value into a supported one, or raises."""

    convert: Callable[[Any], Any]
    holds: Callable[[Any], bool]  # whether it supports this value, which is not a container
    refusal: str  # error text, with a placeholder for the name of the type
    verb: str = "written as JSON"
    binary: bool = False  # whether bytes and arrays are better than text and lists
    any_key: bool = False  # whether dicts may have any key


def of_json(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def of_msgpack(value: Any) -> bool:
    """Return whether msgpack supports it: no lone surrogates, integers of 64 bits."""
    if isinstance(value, str):
        return not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    return value is None or isinstance(value, (float, bytes, bytearray, memoryview))


def plain(value: Any, form: Form) -> Any:
    """Return the value converted to types of the format.

    Raises:
        Unserializable: part of it is not supported.
    """
    try:
        return _Walk(form).value(value)
    except RecursionError as error:
        raise Unserializable(f"the result cannot be {form.verb}: it is nested too deep") from error


class _Walk:
    """One walk over a result, with the path to the present value."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._steps: list[str | int] = []
        self._around: set[int] = set()  # ids of the enclosing values, to detect a cycle

    def value(self, value: Any) -> Any:
        if self._form.holds(value):
            return value
        if id(value) in self._around:
            raise Unserializable(f"the result cannot be {self._form.verb}: it contains itself (at {self._path()})")
        if isinstance(value, (str, int)):  # it would be converted to itself
            raise self._refused(value)
        self._around.add(id(value))
        try:
            if isinstance(value, dict):
                return self._object(value)
            if isinstance(value, (list, tuple)):
                return [self._step(index, item) for index, item in enumerate(value)]
            return self.value(self._converted(value))
        finally:
            self._around.discard(id(value))

    def _step(self, name: str | int, item: Any) -> Any:
        self._steps.append(name)
        found = self.value(item)
        self._steps.pop()
        return found

    def _object(self, given: dict[Any, Any]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for given_key, item in given.items():
            key = given_key if self._form.any_key or isinstance(given_key, _KEYS) else self._key(given_key)
            if key in found:
                raise Unserializable(f"the result cannot be {self._form.verb}: two keys {key!r} (at {self._path()})")
            found[key] = self._step(key if isinstance(key, str) else str(key), item)
        return found

    def _key(self, given: Any) -> Any:
        try:
            key = self._form.convert(given)
        except Exception:
            key = given
        if isinstance(key, _KEYS):
            return key
        told = hint(given) if isinstance(given, (bytes, memoryview)) else "send str(key)"
        raise Unserializable(
            f"keys must be str, int, float, bool or None, not {named(given)} (at {self._path()}: {given!r:.60}; {told})"
        )

    def _converted(self, value: Any) -> Any:
        try:
            found = self._form.convert(value)
        except RecursionError:
            raise
        except Exception as error:
            dump = getattr(value, "model_dump", None)
            if dump is None or isinstance(value, type):
                raise self._refused(value) from error
            found = dump()  # Pydantic's error has no path
        if found is value:
            raise self._refused(value)
        return found

    def _refused(self, value: Any) -> Unserializable:
        said = self._form.refusal.format(named(value))
        way = hint(value, self._form.binary)
        told = ": ".join(part for part in (f"at {self._path()}" if self._steps else "", way) if part)
        return Unserializable(f"{said} ({told})" if told else said)

    def _path(self) -> str:
        return path_of(self._steps)
