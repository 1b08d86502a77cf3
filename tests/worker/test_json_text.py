"""JSON of the worker is that of the standard library, to the byte, however large the parts of a value are."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy
import pytest
from costs import least_ratio
from hypothesis import given
from hypothesis import strategies as st

from gateway.worker.bodies.json_text import BLOCK, FEW, LONG, MANY, Writer, loads


def default(value: Any) -> Any:
    if isinstance(value, numpy.ndarray):
        return value.tolist()
    raise TypeError(f"no {type(value).__name__}")


write = Writer(default)
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.floats(1e-6, 1e-3),
    st.floats(1e14, 1e18),
    st.integers(-(2**70), 2**70),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, st.text())
large = st.one_of(
    st.builds(lambda text: (text + "a") * LONG, st.text(max_size=3)),
    st.builds(
        lambda text: text * LONG, st.sampled_from(["\x7f", '"', "\\", "/", "\n", "\x00", "plain", "\u2028", "<"])
    ),
    st.builds(lambda some, times: some * times, st.lists(numbers, min_size=1, max_size=8), st.integers(1, BLOCK)),
    st.builds(lambda some, one: some * MANY + [one], st.lists(numbers, min_size=1, max_size=3), leaves),
    st.builds(lambda some: numpy.array(some * MANY), st.lists(st.floats(width=32), min_size=1, max_size=3)),
)
values = st.recursive(
    leaves | large,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=6,
)


@given(value=values)
def test_a_value_is_written_as_the_standard_library_writes_it(value: Any) -> None:
    assert write(value) == json.dumps(value, default=default).encode()


@given(text=values.map(lambda value: json.dumps(value, default=default).encode()))
def test_a_document_is_read_as_the_standard_library_reads_it(text: bytes) -> None:
    assert same(loads(text), json.loads(text))


@given(text=st.text(alphabet='[]{},:"\\u0123456789eE+-. \t\n\x0cantrulfsINy\ud800\x00\x7fé', max_size=30))
def test_whatever_is_read_as_a_document_is_the_same_and_so_is_what_is_refused(text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")
    assert same(outcome(loads, body), outcome(json.loads, body))


@pytest.mark.parametrize(
    "body",
    [
        *(b"-0", b"-0.0", b"1e400", b"-1e400", b"1e-400", b"NaN", b"-Infinity", b"123456789012345678901234567890"),
        *(b"5e-324", b"2.2250738585072011e-308", b"9007199254740993.0", b"1234567890123456789012e-3"),
        *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\\/"', b'"\x7f"', b'"\x01"'),
        *(b'{"a": 1, "b": 2, "a": 3}', b"[1,]", b"01", b"1.", b"[]x", b" \r\n\t1 ", b"\x0c1", b"", b"  "),
        *('{"é": 1}'.encode("utf-16"), "[1]".encode("utf-32"), b"\xef\xbb\xbf1", b'"\xff"', b'"\xed\xa0\x80"'),
        *(b"1" * 4300, b"1" * 4301, b"[" * 100_000, b"[" * 500 + b"]" * 500),
    ],
    ids=lambda body: f"{body[:12]!r} {len(body)}",
)
def test_odd_documents_are_read_or_refused_as_the_standard_library_does(body: bytes) -> None:
    assert same(outcome(loads, body), outcome(json.loads, body))


@pytest.mark.parametrize("place", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 1])
@pytest.mark.parametrize(
    "odd", [1e16, 1e-5, 9.9e-5, 1e-7, -1e22, math.nan, math.inf, 2**64, -(2**63) - 1, True, "1,2", None]
)
def test_one_odd_number_among_many_is_written_as_ever(place: int, odd: Any) -> None:
    value = {"embedding": [0.5] * (3 * BLOCK)}
    value["embedding"][place] = odd
    assert write(value) == json.dumps(value).encode()


def test_parts_beyond_those_that_are_looked_at_are_written_too() -> None:
    text = "x" * LONG
    deep: Any = text
    for _ in range(20):
        deep = [deep, {"a": deep}] if len(json.dumps(deep)) < 1 << 20 else [deep]
    for value in ([text] * (FEW + 1), {str(number): text for number in range(FEW + 1)}, deep, {1: text}, {"": text}):
        assert write(value) == json.dumps(value).encode()


def test_what_cannot_be_written_raises_what_it_always_did() -> None:
    around: list[Any] = ["x" * LONG]
    around.append(around)
    for value, kind in (
        ({"a": "x" * LONG, "b": object()}, TypeError),
        (around, ValueError),
        ([1.0] * MANY + [{1}], TypeError),
    ):
        with pytest.raises(kind) as expected:
            json.dumps(value, default=default)
        with pytest.raises(kind) as raised:
            write(value)
        assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize(
    "number", [b"1.5", b"123456789", b"9e307", b"9007199254740993e0", b"9" * 100, b"1" * 40 + b".5"]
)
def test_no_number_takes_much_longer_than_the_standard_library_needs(number: bytes) -> None:
    body = b"[%b]" % b",".join([number] * 1000)
    assert least_ratio(lambda: loads(body), lambda: json.loads(body), enough=10) < 10  # sixty times and more without


@pytest.mark.parametrize("body", [b'{"a": 1}', b"NaN", b"", b"[1,]"], ids=repr)
def test_a_view_of_a_body_is_read_like_its_bytes(body: bytes) -> None:
    assert same(outcome(loads, memoryview(body)), outcome(json.loads, body))


def outcome(read: Any, body: bytes) -> Any:
    try:
        return read(body)
    except (ValueError, RecursionError) as error:
        return type(error), str(error) if isinstance(error, ValueError) else ""


def same(one: Any, other: Any) -> bool:
    """Equal, of the same types, in the same order, with the sign of zero, and with NaN equal to itself."""
    return repr(one) == repr(other)
