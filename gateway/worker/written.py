"""A result that cannot be written: written after all, or named with the path into it and what would make it fit.

What is written at once never comes here, so those results pay nothing for the look at every value in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..wording import path_of
from .failures import Unserializable
from .hints import hint, named

_KEYS = (str, int, float, type(None))  # a bool is an int


@dataclass(frozen=True, slots=True)
class Form:
    """A way to write values. `convert` makes of a value it does not know one that it does, or raises."""

    convert: Callable[[Any], Any]
    holds: Callable[[Any], bool]  # whether it has a place for a value that holds no others
    refusal: str  # of a value, by the name of its type
    verb: str = "written as JSON"
    binary: bool = False  # bytes and arrays fit better than text and lists
    any_key: bool = False  # for keys of dicts, too


def of_json(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def of_msgpack(value: Any) -> bool:
    """What has a place there: text that is whole, whole numbers of 64 bits."""
    if isinstance(value, str):
        return not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    return value is None or isinstance(value, (float, bytes, bytearray, memoryview))


def plain(value: Any, form: Form) -> Any:
    """The value in what the form knows.

    Raises:
        Unserializable: something in it has no place there.
    """
    try:
        return _Walk(form).value(value)
    except RecursionError as error:
        raise Unserializable(f"the result cannot be {form.verb}: it is nested too deep") from error


class _Walk:
    """One look at a result, with the way to where it is."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._steps: list[str | int] = []
        self._around: set[int] = set()  # ids of what the value is in, for one that holds itself

    def value(self, value: Any) -> Any:
        if self._form.holds(value):
            return value
        if id(value) in self._around:
            raise Unserializable(f"the result cannot be {self._form.verb}: it holds itself (at {self._path()})")
        if isinstance(value, (str, int)):  # which would be converted to itself
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
            found = dump()  # Pydantic says what is wrong, but not where
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
