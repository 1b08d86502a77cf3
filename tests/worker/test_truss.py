"""Bodies of Truss-style routes, JSON and msgpack, in and out, in Truss's words."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import uuid
from typing import Any

import msgpack
import numpy as np
import pytest
from fakes import PATIENT
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from gateway.worker.bodies import truss
from gateway.worker.bodies.failures import BadInput, Unserializable
from gateway.worker.loading.descriptor import Method

JSON, BINARY = "application/json", "application/octet-stream"


class Item(BaseModel):
    value: int


class In(BaseModel):
    items: list[Item] = []
    name: str = ""


@dataclasses.dataclass
class Point:
    x: int
    where: pathlib.PurePosixPath


class Colour(enum.Enum):
    RED = "red"


def method(input_type: Any = None) -> Method:
    return Method("predict", lambda x: x, "sync", "inputs", input_type)


def read(body: bytes, content_type: str = JSON, typed: Any = None) -> Any:
    return truss.read(body, content_type, method(typed))


def refused(body: bytes, content_type: str = JSON, typed: Any = None) -> BadInput:
    with pytest.raises(BadInput) as caught:
        read(body, content_type, typed)
    return caught.value


# ── JSON in ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("content_type", [JSON, "text/plain", "", "application/x-www-form-urlencoded"])
def test_any_content_type_but_octet_stream_is_json(content_type: str) -> None:
    assert read(b'{"a": [1, null, "x"]}', content_type) == {"a": [1, None, "x"]}


@pytest.mark.parametrize("text", ["null", '"text"', "[1]", "3", "true", "-1.5e3"])
def test_any_json_value_is_an_input(text: str) -> None:
    assert read(text.encode()) == json.loads(text)


def test_nan_other_encodings_and_doubled_keys_are_read_as_python_does() -> None:
    assert math.isnan(read(b"NaN"))
    assert read(b'{"a": 1, "a": 2}') == {"a": 2}
    for encoding in ("utf-16", "utf-32", "utf-8-sig"):
        assert read('"ä"'.encode(encoding)) == "ä"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b"",
            "Invalid JSON payload: Expecting value: line 1 column 1 (char 0); the body is empty",
        ),
        (b"{", "Invalid JSON payload: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"[1] 2", "Invalid JSON payload: Extra data: line 1 column 5 (char 4)"),
    ],
)
def test_malformed_json_is_400_with_pythons_words(body: bytes, message: str) -> None:
    error = refused(body)
    assert (error.message, error.code) == (message, "invalid_json")


@pytest.mark.parametrize("body", [b'"\xff"', b"[" * 100_000, b"1" * 5000], ids=["utf-8", "nesting", "digits"])
def test_json_that_python_cannot_read_is_400_too(body: bytes) -> None:
    assert refused(body).message.startswith("Invalid JSON payload: ")
    assert refused(body, typed=In).message.startswith("Input Parsing Error:\n  the body: ")


# ── typed inputs ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_typed_input_is_an_instance() -> None:
    assert read(b'{"items": [{"value": "3"}]}', typed=In) == In(items=[Item(value=3)])
    assert read(msgpack.packb({"items": [{"value": 3}]}), BINARY, In) == In(items=[Item(value=3)])


def test_the_words_of_typed_errors_are_trusss() -> None:
    error = refused(b'{"items": [{"value": "x"}, {}]}', typed=In)
    assert error.message == (
        "Input Parsing Errors:\n"
        "  `items[0].value`: Input should be a valid integer, unable to parse string as an integer.\n"
        "  `items[1].value`: Field required."
    )
    assert error.param == "items[0].value"
    assert refused(b"", typed=In).message == (
        "Input Parsing Error:\n  the body: Expecting value: line 1 column 1 (char 0); the body is empty."
    )
    assert refused(b"[]", typed=In).message == (
        "Input Parsing Error:\n  the body: Input should be a valid dictionary or instance of In."
    )
    assert "items[0].value" in refused(msgpack.packb({"items": [{"value": "x"}]}), BINARY, In).message


def test_an_exception_of_a_validator_that_is_no_validation_error_is_the_models_own() -> None:
    class Strange:
        @classmethod
        def model_validate(cls, value: Any) -> Any:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        truss.validate({}, Strange)


# ── binary ───────────────────────────────────────────────────────────────────────────────────────────────────────────

VALUES = [
    {"a": [1, 2.5, None, "x", b"y", True]},
    dt.datetime(2024, 5, 6, 7, 8, 9, 10),
    dt.datetime(2024, 5, 6, tzinfo=dt.UTC),
    dt.date(2024, 5, 6),
    dt.time(7, 8, 9),
    dt.timedelta(days=-3, seconds=5, microseconds=7),
    decimal.Decimal("1.10"),
    uuid.UUID(int=5),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_binary_value_survives_there_and_back(value: Any) -> None:
    body, content_type = truss.write({"value": value}, True)
    assert content_type == BINARY
    assert read(body, "Application/Octet-Stream; charset=x") == {"value": value}


def test_the_tags_are_trusss() -> None:
    packed = msgpack.unpackb(truss.pack(dt.datetime(2024, 5, 6, tzinfo=dt.UTC)), raw=False)
    assert packed == {b"__dt_datetime_iso__": True, b"data": "2024-05-06T00:00:00Z"}
    assert msgpack.unpackb(truss.pack(dt.timedelta(1, 2, 3))) == {b"__dt_timedelta__": True, b"data": [1, 2, 3]}
    assert msgpack.unpackb(truss.pack(decimal.Decimal("1.0"))) == {b"__decimal__": True, b"data": "1.0"}


@pytest.mark.parametrize("dtype", ["<i8", "<f4", "|b1", "<f2", "<U3", "<M8[s]"])
def test_arrays_survive_there_and_back(dtype: str) -> None:
    array = np.array([[1, 0], [1, 1]]).astype(dtype)
    found = read(truss.pack({"a": array, "b": array[0]}), BINARY)
    np.testing.assert_array_equal(found["a"], array)
    assert found["a"].dtype == array.dtype
    np.testing.assert_array_equal(found["b"], array[0])


def test_records_scalars_and_odd_shapes_survive_too() -> None:
    records = np.array([(1, 2.0, "a")], dtype=[("x", "<i4"), ("y", "<f8"), ("z", "<U2")])
    found = read(truss.pack([records, np.float32(1.5), np.zeros((0, 3)), np.arange(6).reshape(2, 3).T]), BINARY)
    assert found[0].tolist() == records.tolist()
    assert found[1] == np.float32(1.5)
    assert found[2].shape == (0, 3)
    assert found[3].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_object_arrays_which_hide_pickles_are_refused_both_ways() -> None:
    with pytest.raises(Unserializable):
        truss.pack(np.array([object()]))
    for payload in (
        {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": b"cos\nsystem\n"},
        {b"nd": True, b"type": "|O", b"kind": b"", b"shape": [1], b"data": b"12345678"},
        {b"nd": True, b"type": [["a", "|O"]], b"kind": b"V", b"shape": [1], b"data": b"12345678"},
        {b"nd": False, b"type": "|O", b"data": b"12345678"},
    ):
        assert "unsupported payload" in refused(msgpack.packb(payload), BINARY).message


@pytest.mark.parametrize("body", [b"", b"\x92\x01", b"\xc1", b"\x81\xc4\x0b__decimal__\xc3"])
def test_broken_msgpack_is_400(body: bytes) -> None:
    try:
        value = read(body, BINARY)
    except BadInput as error:
        assert error.code == "invalid_json"
    else:
        assert value == {b"__decimal__": True}  # a tag without its data is a plain map


@PATIENT
@given(st.binary(max_size=200))
def test_random_bytes_are_a_value_or_400(body: bytes) -> None:
    for content_type in (JSON, BINARY):
        for typed in (None, In):
            try:
                read(body, content_type, typed)
            except BadInput:
                pass


def test_aware_times_are_refused() -> None:
    with pytest.raises(Unserializable):
        truss.pack(dt.time(1, tzinfo=dt.UTC))


# ── out ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def written(value: Any) -> str:
    body, content_type = truss.write(value, False)
    assert content_type == JSON
    return body.decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": 1, "b": [1, 2]}, '{"a": 1, "b": [1, 2]}'),
        ("ä", '"\\u00e4"'),
        (None, "null"),
        ((1, True), "[1, true]"),
        ({1: "x", None: "y"}, '{"1": "x", "null": "y"}'),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        (In(name="x"), '{"items":[],"name":"x"}'),
        ([Item(value=1)], '[{"value": 1}]'),
        ({"a": {"b": Item(value=1)}}, '{"a": {"b": {"value": 1}}}'),
        (Point(1, pathlib.PurePosixPath("/a")), '{"x": 1, "where": "/a"}'),
        ({3}, "[3]"),
        (dt.datetime(2024, 5, 6, tzinfo=dt.UTC), '"2024-05-06T00:00:00Z"'),
        (dt.date(2024, 5, 6), '"2024-05-06"'),
        (dt.time(1, 2), '"01:02:00"'),
        (dt.timedelta(days=1, seconds=2), '"P1DT2S"'),
        (dt.timedelta(seconds=-1.5), '"-PT1.5S"'),
        (decimal.Decimal("1.10"), '"1.10"'),
        (uuid.UUID(int=0), '"00000000-0000-0000-0000-000000000000"'),
        (Colour.RED, '"red"'),
        ({"a": b"bytes"}, '{"a": "bytes"}'),
        (np.bool_(True), "true"),
        (np.float32(0.5), "0.5"),
        (np.array([[1, 2]]), "[[1, 2]]"),
        ({"a": np.int64(3)}, '{"a": 3}'),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_result_is_json_as_truss_writes_it_with_more_types(value: Any, text: str) -> None:
    assert written(value) == text


def test_bytes_are_the_raw_body_in_both_modes() -> None:
    assert truss.write(b"raw", False) == (b"raw", BINARY)
    assert truss.write(bytearray(b"raw"), True) == (b"raw", BINARY)


def test_a_binary_answer_holds_models_and_sets_as_plain_data() -> None:
    assert msgpack.unpackb(truss.pack(In(name="x"))) == {"items": [], "name": "x"}
    assert msgpack.unpackb(truss.pack([Item(value=1), {2}])) == [{"value": 1}, [2]]


@pytest.mark.parametrize("value", [object(), {"a": lambda: 0}, {(1, 2): 3}, range(3)], ids=range(4))
def test_what_has_no_form_says_which_type(value: Any) -> None:
    with pytest.raises(Unserializable):
        truss.write(value, False)
    if not isinstance(value, dict) or (1, 2) not in value:
        with pytest.raises(Unserializable):
            truss.write(value, True)


def test_a_complex_number_has_a_form_in_binary_only() -> None:
    assert read(truss.pack({"z": -1j}), BINARY) == {"z": -1j}
    with pytest.raises(Unserializable):
        truss.write(1j, False)


def test_a_cycle_and_a_huge_integer_are_refused_not_fatal() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    with pytest.raises(Unserializable):
        truss.write(cycle, False)
    with pytest.raises(Unserializable):
        truss.write(2**70, True)
    assert written(2**70) == str(2**70)


@pytest.mark.parametrize(
    ("item", "chunk"),
    [("ä", "ä".encode()), (b"\xff", b"\xff"), ("\ud800", b"?"), (3, b"3"), ({"a": 1}, b'{"a": 1}'), (None, b"null")],
)
def test_items_of_a_stream_of_text_are_text_bytes_or_their_json(item: Any, chunk: bytes) -> None:
    assert truss.chunk(item) == chunk


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("first", ["", "text", b"", bytearray(b"x"), memoryview(b"x")])
def test_a_stream_that_begins_with_text_or_bytes_is_framed_by_its_author(first: Any, events: bool) -> None:
    assert truss.chunker(first, events) == (truss.chunk, truss.BINARY)


@pytest.mark.parametrize("first", [{}, [], (), 0, 1.5, True, None, dt.date(2026, 1, 2)])
def test_any_other_stream_is_json_a_line_or_an_event_each(first: Any) -> None:
    line, lines = truss.chunker(first, False)
    event, events = truss.chunker(first, True)
    assert (lines, events) == ("application/x-ndjson", "text/event-stream")
    for item, document in (("a\nb", b'"a\\nb"'), (b"b", b'"b"'), ({"a": float("nan")}, b'{"a": NaN}')):
        assert (line(item), event(item)) == (document + b"\n", b"data: " + document + b"\n\n")
    with pytest.raises(Unserializable, match=r"base64\.b64encode"):
        line(b"\xff")
