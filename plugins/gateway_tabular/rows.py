"""Make a matrix of the rows in a request: categories by their numbers, and NaN where a value is missing.

Nothing here knows a library. A wrong value is refused with its place, and a category that the model does not know with
those that it knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from gateway import BadRequest

from .arrow_rows import rows_in_order
from .columns import Column, Columns, few, kind_of, quoted
from .csv_rows import read_csv
from .forms import find_rows

NUMBERS = frozenset((int, float, bool, type(None)))
OPTIONS = ("explain", "by_name")
NAN = float("nan")
MOST_CODES = 1 << 31  # libraries count categories with 32 bits


@dataclass(frozen=True, slots=True)
class Asked:
    """The content of a request. The rows of a CSV body are read, but not checked yet."""

    table: Any  # a matrix with a row for each prediction
    explain: bool = False
    by_name: bool = False


@dataclass(frozen=True, slots=True)
class Lines:
    """The rows of a body that is not JSON, in the order of the model; with `names`, in the order of these."""

    rows: Sequence[Sequence[Any]]
    names: Sequence[str] | None = None


class Reader:
    """Reads requests for one model. `dtype` is the type of numbers that the library computes with."""

    def __init__(self, columns: Columns, dtype: str) -> None:
        import numpy

        self.columns, self._dtype, self._numpy = columns, numpy.dtype(dtype), numpy
        self.largest = float(numpy.finfo(self._dtype).max)

    def read(self, inputs: Any) -> Asked:
        """Return what a body asks for.

        Raises:
            BadRequest: the rows in it are not rows of the model.
        """
        if type(inputs) is Lines:
            return Asked(self.matrix(inputs.rows, "rows"))
        if type(inputs) is dict and len(inputs) == 1:  # the most common request, without any search
            rows = inputs.get("inputs")
            if type(rows) is list and len(rows) == 1 and type(rows[0]) is list and len(rows[0]) == self.columns.width:
                return Asked(self.matrix(rows, "inputs"))
        rows, where, options = find_rows(inputs, self.columns, OPTIONS)
        table = self._of_array(rows, where) if hasattr(rows, "dtype") else self.matrix(rows, where)
        return Asked(table, **options)

    def csv(self, body: bytes, content_type: str) -> Lines:
        """Return the rows of a CSV body, which `read` then checks."""
        return Lines(read_csv(body, content_type, self.columns))

    def arrow(self, body: bytes) -> Lines:
        """Return the rows of a body of Arrow IPC, which `read` then checks."""
        return Lines(rows_in_order(body, self.columns))

    def _of_array(self, table: Any, where: str) -> Any:
        """Return an array of a binary body as a matrix."""
        if table.dtype.kind not in "fiub" or self.columns.coded:
            return self.matrix(self._rows_of(table.tolist(), table.shape, where), where)
        if table.ndim == 1:
            table = table.reshape(1, -1)
        self._check_shape(table.shape, where)
        with self._numpy.errstate(over="ignore", invalid="ignore"):
            matrix = self._numpy.ascontiguousarray(table, dtype=self._dtype)
        return self._finite(matrix, where)

    def _rows_of(self, rows: Any, shape: tuple[int, ...], where: str) -> Any:
        rows = [rows] if len(shape) == 1 else rows
        self._check_shape((1, *shape) if len(shape) == 1 else shape, where)
        return rows

    def _check_shape(self, shape: tuple[int, ...], where: str) -> None:
        if len(shape) != 2 or shape[1] != self.columns.width:
            raise BadRequest(f"{where} is an array of shape {few(shape)}, {self.columns.taken}", param=where or None)

    def matrix(self, rows: Sequence[Sequence[Any]], where: str) -> Any:
        """Return rows of the model's width as what the library reads."""
        if not rows:
            what = f"{where or 'the body'} is empty: send {self.columns.example}"
            raise BadRequest(what, param=where or None, code="missing_required_parameter")
        if self.columns.coded:
            rows = [self._coded(row, place, where) for place, row in enumerate(rows)]
        if not NUMBERS.issuperset(map(type, chain.from_iterable(rows))):
            raise self._not_a_number(rows, where)
        try:
            with self._numpy.errstate(over="ignore"):
                matrix = self._numpy.array(rows, dtype=self._dtype)
        except OverflowError:  # an integer too large for a float
            raise self._too_large(rows, where) from None
        return self._finite(matrix, where)

    def _finite(self, matrix: Any, where: str) -> Any:
        """Check that no number is infinite: libraries differ in what they make of it."""
        if self._numpy.isinf(matrix).any():
            place, column = (int(found[0]) for found in self._numpy.nonzero(self._numpy.isinf(matrix)))
            raise self.wrong(where, place, column, "is infinite, or too large for this model: send a finite number")
        return matrix

    def _coded(self, row: Sequence[Any], place: int, where: str) -> list[Any]:
        """Return a row with numbers in place of categories."""
        found = list(row)
        for index, column in self.columns.coded:
            value = found[index]
            if value is None or value != value:
                found[index] = NAN
                continue
            try:
                found[index] = column.codes[value] if column.codes is not None else self._code(value)
            except (KeyError, TypeError, ValueError):
                raise self.wrong(where, place, index, _unknown(column, value)) from None
        return found

    def _code(self, value: Any) -> float:
        if type(value) not in NUMBERS or not 0 <= value < MOST_CODES or value != int(value):
            raise ValueError
        return float(value)

    def _not_a_number(self, rows: Sequence[Sequence[Any]], where: str) -> BadRequest:
        for place, row in enumerate(rows):
            for column, value in enumerate(row):
                if type(value) not in NUMBERS:
                    shown = f" ({quoted([value])[0]})" if isinstance(value, str) else ""
                    return self.wrong(where, place, column, f"is {kind_of(value)}{shown}: send a number, or null")
        raise AssertionError("no value is wrong")

    def _too_large(self, rows: Sequence[Sequence[Any]], where: str) -> BadRequest:
        for place, row in enumerate(rows):
            for column, value in enumerate(row):
                if type(value) is int and abs(value) > self.largest:
                    return self.wrong(where, place, column, "is too large for this model: send a finite number")
        raise AssertionError("no value is too large")

    def wrong(self, where: str, place: int, column: int, what: str) -> BadRequest:
        return BadRequest(f"{where}[{place}]{self.columns.label(column)} {what}", param=where or None)


def _unknown(column: Column, value: Any) -> str:
    if column.codes is None:
        return f"is {kind_of(value)}: send the number of a category, from 0 on, or null"
    if isinstance(value, (list, tuple, Mapping)):
        return f"is {kind_of(value)}: send one of {few(quoted(list(column.codes)))}"
    shown = quoted([value])[0]
    return (
        f"is {shown}, an unknown category (this model knows {few(quoted(list(column.codes)))}; null is a missing value)"
    )
