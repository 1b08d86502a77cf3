"""Vectors that a method returns, as what its route sends: base64 or JSON text of float32, or packed float32.

The worker does this, on the thread of the call: the gateway then splices text into its answer, and holds no number as a
Python object. Values that are not vectors stay as they are, and the gateway says what is wrong with them.
"""

from __future__ import annotations

import sys
from array import array
from binascii import b2a_base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ...wire.decimals import SCALES, decimals, formatted
from ...wire.frames import Vectors
from ...wire.values import Array, Text, is_finite
from . import results

Matrix = Any  # a numpy.ndarray: only models import NumPy
KEYS = ("data", "embeddings", "embedding")  # of dicts, under which vectors are
MOST_TRIED = 3  # digits more than 6 with which a float32 is tried


def pack(value: Any, form: Vectors) -> bytes:
    """One value, encoded as `results.pack` does, with the vectors in it as `form` says.

    Raises:
        Unserializable: it holds something that has no plain form.
    """
    try:
        value = _within(value, form)
    except (TypeError, ValueError, OverflowError, RecursionError, NotImplementedError):
        pass  # whatever it is, it is no vectors
    return results.pack(value)


def _within(value: Any, form: Vectors) -> Any:
    if isinstance(value, Mapping):
        return {key: _within(item, form) if key in KEYS else item for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return _of_list(value, form)
    found = _matrix(value)
    return value if found is None else _written(found, form)


def _of_list(value: Sequence[Any], form: Vectors) -> Any:
    if not value:
        return value
    first = value[0]
    if isinstance(first, (int, float)):
        return _of_rows([array("f", value)], form, one=True) or value
    if isinstance(first, (list, tuple)):
        return _of_rows([array("f", row) for row in value], form) or value
    return [_within(item, form) for item in value]


def _of_rows(rows: list[array[float]], form: Vectors, *, one: bool = False) -> Any:
    """None where they are not as long as each other, empty, or hold what is no finite float32."""
    width = len(rows[0])
    if not width or any(len(row) != width for row in rows):
        return None
    if sys.byteorder == "big":
        for row in rows:
            row.byteswap()
    packed = [row.tobytes() for row in rows]
    if not all(map(is_finite, packed)):
        return None
    if form == "base64":
        return Text(width, [_base64(row) for row in packed])
    if form == "float":
        return Text(width, [msgspec.json.encode(decimals(row)) for row in rows])
    return Array((width,) if one else (len(rows), width), b"".join(packed))


def _matrix(value: Any) -> Matrix | None:
    """A vector, or a row for each vector, of finite float32; None for anything else."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    if numpy is None or not isinstance(value, numpy.ndarray) or value.dtype.kind not in "fiub":
        return None
    if value.ndim not in (1, 2) or not value.size:
        return None
    found = numpy.ascontiguousarray(value, dtype="<f4")
    return found if numpy.isfinite(found).all() else None


def _written(matrix: Matrix, form: Vectors) -> Array | Text:
    width = matrix.shape[-1]
    if form == "array":
        return Array(tuple(matrix.shape), matrix.tobytes())
    rows = matrix.reshape(-1, width)
    if form == "base64":
        return Text(width, [_base64(row) for row in rows])
    return Text(width, [msgspec.json.encode(row) for row in _decimals(rows)])


def _base64(row: Any) -> bytes:
    return b'"' + b2a_base64(row, newline=False) + b'"'


def _decimals(matrix: Matrix) -> list[list[float]]:
    """As `decimals` does, for all rows at once."""
    numpy = sys.modules["numpy"]
    doubles = matrix.astype("f8")
    scales = numpy.array(list(SCALES.values()))[numpy.frexp(matrix)[1] - min(SCALES)]
    with numpy.errstate(all="ignore"):  # some numbers have no scale
        found = numpy.rint(doubles * scales) / scales
        wrong = found.astype("<f4") != matrix
        for _ in range(MOST_TRIED):
            if not wrong.any():
                break
            scales = numpy.where(wrong, scales * 10.0, scales)
            found = numpy.where(wrong, numpy.rint(doubles * scales) / scales, found)
            wrong = found.astype("<f4") != matrix
    for place in zip(*numpy.nonzero(wrong), strict=True):
        found[place] = formatted(float(matrix[place]))
    rows: list[list[float]] = found.tolist()
    return rows
