"""Convert results of dialect methods to plain data. The gateway maps them to events.

Library objects become msgpack types: Pydantic models and dataclasses become dicts, arrays and tensors packed float32.
`dialects/events.py` in the gateway decides what a value means.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from ...wire.frames import MAX_ITEM
from ...wire.values import MAX_DIMENSIONS, Array, Structured, Text, WireError, check_weight, encode
from ...wire.weighing import SMALL
from . import unwritable_results
from .failures import Unserializable

_PLAIN = (str, int, float, bool, type(None))


def pack(value: Any) -> bytes:
    """Encode one value.

    Raises:
        Unserializable: part of it has no plain form.
    """
    if type(value) is str:
        try:
            packed = encode(value)
        except UnicodeEncodeError:  # a lone surrogate: the model cut a character in half
            packed = encode(value.encode("utf-8", "replace").decode())
    else:
        try:
            packed = encode(plain(value))
        except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError) as error:
            unwritable_results.plain(value, _FORM)
            raise Unserializable(str(error)) from error
    if len(packed) > SMALL:
        _check(packed)
    return packed


def _check(packed: bytes) -> None:
    """Apply the gateway's checks here: the gateway would end this worker."""
    if len(packed) > MAX_ITEM:
        raise Unserializable(f"{len(packed)} bytes cannot be sent at once, {MAX_ITEM} at most; yield them in parts")
    try:
        check_weight(packed)
    except WireError as error:
        raise Unserializable(f"{error} cannot be sent; return arrays instead of lists, or yield it in parts") from error


def plain(value: Any) -> Any:
    """Return the value with every library object in it replaced.

    Raises:
        TypeError: a type that is not supported.
    """
    if type(value) in _PLAIN:
        return value
    # for subclasses: NumPy's float64 is a float; str() of an enum is its name
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    base = getattr(sys.modules.get("pydantic"), "BaseModel", None)
    if base is not None and isinstance(value, base):
        fields = value.model_dump(mode="json", exclude_unset=True)
        return Structured(fields, value.model_dump_json())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    array = _array(value)
    if array is not None:
        return array
    if isinstance(value, (Array, Text)):  # what `vectors` has made
        return value
    raise TypeError(f"{type(value).__name__} has no plain form")


def _opened(value: Any) -> Any:
    """Like `plain`, but for the value itself only, not for values inside it."""
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return plain(value)


def _has_a_place(value: Any) -> bool:
    return unwritable_results.of_msgpack(value) or isinstance(value, (Array, Structured, Text))


_FORM = unwritable_results.Form(_opened, _has_a_place, "a value of type {} cannot be sent", verb="sent", any_key=True)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(key)


def _array(value: Any) -> Any:
    """Convert NumPy arrays and scalars and torch tensors, without importing either library."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    if numpy is None:
        return None
    if isinstance(value, numpy.ndarray) and value.dtype.kind in "fiub":
        if value.ndim == 0:
            return plain(value.item())
        if value.dtype.kind != "f" and value.dtype.itemsize > 2:  # float32 is exact up to 2**24 only
            return value.tolist()
        if value.size == 0 or value.ndim > MAX_DIMENSIONS:
            return value.tolist()
        packed = numpy.ascontiguousarray(value, dtype="<f4")
        return Array(tuple(packed.shape), packed.tobytes())
    if isinstance(value, numpy.generic):
        return plain(value.item())
    return None
