"""Convert JSON to the input of a scikit-learn estimator. All forms of `gateway_tabular` are read.

No rows are refused here that the estimator might accept: it is tried first, and `complaints` explains its errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway_tabular.arrow_rows import read_arrow, rows_in_order
from gateway_tabular.columns import Column, few, kind_of
from gateway_tabular.csv_rows import split_csv, typed
from gateway_tabular.forms import (
    find_value,
    is_by_columns,
    is_split,
    named_rows,
    nothing,
    refuse_repeated,
    transposed,
)
from gateway_tabular.rows import OPTIONS, Asked, Lines

from gateway import BadRequest, HTTPError

from .columns import NAN, Reads, has
from .complaints import Complaints
from .words import columns_of, example_of, takes

OF_TABLES = ("records", "dataframe_records", "dataframe_split")


@dataclass(frozen=True, slots=True)
class Given(Asked):
    """The content of a request. `table` is what the estimator takes, and the others are for messages."""

    rows: Sequence[Any] = ()
    names: tuple[str, ...] = ()  # of the columns in `rows`
    where: str = ""


class Rows:
    """Reads requests for one model."""

    def __init__(self, reads: Reads) -> None:
        self.reads = reads
        self.columns = columns_of(reads)
        self.complaints = Complaints(reads)
        self.example = example_of(reads)

    def read(self, inputs: Any) -> Given:
        """Return the rows in a request, as the estimator takes them.

        Raises:
            BadRequest: there are none, or they are not rows.
        """
        if type(inputs) is Lines:
            rows, where, options = self._of_lines(inputs), "rows", {}
        else:
            rows, where, options = self._of_body(inputs)
        names: tuple[str, ...] = ()
        if self.reads.kind == "table":
            names = self._names(rows)
            rows = [self._row(place, row, names, where) for place, row in enumerate(rows)]
            self._check_width(rows, where)
        try:
            table = self.table(rows, names)
        except Exception as error:  # a text that is no date, and the like
            what = self.complaints.of(rows, names, where, error)
            raise BadRequest(what, param=where or None) from error
        return Given(table, rows=rows, names=names, where=where, **options)

    def csv(self, body: bytes, content_type: str) -> Lines:
        """Return the rows of a CSV body, which `read` then checks."""
        self._refuse_tables("CSV")
        names, lines = split_csv(body, content_type, self.columns)
        if names is None or not self.reads.names:
            return Lines(typed(lines, self.columns.columns))
        refuse_repeated(names, "the first line of the body")
        known = dict(zip(self.columns.names, self.columns.columns, strict=True))
        return Lines(typed(lines, [known.get(name) or Column(name) for name in names]), names)

    def arrow(self, body: bytes) -> Lines:
        """Return the rows of a body of Arrow IPC, which `read` then checks."""
        self._refuse_tables("Arrow")
        if not self.reads.names:
            return Lines(rows_in_order(body, self.columns))
        names, rows = read_arrow(body)
        refuse_repeated(names, "the schema of the body")
        return Lines(rows, names)

    def _refuse_tables(self, form: str) -> None:
        if self.reads.kind != "table" or self.reads.width is None:
            what = f"this model cannot be asked with {form}: send {self.example} as JSON"
            raise HTTPError(415, what, code="unsupported_media_type")

    # ── the rows ──

    def _of_lines(self, lines: Lines) -> Sequence[Any]:
        if lines.names is None:
            return lines.rows
        return [dict(zip(lines.names, row, strict=True)) for row in lines.rows]

    def _of_body(self, inputs: Any) -> tuple[list[Any], str, Mapping[str, Any]]:
        """Return the rows in a body, the field that has them, and the other fields."""
        names, kind = self.columns.index, self.reads.kind
        if type(inputs) is dict and len(inputs) == 1 and "inputs" not in names:  # the most common, without any search
            rows = inputs.get("inputs")
            if type(rows) is list:
                return self._as_rows(rows, "inputs"), "inputs", {}
        value, where, options = find_value(inputs, names, OPTIONS, self.example)
        if not where and isinstance(value, Mapping):
            is_table = kind == "table" and (is_split(value, names) or not names.keys().isdisjoint(value))
            if not is_table:
                raise nothing(value, self.example)
        if kind != "table" and where in OF_TABLES and (kind != "objects" or where == "dataframe_split"):
            raise BadRequest(f"{where} is a table, this model takes {kind}: send {self.example}", param=where)
        if kind == "table":
            value, where = self._untabled(value, where)
        return self._as_rows(value, where), where, options

    def _untabled(self, value: Any, where: str) -> tuple[Any, str]:
        """Return rows or records in place of a split or of a table by columns."""
        if is_split(value, self.columns.index):
            inner = f"{where}.data" if where else "data"
            if value.get("columns") is None:
                return value["data"], inner
            names, rows = named_rows(value, where)
            return [dict(zip(names, row, strict=True)) for row in rows] if self.reads.names else rows, inner
        return (transposed(value, where) if is_by_columns(value) else value), where

    def _as_rows(self, rows: Any, where: str) -> list[Any]:
        """Return a list of rows; a single row becomes a list of one."""
        if hasattr(rows, "tolist"):  # an array from a binary body
            rows = rows.tolist()
        kind = self.reads.kind
        if isinstance(rows, Mapping) or (isinstance(rows, str) and kind in ("texts", "items")):
            return [rows]
        if not isinstance(rows, (list, tuple)):
            raise BadRequest(f"{where or 'the body'} is {kind_of(rows)}: send {self.example}", param=where or None)
        is_single = kind == "table" and bool(rows) and not isinstance(rows[0], (list, tuple, Mapping))
        return [list(rows)] if is_single and not hasattr(rows[0], "tolist") else list(rows)

    def _names(self, rows: Sequence[Any]) -> tuple[str, ...]:
        """Return the columns that the model was fitted on; if it selects columns, those that all rows have."""
        named = [row for row in rows if isinstance(row, Mapping)]
        known = self.reads.names
        if not self.reads.chooses or len(named) != len(rows) or not has("pandas"):
            return known
        here = [name for name in known if all(name in row for row in named)]
        more = dict.fromkeys(name for row in named for name in row if name not in known and isinstance(name, str))
        return (*here, *(name for name in more if all(name in row for row in named)))

    def _row(self, place: int, row: Any, names: tuple[str, ...], field: str) -> Sequence[Any]:
        where = f"{field}[{place}]"
        if isinstance(row, Mapping):
            return self._by_name(where, row, names, field)
        if hasattr(row, "tolist"):
            row = row.tolist()
        if not isinstance(row, (list, tuple)):
            raise BadRequest(f"{where} is {kind_of(row)}, not a row: send {self.example}", param=field or None)
        return row

    def _by_name(self, where: str, row: Mapping[str, Any], names: tuple[str, ...], field: str) -> Sequence[Any]:
        known = self.reads.names
        if not known:
            what = f"{where} has names, but this model's columns have none: send {self.example}"
            raise BadRequest(what, param=field or None)
        if lost := [name for name in names if name not in row]:
            raise BadRequest(f"{where} lacks {few(lost)} ({takes(self.reads)})", param=field or None)
        fitting = {*names, *known}
        if unknown := [name for name in row if name not in fitting]:
            raise BadRequest(f"{where} has unknown {few(unknown)} ({takes(self.reads)})", param=field or None)
        return [row[name] for name in names]

    def _check_width(self, rows: Sequence[Sequence[Any]], where: str) -> None:
        """Check that rows are of one length. Whether it is the right one, the estimator knows."""
        for place, row in enumerate(rows):
            if len(row) != len(rows[0]):
                wrong = place if self.reads.width in (None, len(rows[0])) else 0
                what = self.complaints.of_width(wrong, len(rows[wrong]), len(rows[0]), where)
                raise BadRequest(what, param=where or None)

    # ── the table ──

    def table(self, rows: Sequence[Any], names: tuple[str, ...]) -> Any:
        """Return the rows as the estimator takes them: numbers in a float array, categories unchanged."""
        import numpy

        if self.reads.kind == "line":
            return numpy.array(rows, dtype=float)
        if self.reads.kind != "table":
            return rows
        width = len(rows[0]) if rows else self.reads.width or 0
        if names and self.reads.makes_frames and width == len(names) and has("pandas"):
            return self._frame(rows, names)
        as_they_are = self.reads.categories.keys() | self.reads.dates.keys()
        if not any(column in as_they_are for column in range(width)) and all(map(_are_numbers, rows)):
            try:  # null becomes NaN, which some models accept
                return numpy.array(rows, dtype=float).reshape(len(rows), width)
            except OverflowError:  # an integer too large for a float
                pass
        array = numpy.empty((len(rows), width), dtype=object)
        for place, row in enumerate(rows):
            array[place, :] = [self._value(column, value) for column, value in enumerate(row)]
        return array

    def _value(self, column: int | None, value: Any) -> Any:
        if column in self.reads.dates and isinstance(value, (str, type(None))):
            import numpy

            return numpy.datetime64(value or "NaT").astype(self.reads.dates[column])
        return self.reads.categories.get(-1 if column is None else column, NAN) if value is None else value

    def _frame(self, rows: Sequence[Any], names: tuple[str, ...]) -> Any:
        import pandas

        places = {name: place for place, name in enumerate(self.reads.names)}
        columns = {}
        for place, name in enumerate(names):
            column = places.get(name)
            values = [self._value(column, row[place]) for row in rows]
            is_free = column not in self.reads.categories and _are_numbers(values)
            dtype = None if column is None else self.reads.dates.get(column)
            columns[name] = pandas.Series(values, dtype=dtype or (None if is_free else object))
        return pandas.DataFrame(columns, columns=list(names))


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float, type(None))) for value in values)
