"""Write float32 as decimals: the shortest text that reads back as the same float32.

    0.1, not 0.10000000149011612

An answer with embeddings may have millions of numbers. So rows are not formatted number by number. They are rounded as
a whole to 7, 8 and 9 digits, which always suffice. An integer divided by a power of ten is the float nearest to that
decimal, and the float's shortest text is that decimal.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Sequence
from itertools import compress
from operator import ne

PIECE = 1 << 13  # numbers handled at once: a single C call blocks all other threads
_ROUND = 1.5 * 2.0**52  # adding and subtracting it rounds numbers below 2**51 to integers
_F32 = struct.Struct("<f")


def _scale(exponent: int) -> float:
    """Return the factor that gives numbers between 2**(exponent - 1) and 2**exponent 7 digits before the point.

    If a power of ten lies in this range, one digit more for the larger numbers is harmless as long as half the distance
    of two float32 is less than half a digit. Return NaN if no power of ten is exact; those numbers are formatted.
    """
    decade = math.floor(math.log10(2.0 ** (exponent - 1)))
    if 2.0 ** (exponent - 24) > 10.0 ** (decade - 6):
        decade += 1
    return 10.0 ** (6 - decade) if -13 < decade <= 6 else math.nan


SCALES = {exponent: _scale(exponent) for exponent in range(-148, 129)}


def decimals(numbers: Sequence[float]) -> list[float]:
    """Return, for each float32, the float with the shortest text."""
    scales = [SCALES[math.frexp(number)[1]] for number in numbers]
    both = zip(numbers, scales, strict=True)
    found = [(number * scale + _ROUND - _ROUND) / scale or number for number, scale in both]
    wrong = list(map(ne, array("f", found), numbers))
    left = list(compress(range(len(numbers)), wrong))
    for _ in range(3):
        if not left:
            return found
        numbers, scales = list(compress(numbers, wrong)), [scale * 10.0 for scale in compress(scales, wrong)]
        tried = [(number * scale + _ROUND - _ROUND) / scale for number, scale in zip(numbers, scales, strict=True)]
        for index, number in zip(left, tried, strict=True):
            found[index] = number
        wrong = list(map(ne, array("f", tried), numbers))
        left = list(compress(left, wrong))
    for index, number in zip(left, compress(numbers, wrong), strict=True):
        found[index] = formatted(number)
    return found


def formatted(number: float) -> float:
    for digits in (7, 8, 9):
        found = float(f"{number:.{digits}g}")
        if digits == 9 or _F32.unpack(_F32.pack(found))[0] == number:
            break
    return found
