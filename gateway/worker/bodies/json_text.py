"""JSON as the standard library reads and writes it, byte for byte, but faster for what is large.

Clients of Truss expect the standard library's separators, escapes and forms of numbers. msgspec reads every valid
document that it accepts to the same value, and writes the same text for long strings of ASCII and for most lists of
numbers, up to the spaces. The rest is left to the standard library: what msgspec refuses, although `json` reads it
(NaN, lone surrogates, other encodings), and errors, whose texts clients know. So are the floats of a document: for some
of them msgspec takes a hundred times as long, and a client could hold up a worker with them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

LONG = 4096  # characters of a string
MANY = 64  # numbers in a list
BLOCK = 512  # numbers that are checked and written together
FEW = 64  # parts of a dict or a list that are written one by one
DEPTH = 4  # levels of dicts and lists in which large parts are looked for
NUMBERS = frozenset((int, float))
SMALL = frozenset((int, float, bool, type(None)))

_decode = msgspec.json.Decoder(float_hook=float).decode


def loads(body: bytes | memoryview) -> Any:
    """The same as `json.loads(body)`, which takes no views.

    Raises:
        ValueError, RecursionError: as there.
    """
    try:
        return _decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return json.loads(bytes(body))


class Writer:
    """Writes as `json.dumps(value, default=default).encode()` does, and raises what that raises."""

    def __init__(self, default: Callable[[Any], Any]) -> None:
        self._default = default
        self._encode = json.JSONEncoder(default=default).encode

    def __call__(self, value: Any) -> bytes:
        """Return the value as JSON on one line.

        Raises:
            TypeError, ValueError, RecursionError: it cannot be encoded.
        """
        if not _has_large(value, DEPTH):
            return self._encode(value).encode()
        pieces: list[bytes] = []
        self._write(value, pieces, DEPTH)
        return b"".join(pieces)

    def _write(self, value: Any, pieces: list[bytes], depth: int) -> None:
        kind = type(value)
        if kind is str and len(value) >= LONG and value.isascii():
            text = msgspec.json.encode(value)
            pieces.append(text if b"\x7f" not in text else text.replace(b"\x7f", b"\\u007f"))
        elif kind is list and len(value) >= MANY and NUMBERS.issuperset(map(type, value[:BLOCK])):
            self._write_numbers(value, pieces)
        elif depth and kind is list and 0 < len(value) <= FEW:
            opening = b"["
            for part in value:
                pieces.append(opening)
                self._write(part, pieces, depth - 1)
                opening = b", "
            pieces.append(b"]")
        elif depth and kind is dict and 0 < len(value) <= FEW and all(type(key) is str for key in value):
            opening = b"{"
            for key, part in value.items():
                pieces.append(b"%b%b: " % (opening, self._encode(key).encode()))
                self._write(part, pieces, depth - 1)
                opening = b", "
            pieces.append(b"}")
        elif depth and _is_array(value):
            self._write(self._default(value), pieces, depth - 1)
        else:
            pieces.append(self._encode(value).encode())

    def _write_numbers(self, value: list[Any], pieces: list[bytes]) -> None:
        """Write a list that begins with numbers, block by block."""
        opening = b"["
        for start in range(0, len(value), BLOCK):
            block = value[start : start + BLOCK]
            text = _numbers(block) if NUMBERS.issuperset(map(type, block)) else None
            if text is None:
                text = self._encode(block).encode()[1:-1]
            pieces += opening, text
            opening = b", "
        pieces.append(b"]")


def _has_large(value: Any, depth: int) -> bool:
    """Return whether a part of it is large enough to be worth a look. Of a list, the first part stands for all."""
    kind = type(value)
    if kind is dict:
        if len(value) <= FEW and depth:
            for part in value.values():
                kind = type(part)
                if kind is str:
                    if len(part) >= LONG:
                        return True
                elif kind not in SMALL and _has_large(part, depth - 1):
                    return True
        return False
    if kind is list:
        return len(value) >= MANY or (depth > 0 and len(value) > 0 and _has_large(value[0], depth - 1))
    if kind is str:
        return len(value) >= LONG
    return kind not in SMALL and _is_array(value)


def _is_array(value: Any) -> bool:
    return hasattr(value, "tolist")


def _numbers(block: list[Any]) -> bytes | None:
    """Return the numbers as text, without brackets; None if msgspec writes one of them in another form."""
    try:
        text = msgspec.json.encode(block)
    except (msgspec.MsgspecError, OverflowError):  # an integer of more than 64 bits
        return None
    # 1e16 is 1e+16 in Python, 0.00001 is 1e-05, and null is not a number at all.
    if b"e" in text or b"0.0000" in text or b"n" in text:
        return None
    return text[1:-1].replace(b",", b", ")
