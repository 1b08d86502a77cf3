"""Validation of counts that models report."""

from __future__ import annotations

from typing import Any

# Up to this limit every JSON and metrics reader represents whole numbers exactly, and sums of them fit a float.
MOST = 2**53


def whole_number(value: Any) -> int | None:
    """Return the value as an int, or None if it is not a number, NaN, negative, or larger than `MOST`."""
    return int(value) if isinstance(value, int | float) and 0 <= value <= MOST else None
