"""Tensors of the Open Inference Protocol: read from JSON, and made from values."""

from __future__ import annotations

import itertools
import math
import operator
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from ...errors import BadRequest, InvalidOutput, TooLarge
from ...wording import counted
from ..events import checked, encode_json
from ..fields import MOST_ECHOED, missing, take, take_range, wrong_type
from ..output_paths import at
from .binary import Packed, pack, unpack

MAX_RANK = 32
MAX_ROWS = 1 << 19  # lists in a request: a row of one byte takes a hundred
PIECE = 1 << 13  # elements checked or written at once: a single C call blocks all other threads
MAX_SIZE = 2**63 - 1  # elements, and bytes: larger numbers are in no request, and long to write in an error
MAX_EMPTY = 1 << 16  # empty rows: they take memory but no bytes of the request
INTEGERS = {f"{sign}INT{bits}": (sign, bits) for sign in ("", "U") for bits in (8, 16, 32, 64)}
FLOATS = ("FP16", "BF16", "FP32", "FP64")
DATATYPES = ("BOOL", *INTEGERS, *FLOATS, "BYTES")
TOO_LARGE = 2**1024 - 2**970  # integers from here on have no float
_WORDS = {"nan": b"NaN", "inf": b"Infinity", "-inf": b"-Infinity"}  # as Python reads them
AS_JSON = {"content_type": "application/json"}


class Tensor(msgspec.Struct, frozen=True):
    """`data` is flat and row-major."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any] | Packed

    def written(self) -> Iterator[bytes]:
        """Yield its JSON as nested lists of its shape, with NaN and infinity as Python's JSON reader accepts them.

        It is written in pieces: no list of a large tensor is made, and other threads get their turn.
        """
        if 0 in self.shape:
            return iter((encode_json(_empty(self.shape)),))
        if not self.shape:
            return iter((self._elements(0, (1,))[1:-1],))
        if len(self.shape) == 1 and self.shape[0] <= PIECE:
            return iter((self._elements(0, self.shape),))
        depth, size = len(self.shape), 1  # of the largest rows that fit in a piece
        while depth > 1 and size * self.shape[depth - 1] <= PIECE:
            depth -= 1
            size *= self.shape[depth]
        return self._rows(0, 0, depth, size)

    def _rows(self, at: int, axis: int, depth: int, size: int) -> Iterator[bytes]:
        yield b"["
        if axis + 1 < depth:
            below = math.prod(self.shape[axis + 1 :])
            for index in range(self.shape[axis]):
                if index:
                    yield b","
                yield from self._rows(at + index * below, axis + 1, depth, size)
        else:
            many = max(1, PIECE // size)
            for start in range(0, self.shape[axis], many):
                rows = min(many, self.shape[axis] - start)
                text = self._elements(at + start * size, (rows, *self.shape[depth:]))
                yield b"," + text[1:-1] if start else text[1:-1]
        yield b"]"

    def _elements(self, at: int, shape: tuple[int, ...]) -> bytes:
        rows = data = self.data[at : at + math.prod(shape)]
        for size in reversed(shape[1:]):
            rows = [rows[start : start + size] for start in range(0, len(rows), size)]
        text = msgspec.json.encode(rows)
        if self.datatype not in FLOATS or are_finite(data):
            return text
        words = [_WORDS[str(item)] for item in data if not math.isfinite(item)]  # msgspec writes these as null
        finite = text.split(b"null")
        return b"".join(itertools.chain(*zip(finite, words, strict=False), finite[-1:]))


def _empty(shape: tuple[int, ...]) -> list[Any]:
    return [_empty(shape[1:]) for _ in range(shape[0])]


def check_rows(tensors: Iterable[Tensor]) -> None:
    """Refuse tensors that would become too many lists.

    Raises:
        TooLarge: they would.
    """
    rows = sum(sum(itertools.accumulate(tensor.shape[:-1], operator.mul)) for tensor in tensors)
    if rows > MAX_ROWS:
        raise TooLarge(f"the tensors have {rows} rows; send at most {MAX_ROWS} in one request", param="inputs")


class Binary:
    """The bytes after the JSON of a request. Tensors take them one after the other."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data, self._at = data, 0

    def take(self, where: str, size: int) -> bytes | memoryview:
        """Return the next bytes.

        Raises:
            BadRequest: there are fewer.
        """
        self._at += size
        if self._at > len(self._data):
            raise BadRequest(
                f"'{where}' declares {counted(size, 'byte')} of binary data, left: {len(self._data) - self._at + size}",
                param=where,
            )
        return self._data[self._at - size : self._at]

    def check_empty(self) -> None:
        """Raise `BadRequest` if bytes are left that belong to no tensor."""
        if left := len(self._data) - self._at:
            raise BadRequest(f"the JSON is followed by {counted(left, 'byte')} that no tensor uses", param="inputs")


def read_tensor(where: str, value: Any, binary: Binary | None = None) -> Tensor:
    """Return the tensor at the JSON path `where` of a request. Its data may be the next bytes of `binary`.

    Raises:
        BadRequest: it does not match its shape or datatype.
    """
    if not isinstance(value, dict):
        raise wrong_type(where, "an object", value)
    parameters = take(value, "parameters", dict, {})
    _refuse(where, parameters, "shared_memory_region")
    size = take_range(parameters, "binary_data_size", 0, MAX_SIZE)
    for name in ("name", "datatype", "shape", *(("data",) if size is None else ())):
        if value.get(name) is None:
            raise missing(f"{where}.{name}")
    name, datatype = take(value, "name", str), take(value, "datatype", str)
    if datatype not in DATATYPES:
        raise BadRequest(f"'{where}.datatype' must be one of {', '.join(DATATYPES)}", param=f"{where}.datatype")
    shape = take(value, "shape", list)
    if len(shape) > MAX_RANK or not all(type(length) is int and length >= 0 for length in shape):
        raise BadRequest(f"'{where}.shape' must be an array of integers that are not negative", param=f"{where}.shape")
    if math.prod(filter(None, shape)) > MAX_SIZE:
        raise BadRequest(f"'{where}.shape' has more elements than any tensor can have", param=f"{where}.shape")
    if 0 in shape and math.prod(shape[: shape.index(0)]) > MAX_EMPTY:
        raise BadRequest(f"'{where}.shape' has more than {MAX_EMPTY} empty rows", param=f"{where}.shape")
    if size is not None:
        if value.get("data") is not None:
            raise BadRequest(f"'{where}' has both `data` and `binary_data_size`", param=where)
        raw = (binary or Binary(b"")).take(where, size)
        return Tensor(name, datatype, tuple(shape), unpack(where, datatype, math.prod(shape), raw))
    data = _flat(f"{where}.data", value["data"], tuple(shape))
    for start in range(0, len(data), PIECE):
        piece = data[start : start + PIECE]
        if datatype in FLOATS and None in piece:  # as MLServer and KServe write it
            data[start : start + PIECE] = piece = [math.nan if item is None else item for item in piece]
        _check_elements(f"{where}.data", datatype, piece)
    return Tensor(name, datatype, tuple(shape), data)


def _flat(where: str, data: Any, shape: tuple[int, ...]) -> list[Any]:
    """Return the elements in row-major order, from flat data or from nested lists of exactly this shape."""
    size = math.prod(shape)
    rows = data if isinstance(data, list) else [data]
    if not any(isinstance(item, list) for item in rows):
        if len(rows) != size:
            raise BadRequest(
                f"'{where}' holds {counted(len(rows), 'element')}; its shape {_shown(shape)} needs {size}", param=where
            )
        return rows
    for depth, length in enumerate(shape):
        if depth:
            if not all(isinstance(item, list) and len(item) == length for item in rows):
                raise BadRequest(f"'{where}' does not have the shape {_shown(shape)}", param=where)
            rows = [element for item in rows for element in item]
        elif len(rows) != length:
            raise BadRequest(f"'{where}' does not have the shape {_shown(shape)}", param=where)
    return rows


def _shown(shape: tuple[int, ...]) -> str:
    return str(list(shape))[:MOST_ECHOED]


def _check_elements(where: str, datatype: str, data: list[Any]) -> None:
    kinds = set(map(type, data))
    if datatype == "BOOL":
        good = kinds <= {bool}
    elif datatype == "BYTES":
        good = kinds <= {str}
    elif datatype in FLOATS:
        good = kinds <= {int, float} and _fit_floats(kinds, data)
    else:
        sign, bits = INTEGERS[datatype]
        least, most = (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        good = kinds <= {int} and (not data or (min(data) >= least and max(data) <= most))
    if not good:
        raise BadRequest(f"'{where}' holds values that are not {datatype}", param=where, code="invalid_type")


def _refuse(where: str, parameters: dict[str, Any], name: str) -> None:
    if parameters.get(name) not in (None, 0):
        raise BadRequest(f"'{where}.parameters.{name}' is not supported", param=where, code="unsupported_value")


def wants_binary(where: str, parameters: dict[str, Any], default: bool) -> bool:
    """Return whether an output is requested as bytes.

    Raises:
        BadRequest: it is requested in another form.
    """
    for name in ("classification", "shared_memory_region"):
        _refuse(where, parameters, name)
    return bool(take(parameters, "binary_data", bool, default))


def as_binary(name: str, value: Any) -> tuple[dict[str, Any], bytes]:
    """Return a value as a tensor without data, and its data. `bytes` need no base64 here."""
    if isinstance(value, bytes):
        tensor, data = described(name, "BYTES", [1]), [value]
    else:
        tensor = to_tensor(name, value)
        data = tensor.pop("data")
    raw = pack(tensor["datatype"], data)
    return {**tensor, "parameters": {**tensor.get("parameters", {}), "binary_data_size": len(raw)}}, raw


def to_tensor(name: str, value: Any) -> dict[str, Any]:
    """Return a value as a flat, row-major tensor.

    Values without a tensor form (null, an object, rows of unequal length) become BYTES with their JSON text, one for
    each item of a list. Bytes become base64.
    """
    if isinstance(value, bytes):
        text = b64encode(value).decode()
        return {**described(name, "BYTES", [1]), "data": [text], "parameters": {"content_type": "base64"}}
    found = measured(value)
    if found is not None and (datatype := datatype_of(found[1])) is not None:
        return {**described(name, datatype, found[0]), "data": found[1]}
    items = value if isinstance(value, list) else [value]
    checked(value, name)
    texts = [encode_json(item).decode() for item in items]
    return {**described(name, "BYTES", [len(texts)]), "data": texts, "parameters": AS_JSON}


def in_json(name: str, data: list[Any], value: Any) -> list[Any]:
    """Return floats of `value` for JSON, with NaN as null, like MLServer and KServe.

    Raises:
        InvalidOutput: one of them is infinity.
    """
    if are_finite(data):
        return data
    if (wrong := next(filter(math.isinf, data), None)) is not None:
        told = f"predict's '{name}' contains infinity{at(wrong, value)}"
        raise InvalidOutput(f"{told}, which only binary tensors can hold: request `binary_data`")
    return [None if math.isnan(item) else item for item in data]


def are_finite(data: list[Any]) -> bool:
    return math.isfinite(sum(data)) or all(map(math.isfinite, data))  # the sum is faster, but may overflow


def measured(value: Any) -> tuple[list[int], list[Any]] | None:
    """Return the shape and elements of nested lists, or None if their lengths differ."""
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
    return "FP64" if kinds <= {int, float} and _fit_floats(kinds, data) else None


def _fit_floats(kinds: set[type], data: list[Any]) -> bool:
    return int not in kinds or all(-TOO_LARGE < item < TOO_LARGE for item in data if type(item) is int)


def described(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}
