"""A result that JSON has refused: written after all, or named with the path into it and what would make it fit.

What `json` writes at once never comes here, so those results pay nothing for the look at every value in them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .failures import Unserializable

_KEYS = (str, int, float, type(None))  # a bool is an int
_BYTES = "not UTF-8 text; send base64.b64encode(value).decode()"
_LIST = "send value.tolist()"
# What would make them fit, by the package and the name of a class, for no framework is ours to import.
_HINTS = {
    ("PIL", "Image"): 'save it to an io.BytesIO as "PNG", and send base64.b64encode(buffer.getvalue()).decode()',
    ("jax", "ArrayImpl"): _LIST,
    ("jaxlib", "ArrayImpl"): _LIST,
    ("matplotlib", "Figure"): "savefig it to an io.BytesIO, and send base64.b64encode(buffer.getvalue()).decode()",
    ("pandas", "DataFrame"): 'send value.to_dict(orient="records")',
    ("pandas", "Index"): _LIST,
    ("pandas", "Series"): _LIST,
    ("polars", "DataFrame"): "send value.to_dicts()",
    ("polars", "Series"): "send value.to_list()",
    ("pyarrow", "Table"): "send value.to_pylist()",
    ("scipy", "sparray"): "send value.toarray().tolist()",
    ("scipy", "spmatrix"): "send value.toarray().tolist()",
    ("tensorflow", "Tensor"): "send value.numpy().tolist()",
    ("torch", "Tensor"): _LIST,
}


def plain(value: Any, to_json: Callable[[Any], Any]) -> Any:
    """The value in what JSON knows; `to_json` is the default for what it does not.

    Raises:
        Unserializable: something in it has no form there.
    """
    try:
        return _Walk(to_json).value(value)
    except RecursionError as error:
        raise Unserializable("the result cannot be written as JSON: it is nested too deep") from error


def hint(value: Any) -> str:
    """What its author can do about a value that cannot be sent; empty where nobody knows."""
    for cls in type(value).__mro__:
        if (found := _HINTS.get((cls.__module__.partition(".")[0], cls.__name__))) is not None:
            return found
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _BYTES
    if inspect.isawaitable(value):
        return "await it"
    if isinstance(value, Mapping):
        return "send dict(value)"
    if isinstance(value, Iterator):
        return "send list(value)"
    if isinstance(value, complex):
        return "send [value.real, value.imag]"
    return ""


class _Walk:
    """One look at a result, with the way to where it is."""

    def __init__(self, to_json: Callable[[Any], Any]) -> None:
        self._to_json = to_json
        self._steps: list[str | int] = []
        self._around: set[int] = set()  # ids of what the value is in, for one that holds itself

    def value(self, value: Any) -> Any:
        if value is None or isinstance(value, (str, int, float)):
            return value
        if id(value) in self._around:
            raise Unserializable(f"the result cannot be written as JSON: it holds itself (at {self._path()})")
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
            key = given_key if isinstance(given_key, _KEYS) else self._key(given_key)
            if key in found:
                raise Unserializable(f"the result cannot be written as JSON: two keys {key!r} (at {self._path()})")
            found[key] = self._step(key if isinstance(key, str) else str(key), item)
        return found

    def _key(self, given: Any) -> Any:
        try:
            key = self._to_json(given)
        except Exception:
            key = given
        if isinstance(key, _KEYS):
            return key
        told = hint(given) if isinstance(given, (bytes, memoryview)) else "send str(key)"
        name = type(given).__name__
        raise Unserializable(
            f"keys must be str, int, float, bool or None, not {name} (at {self._path()}: {given!r:.60}; {told})"
        )

    def _converted(self, value: Any) -> Any:
        try:
            found = self._to_json(value)
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
        said = f"Object of type {type(value).__name__} is not JSON serializable"
        told = ": ".join(part for part in (f"at {self._path()}" if self._steps else "", hint(value)) if part)
        return Unserializable(f"{said} ({told})" if told else said)

    def _path(self) -> str:
        path = "$"
        for step in self._steps:
            path += f"[{step}]" if isinstance(step, int) else f".{step}" if step.isidentifier() else f"[{step!r}]"
        return path
