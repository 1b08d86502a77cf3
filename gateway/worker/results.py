"""Values of dialect methods as plain data for the gateway, which maps them to events.

Library objects are turned into what msgpack knows: Pydantic models and dataclasses into dicts, arrays and tensors into
packed float32. What a value *means* is decided in the gateway, once, by `dialects/events.py`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from ..weighing import SMALL
from ..wire import MAX_DIMENSIONS, MAX_ITEM, Array, Structured, WireError, check_weight, encode
from . import written
from .failures import Unserializable

_PLAIN = (str, int, float, bool, type(None))


def pack(value: Any) -> bytes:
    """One value, encoded.

    Raises:
        Unserializable: it holds something that has no plain form.
    """
    if type(value) is str:
        try:
            packed = encode(value)
        except UnicodeEncodeError:  # a lone surrogate: half of a character that a model cut
            packed = encode(value.encode("utf-8", "replace").decode())
    else:
        try:
            packed = encode(plain(value))
        except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError) as error:
            written.plain(value, _FORM)
            raise Unserializable(str(error)) from error
    if len(packed) > SMALL:
        _check(packed)
    return packed


def _check(packed: bytes) -> None:
    """As the gateway does, which would end this worker."""
    if len(packed) > MAX_ITEM:
        raise Unserializable(f"{len(packed)} bytes cannot be sent at once, {MAX_ITEM} at most; yield them in parts")
    try:
        check_weight(packed)
    except WireError as error:
        raise Unserializable(f"{error} cannot be sent; return arrays instead of lists, or yield it in parts") from error


def plain(value: Any) -> Any:
    """The value with every library object in it replaced.

    Raises:
        TypeError: there is one of which nobody knows what it means.
    """
    if type(value) in _PLAIN:
        return value
    # subclasses: NumPy's float64, which is a float, and enums, whose own str() is their name
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
    raise TypeError(f"{type(value).__name__} has no plain form")


def _opened(value: Any) -> Any:
    """The same for the value alone, not for those in it."""
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return plain(value)


def _has_a_place(value: Any) -> bool:
    return written.of_msgpack(value) or isinstance(value, (Array, Structured))


_FORM = written.Form(_opened, _has_a_place, "a value of type {} cannot be sent", verb="sent", any_key=True)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else str(key)


def _array(value: Any) -> Any:
    """NumPy arrays and scalars, and torch tensors, without importing either."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    if numpy is None:
        return None
    if isinstance(value, numpy.ndarray) and value.dtype.kind in "fiub":
        if value.ndim == 0:
            return plain(value.item())
        if value.dtype.kind != "f" and value.dtype.itemsize > 2:  # beyond 2**24 float32 has not every integer
            return value.tolist()
        if value.size == 0 or value.ndim > MAX_DIMENSIONS:
            return value.tolist()
        packed = numpy.ascontiguousarray(value, dtype="<f4")
        return Array(tuple(packed.shape), packed.tobytes())
    if isinstance(value, numpy.generic):
        return plain(value.item())
    return None
