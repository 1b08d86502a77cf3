"""The shortest text of float32, many at once."""

from __future__ import annotations

import random
import struct
from array import array

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire import decimals as module
from gateway.wire.decimals import decimals

FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


def packed(numbers: list[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def float32(*numbers: float) -> list[float]:
    return array("f", numbers).tolist()  # infinity where struct raises


def text(number: float) -> str:
    return msgspec.json.encode(number).decode()


def digits(number: float) -> int:
    """Those of its shortest decimal."""
    return next(count for count in range(1, 18) if float(f"{number:.{count}g}") == number)


def needed(number: float) -> int:
    """How many digits a decimal needs to read back as this float32."""
    return next(count for count in range(1, 10) if count == 9 or float32(float(f"{number:.{count}g}")) == [number])


def test_at_every_power_of_two_and_of_ten_each_is_as_short_as_it_can_be() -> None:
    near = [2.0**power for power in range(-149, 128)] + [10.0**power for power in range(-44, 39)]
    numbers = []
    for number in near:
        [bits] = struct.unpack("<I", packed([number]))
        numbers += [struct.unpack("<f", struct.pack("<I", bits + step))[0] for step in (-1, 0, 1) if bits + step > 0]
    found = decimals(numbers)
    assert packed(found) == packed(numbers)
    assert all(digits(short) <= max(7, needed(number)) for short, number in zip(found, numbers, strict=True))


@given(st.lists(FLOAT32, max_size=20))
def test_each_reads_back_as_the_same_float32_with_no_digit_more_than_it_needs(numbers: list[float]) -> None:
    found = decimals(numbers)
    assert packed([float(text(number)) for number in found]) == packed(numbers)
    assert all(digits(short) <= max(7, needed(number)) for short, number in zip(found, numbers, strict=True) if number)


@given(st.integers(1, 999_999), st.integers(-12, 3), st.booleans())
def test_what_somebody_wrote_with_six_digits_is_written_so_again(whole: int, power: int, minus: bool) -> None:
    written = float(f"{'-' * minus}{whole}e{power}")
    assert decimals(float32(written)) == [written]


def test_a_tenth_is_a_tenth_and_nothing_keeps_its_sign() -> None:
    assert list(map(text, decimals(float32(0.1, 0.0, -0.0, 1.0)))) == ["0.1", "0.0", "-0.0", "1.0"]


def test_of_many_numbers_hardly_one_is_formatted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Formatting is what takes long; the others are rounded together."""
    formatted = []
    monkeypatch.setattr(module, "formatted", lambda number: formatted.append(number) or number)
    drawn = random.Random(1)
    numbers = float32(*(drawn.gauss(0, 0.05) for _ in range(4096)))
    assert packed(decimals(numbers)) == packed(numbers)
    assert len(formatted) < 10
    decimals(float32(1e30))
    assert formatted[-1:] == float32(1e30)
