"""Make the rows of a request what CatBoost reads: float32 for a table of numbers, lists with texts for others.

CatBoost has categories as texts: 5 and "5" are one. It predicts for any of them, also for one that it has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gateway_tabular.columns import Columns, kind_of
from gateway_tabular.rows import NAN, NUMBERS, Reader


class CatBoostReader(Reader):
    def __init__(self, columns: Columns, texts: frozenset[int]) -> None:
        """`texts` are the columns of texts: words, not categories."""
        super().__init__(columns, "float32")
        self._texts = texts

    def matrix(self, rows: Sequence[Sequence[Any]], where: str) -> Any:
        if not self.columns.coded or not rows:
            return super().matrix(rows, where)
        return [self._row(row, place, where) for place, row in enumerate(rows)]

    def _row(self, row: Sequence[Any], place: int, where: str) -> list[Any]:
        found = list(row)
        for index, column in enumerate(self.columns.columns):
            value = found[index]
            if column.kind == "text":
                found[index] = self._text(value, place, index, where)
            elif type(value) not in NUMBERS:
                raise self.wrong(where, place, index, f"is {kind_of(value)}: send a number, or null")
            else:
                found[index] = self._number(value, place, index, where)
        return found

    def _text(self, value: Any, place: int, column: int, where: str) -> str:
        if type(value) is str:
            return value
        if column in self._texts:
            if value is None:
                return ""
            raise self.wrong(where, place, column, f"is {kind_of(value)}: send a text, or null")
        if value is None or value != value:
            what = "is missing, for which CatBoost has no category: send the text that stood for it at the training"
            raise self.wrong(where, place, column, what)
        if type(value) not in (int, bool):
            raise self.wrong(where, place, column, f"is {kind_of(value)}: send a text or a whole number")
        if abs(value) > self.largest:  # Python would refuse to write very long numbers
            raise self.wrong(where, place, column, "is too large for a category: send a text")
        return str(int(value))

    def _number(self, value: Any, place: int, column: int, where: str) -> float:
        if value is None:
            return NAN
        if abs(value) > self.largest:
            raise self.wrong(where, place, column, "is infinite, or too large for this model: send a finite number")
        return float(value)
