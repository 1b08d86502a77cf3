"""Estimate the cost of a msgpack value before it is decoded.

One byte of msgpack can become a dict of 64 bytes, and keys that are not strings can be made to collide, so that a dict
of a few thousand takes minutes. Both are refused here by a walk over the tokens that builds nothing. Regular
expressions skip runs of plain values; everything else takes a step in Python, so the number of steps is bounded too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

SMALL = 2 * 1024  # bytes that are not checked: 0.2 MB of memory at worst, or 0.2 ms of colliding keys
LIGHT = 16 * 1024  # bytes of which only a long dict has to be checked; the rest is 1.4 MB of memory at worst
_LONG = (0xDE, 0xDF)  # one of these bytes begins a dict of 16 keys and more; fewer keys are compared soon
TEXT = 5  # units of a text: it takes as long to decode as so many numbers
PAIR = 4  # units of a key and its value, in a small dict
MAX_UNITS = 6_000_000  # numbers, of 32 bytes each, that are decoded in some tenths of a second
MAX_STEPS = 500_000  # 0.2 s of Python; 32 plain values of a long list, or a flat dict, take one
MAX_NESTED = 16  # extensions inside extensions
MAX_DEPTH = 1000  # nested lists and dicts; the decoder's own limit

_TEXT = rb"|".join(rb"[\x%x].{%d}" % (0xA0 + size, size) for size in range(32))
_NUMBER = rb"[\x00-\x7f\xc0\xc2\xc3\xe0-\xff]|[\xca\xce\xd2].{4}|[\xcb\xcf\xd3].{8}|[\xcd\xd1]..|[\xcc\xd0].|\xa0"
_PLAIN = _NUMBER + b"|" + _TEXT
_BLOCK = 32  # list values matched at once
_Match = Callable[[memoryview, int], re.Match[bytes] | None]


@cache
def patterns() -> tuple[_Match, _Match, list[_Match]]:
    """Return what matches a block of numbers, a block of plain values, and a flat dict of so many pairs.

    Compiled at the first use, not at import: that would be a tenth of the start of a worker, which weighs nothing.
    """
    numbers = re.compile(rb"(?s:%s){%d}+" % (_NUMBER, _BLOCK)).match
    block = re.compile(rb"(?s:%s){%d}+" % (_PLAIN, _BLOCK)).match
    return numbers, block, [re.compile(rb"(?s:(?:%s)(?:%s)){%d}+" % (_TEXT, _PLAIN, n)).match for n in range(16)]


# By the first byte of a token: its size, if that byte determines it.
_WHOLE = [1] * 128 + [0] * 32 + list(range(1, 33)) + [1, 0, 1, 1] + [0] * 6 + [5, 9, 2, 3, 5, 9, 2, 3, 5, 9] + [0] * 12
_WHOLE += [1] * 32
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # bytes and strings → size of their length field
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}  # extensions
_FIXED = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_TEXTS = frozenset((*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB))


class TooHeavy(ValueError):
    """The value would cost more than any answer needs."""


def weigh(payload: bytes | memoryview, nested: int) -> None:
    """Check that a value does not cost too much. `nested` is the code of the extension that contains a value.

    Invalid msgpack passes; decoding it will fail.

    Raises:
        TooHeavy: the text says what is too much.
    """
    if len(payload) > SMALL:
        if len(payload) <= LIGHT and not _may_have_long_dict(bytes(payload)):
            return
        try:
            _walk(memoryview(payload), nested)
        except IndexError:
            pass  # the payload is truncated


def _may_have_long_dict(payload: bytes) -> bool:
    return any(payload.find(byte) >= 0 for byte in _LONG)


def _walk(view: memoryview, nested: int) -> None:
    """Walk over every token once. It is this long because it is one loop: a call per token would double its cost."""
    numbers, block, flat = patterns()
    at = units = depth = 0
    steps = MAX_STEPS
    left, is_map, end = 1, False, 0  # remaining items of the innermost list or dict; its kind; end of the extension
    tried = 0  # `left` when a block did not match; not tried again before that block has been passed
    outer: list[tuple[int, bool, int, int]] = []
    while True:
        if not left:
            if end and at != end:
                raise TooHeavy("an extension that is not one value")
            if not outer:
                break
            depth -= bool(end)
            left, is_map, end, tried = outer.pop()
            continue
        steps -= 1
        if not steps or units > MAX_UNITS or len(outer) > MAX_DEPTH:
            raise TooHeavy(_reason(len(view), steps, units))
        if not is_map and left >= _BLOCK and left <= tried - _BLOCK:
            if (found := numbers(view, at)) is not None:
                at, left, tried = found.end(), left - _BLOCK, left
                units += _BLOCK
                continue
            if (found := block(view, at)) is not None:
                at, left, tried = found.end(), left - _BLOCK, left
                units += _BLOCK * TEXT
                continue
            tried = left
        kind = view[at]
        if is_map:
            if kind not in _TEXTS:
                raise TooHeavy("a key that is not a string")
            at += _WHOLE[kind] or _span(view, at, kind)
            units += 1
            kind = view[at]
        left -= 1
        if size := _WHOLE[kind]:
            units += TEXT if 0xA0 < kind < 0xC0 else 1
            at += size
        elif 0x80 <= kind < 0xA0 or kind >= 0xDC:
            units += 3
            outer.append((left, is_map, end, tried))
            is_map, end, tried = kind < 0x90 or kind >= 0xDE, 0, 1 << 33
            if kind < 0xA0:
                left = kind & 15
                at += 1
                if is_map and left and (found := flat[left](view, at)) is not None:
                    units += PAIR * left
                    at, left = found.end(), 0
            else:
                width = 2 if kind in (0xDC, 0xDE) else 4
                left = _number(view, at + 1, width)
                at += 1 + width
        elif kind in _LENGTHS:
            units += TEXT
            at += _span(view, at, kind)
        else:
            units += 8
            width = _EXTENSIONS.get(kind, 0)
            size = _number(view, at + 1, width) if width else _FIXED.get(kind, 1 << 33)
            at += 2 + width
            if view[at - 1] != nested or not size:
                at += size
                continue
            depth += 1
            if depth > MAX_NESTED:
                raise TooHeavy(f"extensions inside more than {MAX_NESTED} others")
            outer.append((left, is_map, end, tried))
            left, is_map, end, tried = 1, False, at + size, 1 << 33
    if units > MAX_UNITS:
        raise TooHeavy(_reason(len(view), steps, units))


def _span(view: memoryview, at: int, kind: int) -> int:
    """Return the size of a token that contains its length."""
    width = _LENGTHS[kind]
    return 1 + width + _number(view, at + 1, width)


def _number(view: memoryview, at: int, width: int) -> int:
    if at + width > len(view):
        raise IndexError
    return int.from_bytes(view[at : at + width], "big")


def _reason(size: int, steps: int, units: int) -> str:
    if units > MAX_UNITS:
        return f"{size} bytes with more than {MAX_UNITS:,} numbers, or {MAX_UNITS // TEXT:,} texts"
    if not steps:
        return f"{size} bytes with more than {MAX_STEPS} values that are not in long lists of numbers"
    return f"{size} bytes with more than {MAX_DEPTH} levels of nesting"
