"""What JSON costs to read, counted before it is read; and the reader that costs so much.

Decoding is one call, during which no other thread runs, so its duration must be known before. All counting is done in C
and piece by piece. The prices are in nanoseconds, upper bounds for a usual machine.

Most numbers take the decoder nanoseconds, but some take 30 microseconds: it divides and multiplies long integers. By
how it works, a number can be among them only if

1. it has 20 digits or more, without zeros at the beginning, or
2. it is exactly in the middle between two floats: it has 16 digits, of which 15 are before the point; or its exponent
   is positive and has two digits; or it has 16 digits and an exponent of one digit that is not below -4, or
3. its exponent has three digits.

Python's `float` reads all of them in less than a microsecond, and others more slowly than the decoder. So a body with
more than a few numbers that can be slow is read with `float`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec

PIECE = 1 << 20  # bytes that are counted in one step
LONGEST_NUMBER = 1 << 10  # bytes; one that is longer may be cut, and is counted twice or not at all
LEADING = 7  # zeros at the beginning of a number as programs write it: they do not count as digits
FEW = 32  # numbers that can be slow, which together take a millisecond at most
QUICK = FEW * len("1e23,")  # bytes: fewer hold no more of them
BYTE, COMMA, QUOTE, KEY, ITEM, POINT, EXPONENT = 2, 12, 30, 200, 150, 25, 40
MOST = 300_000_000  # what a text may cost besides its bytes, of which the frames of a worker have a limit
SLOW, BY_PYTHON, DIGITS_20 = 30_000, 900, 600  # a slow number; a number read by `float`; each 20 digits of a number

_ALIKE = bytes.maketrans(b"0123456789.", b"0" * 11)
_WHOLE = bytes.maketrans(b"123456789", b"0" * 9)
_EXPONENT = bytes.maketrans(b"123456789E", b"000000000e")
_SMALL_E = bytes.maketrans(b"E", b"e")
_NOT_ZERO = bytes(ord("1") if byte in b"123456789" else byte if byte in b"0." else ord(",") for byte in range(256))
_slow_exponents = re.compile(
    rb"e(?!-(?:0[5-9]|[1-9]\d)(?!\d))"  # most exponents are of this form, and it is found soonest
    rb"(?:-?0*[1-9]\d\d|0*[1-9]\d|(?<=\d{16}e)(?:0*\d|-0*[0-4])(?!\d))"
).findall


class TooDear(ValueError):
    """The text would take too long to read. The message says why, as the end of a sentence about it."""


class Amount:
    """What a body holds so far, and what it costs to read."""

    __slots__ = ("_base", "_floats", "_long", "_slow", "commas", "items", "keys", "quotes")

    def __init__(self, size: int) -> None:
        self.items = self.quotes = self.keys = self.commas = self._floats = self._long = self._slow = 0
        self._base = BYTE * size

    def add(self, outside: bytes, quotes: int) -> None:
        """Add a piece, given by what is outside of its strings and the number of its quotes."""
        items, keys = outside.count(b"[") + outside.count(b"{"), outside.count(b":")
        commas, points = outside.count(b","), outside.count(b".")
        exponents, slow = _exponents(outside)
        if points:
            slow += outside.translate(_WHOLE).count(b"0" * 15 + b".")
        long = _long(outside) if b"0" * 20 in outside.translate(_ALIKE) else 0
        self.items, self.quotes, self.keys = self.items + items, self.quotes + quotes, self.keys + keys
        self.commas, self._floats, self._long = (
            self.commas + commas,
            self._floats + points + exponents,
            self._long + long,
        )
        self._slow += slow + long
        self._base += (
            ITEM * items + QUOTE * quotes + KEY * keys + COMMA * commas + POINT * points + EXPONENT * exponents
        )

    @property
    def is_slow(self) -> bool:
        """Whether it may hold more than a few numbers that are slow to read."""
        return self._slow > FEW

    @property
    def cost(self) -> int:
        if not self.is_slow:
            return self._base + SLOW * self._slow
        floats = min(self._floats, self.commas + self.items + 1)  # a number may have both a point and an exponent
        return self._base + BY_PYTHON * floats + DIGITS_20 * self._long


def amounts(body: bytes) -> Iterator[Amount]:
    """Yield what a body holds up to the end of each of its pieces."""
    found = Amount(len(body))
    for outside, quotes in outside_strings(body):
        found.add(outside, quotes)
        yield found


def amount(body: bytes) -> Amount:
    """Return all that a body holds."""
    *_, found = [Amount(len(body)), *amounts(body)]
    return found


def read(text: bytes | str, most: float = MOST) -> Any:
    """Decode JSON that nobody has weighed, such as what a model sends. `most` is infinite for what has been weighed.

    Raises:
        TooDear: it would cost more than `most`. Nothing has been decoded.
        msgspec.DecodeError, ValueError, RecursionError: it is not valid.
    """
    body = text.encode() if isinstance(text, str) else text
    if len(body) <= QUICK:
        return decode(body)
    most += BYTE * len(body)
    for found in amounts(body):
        if found.cost > most:
            raise TooDear("holds so many values that it would take too long to read")
    return decode(body, found)


def decode(body: bytes, found: Amount | None = None) -> Any:
    """Decode JSON that holds this amount; None stands for little.

    Raises:
        msgspec.DecodeError, ValueError, RecursionError: it is not valid.
    """
    return (_by_float if found is not None and found.is_slow else _decode)(body)


def _float(text: str) -> float:
    """Being a function, it also lets other threads run."""
    value = float(text)
    if value - value != 0:
        raise ValueError("Number out of range")
    return value


_decode, _by_float = msgspec.json.Decoder().decode, msgspec.json.Decoder(float_hook=_float).decode


def outside_strings(body: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield what is outside of strings, piece by piece, each with the number of quotes in its piece.

    A single step over a large body would hold the interpreter's lock, and so the event loop, for its whole duration.
    """
    at, inside = 0, False
    while at < len(body):
        end = at + PIECE
        piece = body[at : body.rfind(b",", max(at, end - LONGEST_NUMBER), end) + 1 or end]  # no number is cut in two
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # the last character is escaped by it
            piece = body[at : at + len(piece) + 1]
        at += len(piece)
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")  # only the quotes around strings are left
        texts = piece.split(b'"')
        yield b"".join(texts[inside::2]), len(texts) - 1
        inside ^= len(texts) % 2 == 0


def _exponents(outside: bytes) -> tuple[int, int]:
    """Return how many numbers have an exponent, and how many of them can be slow because of it."""
    if b"e" not in outside and b"E" not in outside:
        return 0, 0
    exponents = outside.translate(_EXPONENT, b"+-.").count(b"0e0")
    if not exponents:  # only those of true and false
        return 0, 0
    return exponents, len(_slow_exponents(outside.translate(_SMALL_E, b"+.")))


def _long(outside: bytes) -> int:
    """Return how many numbers have 20 digits, without zeros at the beginning. Very long ones count more than once."""
    numbers = outside.translate(_NOT_ZERO, b".")
    for _ in range(LEADING):
        numbers = numbers.replace(b",0", b",")
    return numbers.translate(_WHOLE).count(b"0" * 20)
