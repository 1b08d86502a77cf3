from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pytest

from gateway import json_costs
from gateway.dialects.base import Context
from gateway.dialects.plain_json import JsonDialect, written
from gateway.errors import GatewayError, HTTPError, InvalidOutput
from gateway.wire.values import Array, Structured


def encoder() -> Any:
    dialect = JsonDialect()
    return dialect.encoder(dialect.read({"a": 1}, "mine"), Context("m", "0" * 32, 0))


def array(shape: tuple[int, ...], *numbers: float) -> Array:
    return Array(shape, struct.pack(f"<{len(numbers)}f", *numbers))


def test_the_body_is_what_the_method_gets() -> None:
    prepared = JsonDialect().read({"model": "m", "stream": True, "x": None}, "mine")
    assert (prepared.model, prepared.inputs) == ("m", {"model": "m", "stream": True, "x": None})
    with pytest.raises(GatewayError, match="'model' must be a string"):
        JsonDialect().read({"model": 1}, "mine")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("text", "text"),
        ({"a": [1, 0.1, True, None]}, {"a": [1, 0.1, True, None]}),
        ({"error": "is a field like any other"}, {"error": "is a field like any other"}),
        ([array((2, 2), 0.1, 2, 3, 4)], [[[0.1, 2.0], [3.0, 4.0]]]),
        ([array((2, 0)), array((0, 2)), array((0,)), array((2, 1, 0))], [[[], []], [], [], [[[]], [[]]]]),
        ([array((), 2), array((1, 1), 2)], [2.0, [[2.0]]]),
        ({"x": Structured({}, '{"whole": 1}')}, {"x": {"whole": 1}}),
    ],
)
def test_a_value_is_the_whole_answer(value: Any, expected: Any) -> None:
    answer = encoder()
    answer.feed([value])
    assert json.loads(answer.whole()[0]) == expected


def test_numbers_of_a_model_that_can_be_slow_are_read_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(json_costs, "_by_float", msgspec.json.Decoder(float_hook=read.append).decode)
    encoder().feed([Structured({}, f"[{'1e308,' * 40}1]")])
    assert read == ["1e308"] * 40


def test_each_value_is_an_event() -> None:
    assert encoder().feed([1, "a\nb"]) == b'data: 1\n\ndata: "a\\nb"\n\n'


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"rows": [{"x": float("nan")}]}, "the model returned nan, which JSON has no word for (at $.rows[0].x)"),
        ([array((1,), float("inf"))], "the model returned NaN, infinity, or a number beyond 64 bits"),
        ([b"bytes"], "the model returned a bytes, which has no form in JSON (at $[0])"),
        ([array((2, 2), 1, 2, 3)], "an array whose 12 bytes are not of its shape (at $[0])"),
        (array((-1, -1), 1), "an array whose 4 bytes are not of its shape"),
        (array((0,), 1), "an array whose 4 bytes are not of its shape"),
        (array((1 << 40, 0)), "an array whose 0 bytes are not of its shape"),
        (array((1,) * 65, 1), "an array whose 4 bytes are not of its shape"),
        (Structured({}, "no json"), "cannot be written as JSON"),
    ],
)
def test_what_json_has_no_form_for_is_told_with_its_place(value: Any, said: str) -> None:
    with pytest.raises(InvalidOutput) as caught:
        written(value)
    assert said in caught.value.message


def test_what_came_before_a_failure_goes_out_first() -> None:
    answer = encoder()
    assert answer.feed([1, b"", 2]) == b"data: 1\n\n"
    assert isinstance(answer.failure, InvalidOutput)


def test_a_failure_is_an_event_of_its_own_name() -> None:
    name, data, *rest = encoder().fail(HTTPError(400, "no", param="x")).split(b"\n")
    assert (name, rest) == (b"event: error", [b"", b""])
    assert json.loads(data.removeprefix(b"data: "))["error"]["param"] == "x"


def test_nothing_is_no_answer() -> None:
    with pytest.raises(InvalidOutput):
        encoder().whole()
