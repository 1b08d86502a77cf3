"""Explain why an estimator refused rows, with the first value that is probably the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway_tabular.columns import few, kind_of, quoted

from .columns import Reads
from .words import example_of, takes

TOLD = (ValueError, TypeError, AttributeError)  # errors whose messages are useful for a client
LONGEST = 300  # characters of an estimator's own message


class Complaints:
    """Explains the errors of one model."""

    def __init__(self, reads: Reads) -> None:
        self.reads = reads

    def of(self, rows: Sequence[Any], names: tuple[str, ...], where: str, error: Exception) -> str:
        """Return what to say about rows that the model refused. `where` is the field that has them."""
        if not len(rows):
            return f"{where or 'the body'} is empty: send {example_of(self.reads)}"
        kind = self.reads.kind
        if kind in ("texts", "objects"):
            wanted, what = (str, "texts") if kind == "texts" else (Mapping, "objects")
            for place, row in enumerate(rows):
                if not isinstance(row, wanted):
                    example = example_of(self.reads)
                    return f"{where}[{place}] is {kind_of(row)}, this model takes {what}: send {example}"
        if kind == "table":
            if not self.reads.chooses and self.reads.width not in (None, len(rows[0])):
                return self.of_width(0, len(rows[0]), 0, where)
            if gone := [name for name in self.reads.names if name not in names and name in str(error)]:
                return f"{where}[0] lacks {few(gone)} ({takes(self.reads)})"
            if found := self._odd_value(rows, names, where, error):
                return found
        words = str(error).splitlines()[0][:LONGEST] if type(error) in TOLD and str(error) else ""
        return f"the model refused these inputs: {words or type(error).__name__}"

    def of_width(self, place: int, found: int, first: int, where: str) -> str:
        """Say that a row has another number of values than the model takes, or than the first row."""
        if self.reads.width is None:
            return f"{where}[{place}] has {found} values, and {where}[0] has {first}"
        return f"{where}[{place}] has {found} values, {takes(self.reads)}"

    def _odd_value(self, rows: Sequence[Any], names: tuple[str, ...], field: str, error: Exception) -> str | None:
        wants_all, wants_known = "NaN" in str(error), "unknown categor" in str(error)
        places = [self._known(column, names) for column in range(len(rows[0]))]
        for place, row in enumerate(rows):
            for column, value in enumerate(row):
                where = f"{field}[{place}]" + (f"[{names[column]!r}]" if column < len(names) else f"[{column}]")
                is_nan = value is None or (isinstance(value, float) and value != value)
                if wants_all and is_nan and column not in self.reads.categories:
                    return f"{where} is null or NaN, and this model needs every value: send a number"
                if self.reads.are_numbers and not isinstance(value, (int, float, type(None))):
                    return f"{where} is {kind_of(value)}: send a number"
                if isinstance(value, (list, tuple, Mapping)):
                    return f"{where} is {kind_of(value)}: send one value there, and a row for each prediction"
                if places[column] in self.reads.texts and not isinstance(value, str):
                    return f"{where} is {kind_of(value)}: send a string"
                if wants_known and self._is_unknown(places[column], None if is_nan else value):
                    values = self.reads.known[places[column]]
                    known = few(["null" if each is None else quoted([each])[0] for each in values])
                    shown = "null" if is_nan else quoted([value])[0]
                    return f"{where} is {shown}, an unknown category (this model knows {known})"
        return None

    def _is_unknown(self, column: int, value: Any) -> bool:
        return column in self.reads.refuse_unknown and value not in self.reads.known[column]

    def _known(self, column: int, names: tuple[str, ...]) -> int:
        """Return the model's index of the column at this position in the request."""
        known = self.reads.names
        return known.index(names[column]) if column < len(names) and names[column] in known else column
