"""Vectors that a method returns are written as its route sends them, whatever they came as."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.decimals import decimals
from gateway.wire.values import Array, Text, decode
from gateway.worker.bodies import results
from gateway.worker.bodies.vectors import pack

ROWS = [[0.1, -2.0, 3e-8], [1.0, 0.0, 65504.0]]
FLOAT32 = numpy.array(ROWS, dtype="<f4")
MATRICES = [
    ROWS,
    tuple(map(tuple, ROWS)),
    FLOAT32,
    FLOAT32.astype("f8"),
    numpy.asfortranarray(FLOAT32),
    torch.tensor(ROWS),
    torch.tensor(ROWS, requires_grad=True),
    list(FLOAT32),
    [torch.tensor(row) for row in ROWS],
]
NO_VECTORS = [
    [],
    [[]],
    [[1.0], [1.0, 2.0]],
    [[float("nan")]],
    [[1e39]],
    [["a"]],
    ["a"],
    "a",
    None,
    {"tokens": [1, 2]},
    [[2**2000]],
]
Finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def rows(value: Any) -> list[bytes]:
    """The texts of the vectors, in the order that they came in."""
    return [row for item in (value if isinstance(value, list) else [value]) for row in item.rows]


@pytest.mark.parametrize("matrix", MATRICES, ids=lambda matrix: type(matrix).__name__)
def test_each_row_is_base64_or_json_of_float32(matrix: Any) -> None:
    assert rows(decode(pack(matrix, "base64"))) == [b'"%b"' % b64encode(row.tobytes()) for row in FLOAT32]
    assert [json.loads(row) for row in rows(decode(pack(matrix, "float")))] == [
        decimals(row) for row in FLOAT32.tolist()
    ]


@pytest.mark.parametrize("matrix", MATRICES[:7], ids=lambda matrix: type(matrix).__name__)
def test_packed_numbers_are_one_array(matrix: Any) -> None:
    assert decode(pack(matrix, "array")) == Array((2, 3), FLOAT32.tobytes())


def test_one_vector_is_one_row() -> None:
    assert (
        decode(pack([0.5, 1.5], "float")) == decode(pack(numpy.array([0.5, 1.5]), "float")) == Text(2, [b"[0.5,1.5]"])
    )
    assert decode(pack([0.5, 1.5], "array")).shape == (2,)


@pytest.mark.parametrize("key", ["data", "embeddings", "embedding"])
def test_vectors_in_a_dict_are_written_and_all_else_stays(key: str) -> None:
    found = decode(pack({key: [[0.5]], "usage": {"prompt_tokens": 3}, "tokens": [[1, 2]]}, "float"))
    assert found == {key: Text(1, [b"[0.5]"]), "usage": {"prompt_tokens": 3}, "tokens": [[1, 2]]}
    assert decode(pack({"data": [{"index": 1, "embedding": [0.5]}]}, "float"))["data"][0]["embedding"] == Text(
        1, [b"[0.5]"]
    )


@pytest.mark.parametrize("form", ["array", "base64", "float"])
@pytest.mark.parametrize("value", NO_VECTORS[:-1], ids=repr)
def test_what_is_no_vector_stays_as_it_is_for_the_gateway_to_name(form: Any, value: Any) -> None:
    assert pack(value, form) == results.pack(value)


@given(st.integers(1, 9).flatmap(lambda width: st.lists(st.lists(Finite, min_size=width, max_size=width), min_size=1)))
def test_numpy_and_plain_python_write_the_same(lists: list[list[float]]) -> None:
    matrix = numpy.array(lists, dtype="<f4")
    for form in ("array", "base64", "float"):
        assert pack(matrix, form) == pack(lists, form)  # type: ignore[arg-type]
