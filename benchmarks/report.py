"""What a benchmark says, and how it is printed.

Absolute figures belong to the machine and the moment; the ratio compares two things measured in the same run.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what is promised, what was reached, and how many times `against` that is."""

    promise: str
    reached: str
    ratio: float | None = None
    against: str = ""
    kept: bool | None = None  # None: said for information, nothing is promised


class Failed(Exception):
    """A part of a benchmark failed; the rows of the other parts hold."""

    def __init__(self, message: str, rows: Sequence[Row]) -> None:
        super().__init__(message)
        self.rows = rows


class LeftOut(Exception):
    """A benchmark cannot run here; the message says what is missing."""


COLUMNS = ("promise", "reached", "ratio", "against", "")


def table(rows: Sequence[Row]) -> str:
    cells = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    return "\n".join(
        "  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _cells(row: Row) -> tuple[str, ...]:
    verdict = {None: "–", True: "pass", False: "MISS"}[row.kept]
    return row.promise, row.reached, "" if row.ratio is None else f"{row.ratio:.2f}", row.against, verdict


def at_most(promise: str, values: Iterable[float], limit: float, unit: str) -> Row:
    """A figure with an absolute bound: its median, as a share of the bound."""
    value = statistics.median(values)
    return Row(promise, f"{value:.3g} {unit}", value / limit, f"{limit:g} {unit}", value <= limit)
