"""Values of dialect methods as plain data for the gateway, which maps them to events.

Library objects are turned into what msgpack knows: Pydantic models and dataclasses into dicts, arrays and tensors into
packed float32. What a value *means* is decided in the gateway, once, by `dialects/events.py`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import Any

from ..wire import Array, Structured, encode
from .failures import Unserializable

_PLAIN = (str, int, float, bool, type(None))


def pack(value: Any) -> bytes:
    """One value, encoded.

    Raises:
        Unserializable: it holds something that has no plain form.
    """
    if type(value) is str:
        try:
            return encode(value)
        except UnicodeEncodeError:  # a lone surrogate: half of a character that a model cut
            return encode(value.encode("utf-8", "replace").decode())
    try:
        return encode(plain(value))
    except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError) as error:
        raise Unserializable(str(error)) from error


def plain(value: Any) -> Any:
    """The value with every library object in it replaced."""
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
    raise Unserializable(f"a {type(value).__name__} cannot be sent")


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
        packed = numpy.ascontiguousarray(value, dtype="<f4")
        return Array(tuple(packed.shape), packed.tobytes())
    if isinstance(value, numpy.generic):
        return plain(value.item())
    return None
