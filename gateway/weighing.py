"""What a msgpack value costs, found out before it is decoded.

One byte of msgpack can be a dict of 64, and keys that are no texts can be made to collide, so that a dict of a few
thousand takes minutes. Both are refused here, by a walk over the tokens that builds nothing. Runs of plain values are
left to the engine of regular expressions; everything else is a step of Python, so the steps are bounded too.
"""

from __future__ import annotations

import re

SMALL = 16 * 1024  # bytes that may be decoded unseen: 1.4 MB at worst, or 10 ms of keys that collide
UNIT = 32  # bytes of memory: a number, or a third of an empty list or dict
MAX_UNITS = 10_000_000  # 320 MB: 2048 embeddings of 4096 numbers, sent as lists
MAX_STEPS = 500_000  # 0.2 s of Python; a number in a long list is a thirtieth of one, a flat dict is one
MAX_NESTED = 16  # extensions inside extensions
MAX_DEPTH = 1000  # lists and dicts inside one another; a decoder gives up there

_TEXT = rb"|".join(rb"[\x%x].{%d}" % (0xA0 + size, size) for size in range(32))
_PLAIN = rb"[\x00-\x7f\xc0\xc2\xc3\xe0-\xff]|[\xca\xce\xd2].{4}|[\xcb\xcf\xd3].{8}|[\xcd\xd1]..|[\xcc\xd0].|" + _TEXT
_BLOCK = 32  # values of a list that are matched at once
_block = re.compile(rb"(?s:%s){%d}+" % (_PLAIN, _BLOCK)).match
_flat = [re.compile(rb"(?s:(?:%s)(?:%s)){%d}+" % (_TEXT, _PLAIN, pairs)).match for pairs in range(16)]

# By the first byte of a token: its bytes, when that alone says how many.
_WHOLE = [1] * 128 + [0] * 32 + list(range(1, 33)) + [1, 0, 1, 1] + [0] * 6 + [5, 9, 2, 3, 5, 9, 2, 3, 5, 9] + [0] * 12
_WHOLE += [1] * 32
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}  # of bytes and texts: the bytes of their length
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}  # of extensions
_FIXED = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_TEXTS = frozenset((*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB))


class TooHeavy(ValueError):
    """It would cost more than any answer needs."""


def weigh(payload: bytes | memoryview, nested: int) -> None:
    """Refuse a value that costs too much. `nested` is the code of the extension that holds a value itself.

    What is no msgpack passes: whoever decodes it finds that out.

    Raises:
        TooHeavy: with what is too much.
    """
    if len(payload) > SMALL:
        try:
            _walk(memoryview(payload), nested)
        except IndexError:
            pass  # it is cut off


def _walk(view: memoryview, nested: int) -> None:
    at = units = depth = 0
    steps = MAX_STEPS
    left, is_map, end = 1, False, 0  # what is still to come of the innermost list or dict; where an extension ends
    tried = 0  # what was left when a block did not match: it is not tried again before all that it looked at has gone
    outer: list[tuple[int, bool, int, int]] = []
    while True:
        if not left:
            if end and at != end:
                raise TooHeavy("an extension that is not one value")
            if not outer:
                return
            depth -= bool(end)
            left, is_map, end, tried = outer.pop()
            continue
        steps -= 1
        if not steps or units > MAX_UNITS or len(outer) > MAX_DEPTH:
            raise TooHeavy(_reason(len(view), steps, units))
        if not is_map and left >= _BLOCK and left <= tried - _BLOCK:
            if (found := _block(view, at)) is not None:
                at, left, tried = found.end(), left - _BLOCK, left
                units += _BLOCK
                continue
            tried = left
        kind = view[at]
        if is_map:
            if kind not in _TEXTS:
                raise TooHeavy("a key that is no text")
            at += _WHOLE[kind] or _span(view, at, kind)
            units += 1
            kind = view[at]
        left -= 1
        if size := _WHOLE[kind]:
            units += 1
            at += size
        elif 0x80 <= kind < 0xA0 or kind >= 0xDC:
            units += 3
            outer.append((left, is_map, end, tried))
            is_map, end, tried = kind < 0x90 or kind >= 0xDE, 0, 1 << 33
            if kind < 0xA0:
                left = kind & 15
                at += 1
                if is_map and left and (found := _flat[left](view, at)) is not None:
                    units += 2 * left
                    at, left = found.end(), 0
            else:
                width = 2 if kind in (0xDC, 0xDE) else 4
                left = _number(view, at + 1, width)
                at += 1 + width
        elif kind in _LENGTHS:
            units += 1
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


def _span(view: memoryview, at: int, kind: int) -> int:
    """The bytes of a token that says how long it is."""
    width = _LENGTHS[kind]
    return 1 + width + _number(view, at + 1, width)


def _number(view: memoryview, at: int, width: int) -> int:
    if at + width > len(view):
        raise IndexError
    return int.from_bytes(view[at : at + width], "big")


def _reason(size: int, steps: int, units: int) -> str:
    if units > MAX_UNITS:
        return f"{size} bytes that would take more than {MAX_UNITS * UNIT >> 20} MiB of memory"
    if not steps:
        return f"{size} bytes with more than {MAX_STEPS} values that are not in long lists of numbers"
    return f"{size} bytes with more than {MAX_DEPTH} values inside one another"
