"""Heads and values survive the channel; what a broken or hostile worker sends is one defined error."""

from __future__ import annotations

import math
import struct

import msgspec
import pytest
from fakes import PATIENT
from hypothesis import given
from hypothesis import strategies as st
from websockets import exceptions, frames

from gateway.wire import frames as wire
from gateway.wire.checks import check_answer, decode_message
from gateway.wire.frames import Ask, Credit, Failure, Hello, Ping, Req, Resp
from gateway.wire.values import (
    ARRAY_EXT,
    MAX_ROWS,
    STRUCTURED_EXT,
    TEXT_EXT,
    Array,
    Structured,
    Text,
    WireError,
    decode,
    encode,
    is_finite,
)

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(max_size=64),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)
HEADS = [
    Req("predict", wire.BYTES, False, "application/json", "id"),
    Ask("is_healthy"),
    Ask("swap_class"),
    Resp(200, wire.DATA, True, False, "", [("a", "b")]),
    Failure(500, "model_error", "text", detail={"a": [1, None]}),
    Credit(3, 4096),
    Ping(7, 0.5),
]


@PATIENT
@given(plain_values)
def test_a_value_survives_the_channel(value: object) -> None:
    assert decode(encode(value)) == value


@PATIENT
@given(st.sampled_from(HEADS), st.binary(max_size=200))
def test_a_head_and_its_body_come_back_as_they_were(head: wire.Head, body: bytes) -> None:
    found, rest = wire.split(type(head), wire.join(head, body))
    assert found == head
    assert bytes(rest) == body


def test_the_body_is_a_view_and_no_copy() -> None:
    payload = wire.join(Credit(1, 1), b"x" * 1000)
    _, body = wire.split(Credit, memoryview(payload))
    assert isinstance(body, memoryview)
    assert body.obj is payload


@PATIENT
@given(st.lists(st.integers(0, 2**32), max_size=wire.WINDOW_ITEMS))
def test_items_packed_one_by_one_are_one_array(values: list[int]) -> None:
    packed = [encode(value) for value in values]
    assert wire.split_items(wire.join_items(packed))[0] == values


@PATIENT
@given(st.lists(st.binary(max_size=300), max_size=wire.WINDOW_ITEMS))
def test_the_size_of_items_is_what_their_sender_counted(items: list[bytes]) -> None:
    packed = [encode(item) for item in items]
    payload = wire.join_items(packed)
    assert wire.split_items(payload, wire.BYTES) == (items, sum(map(len, packed)))


def test_more_items_than_a_window_holds_are_refused_before_they_are_decoded() -> None:
    for payload in (wire.join_items([b"\xc0"] * (wire.WINDOW_ITEMS + 1)), b"\xdd\x00\x01\x00\x00" + b"\xc0" * 65536):
        with pytest.raises(WireError, match="items"):
            wire.split_items(payload)


def test_arrays_travel_as_packed_bytes() -> None:
    array = Array((2, 3), struct.pack("<6f", *range(6)))
    assert decode(encode({"data": [array]})) == {"data": [array]}
    assert decode(encode(Array((), struct.pack("<f", 1.0)))).shape == ()


@given(st.integers(0, 2**32 - 1), st.lists(st.binary(max_size=9).map(lambda row: row.replace(b"\n", b"")), min_size=1))
def test_the_texts_of_vectors_travel_with_their_width(width: int, rows: list[bytes]) -> None:
    text = Text(width, rows)
    assert decode(encode(text)) == text


@pytest.mark.parametrize("payload", [b"", b"\1\0\0", b"\1\0\0\0" + b"\n" * MAX_ROWS])
def test_texts_without_a_width_or_with_too_many_are_refused(payload: bytes) -> None:
    with pytest.raises(WireError):
        decode(msgspec.msgpack.encode(msgspec.msgpack.Ext(TEXT_EXT, payload)))


@given(st.lists(st.floats(width=32), max_size=9))
def test_the_bytes_of_float32_tell_whether_all_are_finite(numbers: list[float]) -> None:
    assert is_finite(struct.pack(f"<{len(numbers)}f", *numbers)) == all(map(math.isfinite, numbers))


def test_structured_results_travel_as_fields_and_text() -> None:
    value = Structured({"a": Array((1,), b"\0\0\0\0")}, '{"a": [0.0]}')
    assert decode(encode([value])) == [value]


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j, lambda: None], ids=lambda value: type(value).__name__)
def test_what_cannot_travel_is_refused_at_the_sender(value: object) -> None:
    with pytest.raises((NotImplementedError, TypeError)):
        encode({"value": value} if not isinstance(value, set) else [object()])


@PATIENT
@given(st.binary(max_size=300))
def test_random_bytes_are_a_value_or_a_wire_error(data: bytes) -> None:
    for read in (decode, wire.split_items, *(lambda d, c=cls: wire.split(c, d) for cls in wire._decoders)):
        try:
            read(data)
        except WireError:
            pass


@PATIENT
@given(st.sampled_from(HEADS), st.data())
def test_a_damaged_head_is_a_head_or_a_wire_error(head: wire.Head, data: st.DataObject) -> None:
    payload = bytearray(wire.join(head, b"body"))
    position = data.draw(st.integers(0, len(payload) - 1))
    payload[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    for damaged in (payload, payload[:cut]):
        try:
            wire.split(type(head), bytes(damaged))
        except WireError:
            pass


@pytest.mark.parametrize(
    "payload",
    [
        b"\xdd\xff\xff\xff\xff",  # an array that claims four billion elements
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 100_000,  # nested beyond any stack
        msgspec.msgpack.encode(msgspec.msgpack.Ext(99, b"")),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(ARRAY_EXT, b"")),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(ARRAY_EXT, b"\xff" + b"\xff" * 1020)),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(ARRAY_EXT, b"\x01\x02\0\0\0abcd")),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(STRUCTURED_EXT, encode(["only one"]))),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(STRUCTURED_EXT, encode(5))),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(STRUCTURED_EXT, b"")),
        b"\xa2\xff\xfe",  # a string that is no UTF-8
        b"",
    ],
    ids=range(13),
)
def test_hostile_msgpack_is_a_wire_error(payload: bytes) -> None:
    with pytest.raises(WireError):
        decode(payload)


def test_structured_nested_in_itself_without_end_is_a_wire_error() -> None:
    payload = encode([{}, ""])
    for _ in range(3000):
        fields = b"\x81\xa1a" + msgspec.msgpack.encode(msgspec.msgpack.Ext(STRUCTURED_EXT, payload))
        payload = b"\x92" + fields + b"\xa0"
        if len(payload) > 200_000:
            break
    with pytest.raises(WireError):
        decode(payload)


@pytest.mark.parametrize(
    ("head", "cls"),
    [(["predict", 0], Req), ([200, 1, "yes", False, ""], Resp), (["x", 1], Credit), ({}, Hello), (["predict"], Ask)],
)
def test_a_head_of_the_wrong_shape_is_refused(head: object, cls: type[wire.Head]) -> None:
    packed = encode(head)
    with pytest.raises(WireError, match=cls.__name__):
        wire.split(cls, wire.HEAD_SIZE.pack(len(packed)) + packed)


def test_a_head_longer_than_its_payload_is_refused() -> None:
    with pytest.raises(WireError):
        wire.split(Credit, wire.HEAD_SIZE.pack(1000) + b"\x90")
    with pytest.raises(WireError):
        wire.split(Credit, b"\x01")


@pytest.mark.parametrize("status", [0, -1, 99, 101, 199, 600, 70_000])
def test_a_status_that_is_no_answer_is_refused(status: int) -> None:
    with pytest.raises(WireError):
        check_answer(status, [])


@pytest.mark.parametrize(
    "header",
    [
        ("x-a", "1\r\nset-cookie: stolen=1"),
        ("x-a", "1\nb"),
        ("x-a\r\nb", "1"),
        ("x a", "1"),
        ("", "1"),
        ("x-a", "\0"),
        ("x-a", "€"),
        ("x-é", "1"),
    ],
)
def test_a_header_that_would_forge_an_answer_is_refused(header: tuple[str, str]) -> None:
    with pytest.raises(WireError):
        check_answer(200, [("x-good", "yes"), header])


def test_good_answers_pass() -> None:
    check_answer(204, [])
    check_answer(503, [("Retry-After", "3"), ("x-é"[:2] + "e", "ünïcode in latin-1\tand a tab")])


def test_kinds_have_names() -> None:
    assert wire.name_of(wire.SHUTDOWN) == "shutdown"
    assert wire.name_of(0) == "unknown (0)"
    assert wire.name_of(63) == "unknown (63)"
    assert len(wire.NAMES) == wire.RECALL + 1


@pytest.mark.parametrize("code", [*range(995, 1020), 2999, 3000, 4999, 5000, -1, 65536 + 1000])
def test_a_websocket_is_closed_as_it_can_be_and_otherwise_the_worker_is_ended(code: int) -> None:
    """The library that closes it would raise in the gateway."""
    for reason in ("", "x" * 123, "x" * 124, "\N{LATIN SMALL LETTER E WITH ACUTE}" * 62):
        try:
            frames.Close(code, reason).check()
            can_be = len(reason.encode()) <= 123
        except exceptions.ProtocolError:
            can_be = False
        payload = encode(["close", [code, reason]])
        if can_be:
            assert decode_message(payload) == ("close", (code, reason))
        else:
            with pytest.raises(WireError):
                decode_message(payload)
