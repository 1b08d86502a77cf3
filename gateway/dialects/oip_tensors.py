"""Tensors of the Open Inference Protocol, read from JSON and made of values."""

from __future__ import annotations

import math
from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import msgspec

from ..errors import BadRequest
from .base import missing, take, wrong_type

MAX_RANK = 32
INTEGERS = {f"{sign}INT{bits}": (sign, bits) for sign in ("", "U") for bits in (8, 16, 32, 64)}
FLOATS = ("FP16", "BF16", "FP32", "FP64")
DATATYPES = ("BOOL", *INTEGERS, *FLOATS, "BYTES")
AS_JSON = {"content_type": "application/json"}


@dataclass(frozen=True, slots=True)
class Tensor:
    """`data` is flat and row-major."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]

    def nested(self) -> Any:
        """Lists within lists, as deep as the shape."""
        rows = self.data
        for size in reversed(self.shape[1:]):
            rows = [rows[start : start + size] for start in range(0, len(rows), size)]
        return rows if self.shape else rows[0]


def read_tensor(where: str, value: Any) -> Tensor:
    """A tensor of a request, which is at the JSON path `where`.

    Raises:
        BadRequest: it is not what its shape and its datatype say.
    """
    if not isinstance(value, dict):
        raise wrong_type(where, "an object", value)
    for name in ("name", "datatype", "shape", "data"):
        if value.get(name) is None:
            if name == "data" and "binary_data_size" in take(value, "parameters", dict, {}):
                raise BadRequest("binary tensors are not supported; send `data`", param=where, code="unsupported_value")
            raise missing(f"{where}.{name}")
    name, datatype = take(value, "name", str), take(value, "datatype", str)
    if datatype not in DATATYPES:
        raise BadRequest(f"'{where}.datatype' must be one of {', '.join(DATATYPES)}", param=f"{where}.datatype")
    shape = take(value, "shape", list)
    if len(shape) > MAX_RANK or not all(type(size) is int and size >= 0 for size in shape) or 0 in shape[1:]:
        raise BadRequest(f"'{where}.shape' must be an array of positive integers", param=f"{where}.shape")
    data = _flat(f"{where}.data", value["data"], tuple(shape))
    _check_elements(f"{where}.data", datatype, data)
    return Tensor(name, datatype, tuple(shape), data)


def _flat(where: str, data: Any, shape: tuple[int, ...]) -> list[Any]:
    """The elements in row-major order, from flat data or from lists within lists of exactly this shape."""
    size = math.prod(shape)
    rows = data if isinstance(data, list) else [data]
    if not any(isinstance(item, list) for item in rows):
        if len(rows) != size:
            raise BadRequest(f"'{where}' holds {len(rows)} elements, its shape {list(shape)} is of {size}", param=where)
        return rows
    for depth, length in enumerate(shape):
        if depth:
            if not all(isinstance(item, list) and len(item) == length for item in rows):
                raise BadRequest(f"'{where}' does not have the shape {list(shape)}", param=where)
            rows = [element for item in rows for element in item]
        elif len(rows) != length:
            raise BadRequest(f"'{where}' does not have the shape {list(shape)}", param=where)
    return rows


def _check_elements(where: str, datatype: str, data: list[Any]) -> None:
    kinds = set(map(type, data))
    if datatype == "BOOL":
        good = kinds <= {bool}
    elif datatype == "BYTES":
        good = kinds <= {str}
    elif datatype in FLOATS:
        good = kinds <= {int, float}
    else:
        sign, bits = INTEGERS[datatype]
        least, most = (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        good = kinds <= {int} and (not data or (min(data) >= least and max(data) <= most))
    if not good:
        raise BadRequest(f"'{where}' holds what is no {datatype}", param=where, code="invalid_type")


def to_tensor(name: str, value: Any) -> dict[str, Any]:
    """A value as a tensor, flat and row-major. What is none (null, an object, rows of unequal length) is BYTES with its
    JSON text, one for each item of a list; bytes are base64.
    """
    if isinstance(value, bytes):
        text = b64encode(value).decode()
        return {**described(name, "BYTES", [1]), "data": [text], "parameters": {"content_type": "base64"}}
    found = measured(value)
    if found is not None and (datatype := datatype_of(found[1])) is not None:
        return {**described(name, datatype, found[0]), "data": found[1]}
    items = value if isinstance(value, list) else [value]
    texts = [msgspec.json.encode(item).decode() for item in items]
    return {**described(name, "BYTES", [len(texts)]), "data": texts, "parameters": AS_JSON}


def measured(value: Any) -> tuple[list[int], list[Any]] | None:
    """Shape and elements; None when its lists are not all as long."""
    if not isinstance(value, list):
        return [1], [value]
    shape, rows = [len(value)], value
    while rows and all(isinstance(row, list) for row in rows):
        shape.append(len(rows[0]))
        if any(len(row) != shape[-1] for row in rows):
            return None
        rows = [item for row in rows for item in row]
    return shape, rows


def datatype_of(data: list[Any]) -> str | None:
    kinds = set(map(type, data))
    if kinds == {bool}:
        return "BOOL"
    if kinds == {str}:
        return "BYTES"
    if kinds == {int}:
        least, most = min(data), max(data)
        if least >= -(2**63) and most < 2**63:
            return "INT64"
        return "UINT64" if least >= 0 and most < 2**64 else None
    return "FP64" if kinds <= {int, float} else None


def described(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}
