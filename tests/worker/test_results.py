"""Values of dialect methods become plain data, library objects and all, or an error that names the type."""

from __future__ import annotations

import dataclasses
import enum
import struct
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from gateway.wire.values import Array, Structured, decode
from gateway.worker.bodies import results
from gateway.worker.bodies.failures import Unserializable
from gateway.worker.bodies.results import pack, plain


class Answer(BaseModel):
    text: str = ""
    score: float = 0.0


@dataclasses.dataclass
class Chunk:
    text: str
    parts: tuple[int, ...] = ()


class Kind(str, enum.Enum):  # noqa: UP042
    STOP = "stop"


@pytest.mark.parametrize("value", ["text", 3, 2.5, True, None, {"a": [1, {"b": None}]}, b"bytes"])
def test_plain_data_stays_as_it_is(value: Any) -> None:
    assert decode(pack(value)) == value


def test_library_objects_are_replaced_wherever_they_are() -> None:
    value = {"a": (Kind.STOP, np.float64(0.5), np.int32(3), np.bool_(True)), 5: Chunk("x", (1, 2))}
    found = plain(value)
    assert found == {"a": ["stop", 0.5, 3, True], "5": {"text": "x", "parts": [1, 2]}}
    assert [type(item) for item in found["a"]] == [str, float, int, bool]


def test_a_pydantic_instance_travels_as_its_set_fields_and_its_json() -> None:
    found = decode(pack([Answer(text="x")]))
    assert found == [Structured({"text": "x"}, '{"text":"x","score":0.0}')]


def test_float_arrays_travel_packed() -> None:
    array = np.arange(6, dtype="float64").reshape(2, 3)
    assert decode(pack({"data": array.T})) == {"data": Array((3, 2), struct.pack("<6f", 0.0, 3.0, 1.0, 4.0, 2.0, 5.0))}


def test_integers_that_float32_has_not_keep_every_digit() -> None:
    big = 2**53 + 1
    assert plain(np.array([big])) == [big]
    assert plain(np.array([[1, 2]], dtype="int8")) == Array((1, 2), struct.pack("<2f", 1.0, 2.0))


def test_arrays_that_hold_nothing_are_lists() -> None:
    assert plain(np.zeros((0, 384))) == []
    assert plain(np.zeros((2, 0))) == [[], []]


def test_a_value_that_would_end_the_worker_at_the_gateway_is_an_error_of_its_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(Unserializable, match="return arrays instead of lists"):
        pack([[{}]] * 600_000)
    monkeypatch.setattr(results, "MAX_ITEM", 100_000)
    for value in ("x" * 200_000, b"x" * 200_000, {"a": ["x" * 200_000]}):
        with pytest.raises(Unserializable, match="in parts"):
            pack(value)


def test_scalars_in_arrays_without_dimensions_are_numbers() -> None:
    assert plain(np.array(3.5)) == 3.5


def test_half_a_character_at_the_end_of_a_text_does_not_break_the_stream() -> None:
    assert decode(pack("ab\ud83d")) == "ab?"


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, [lambda: 0], np.array(["a"]), 2**80], ids=range(6))
def test_what_has_no_plain_form_is_refused_by_name(value: Any) -> None:
    with pytest.raises(Unserializable):
        pack(value)


def test_a_cycle_is_refused_not_fatal() -> None:
    cycle: dict[str, Any] = {}
    cycle["self"] = cycle
    with pytest.raises(Unserializable):
        pack(cycle)
