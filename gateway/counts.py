"""A count that a model gives."""

from __future__ import annotations

from typing import Any

# Up to here every reader of JSON and of metrics knows a whole number exactly; the sums of such fit any float.
MOST = 2**53


def whole_number(value: Any) -> int | None:
    """The value as a count; None of what is none: no number, NaN, a negative one, one that is larger than `MOST`."""
    return int(value) if isinstance(value, int | float) and 0 <= value <= MOST else None
