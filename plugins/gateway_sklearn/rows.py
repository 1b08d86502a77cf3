"""Convert JSON to the input of a scikit-learn estimator, and explain why it refused rows.

No rows are refused here that the estimator might accept: it is tried first, and errors are explained afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway_tabular.forms import of_pandas

from gateway import BadRequest

from .columns import NAN, Reads, has

WORDS = ("inputs", "instances")
TOLD = (ValueError, TypeError, AttributeError)  # errors whose messages are useful for a client
LONGEST = 300  # characters of an estimator's own message


@dataclass(frozen=True, slots=True)
class Rows:
    reads: Reads

    def read(self, inputs: Any) -> tuple[list[Any], tuple[str, ...]]:
        """Return the rows in a request, and the names of their columns if there are any.

        Raises:
            BadRequest: there are none, or they are not rows.
        """
        sent = {name: inputs.get(name) for name in WORDS} if isinstance(inputs, Mapping) else {}
        rows, *others = [rows for rows in sent.values() if rows is not None] or [None]
        if others:
            raise BadRequest("inputs and instances mean the same: send one of them", param="instances")
        if rows is None and sent and self.reads.kind == "table":
            rows = of_pandas(inputs, bool(self.reads.names))
        if rows is None:
            raise BadRequest(
                f"nothing to predict: send {self.example}", param="inputs", code="missing_required_parameter"
            )
        rows = self._as_rows(rows)
        if self.reads.kind != "table":
            return rows, ()
        names = self._names(rows)
        read = [self._row(place, row, names) for place, row in enumerate(rows)]
        for place, row in enumerate(read):
            if len(row) != len(read[0]):
                where = place if self.reads.width in (None, len(read[0])) else 0
                raise self._wrong_width(where, len(read[where]), len(read[0]))
        return read, names

    def _as_rows(self, rows: Any) -> list[Any]:
        """Return a list of rows; a single row becomes a list of one."""
        if hasattr(rows, "tolist"):  # an array from a binary body
            rows = rows.tolist()
        kind = self.reads.kind
        if isinstance(rows, Mapping) or (isinstance(rows, str) and kind in ("texts", "items")):
            return [rows]
        if not isinstance(rows, (list, tuple)):
            raise BadRequest(f"inputs is {kind_of(rows)}: send {self.example}", param="inputs")
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

    def _row(self, place: int, row: Any, names: tuple[str, ...]) -> Sequence[Any]:
        where = f"inputs[{place}]"
        if isinstance(row, Mapping):
            return self._by_name(where, row, names)
        if hasattr(row, "tolist"):
            row = row.tolist()
        if not isinstance(row, (list, tuple)):
            raise BadRequest(f"{where} is {kind_of(row)}, not a row: send {self.example}", param="inputs")
        return row

    def _by_name(self, where: str, row: Mapping[str, Any], names: tuple[str, ...]) -> Sequence[Any]:
        known = self.reads.names
        if not known:
            raise BadRequest(
                f"{where} has names, but this model's columns have none: send {self.example}", param="inputs"
            )
        if lost := [name for name in names if name not in row]:
            raise BadRequest(f"{where} lacks {', '.join(lost)} ({self._takes})", param="inputs")
        if unknown := [str(name) for name in row if name not in names and name not in known]:
            raise BadRequest(f"{where} has unknown {', '.join(unknown)} ({self._takes})", param="inputs")
        return [row[name] for name in names]

    # ── the table ──

    def table(self, rows: list[Any], names: tuple[str, ...]) -> Any:
        """Return the rows as the estimator takes them: numbers in a float array, categories unchanged."""
        import numpy

        if self.reads.kind == "line":
            return numpy.array(rows, dtype=float)
        if self.reads.kind != "table":
            return rows
        width = len(rows[0]) if rows else self.reads.width or 0
        if names and width == len(names) and has("pandas"):
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

    # ── what was wrong ──

    def complaint(self, rows: Sequence[Any], names: tuple[str, ...], error: Exception) -> str:
        """Explain why the estimator refused rows, with the first value that is probably the reason."""
        if not len(rows):
            return f"inputs is empty: send {self.example}"
        kind = self.reads.kind
        if kind in ("texts", "objects"):
            wanted, what = (str, "texts") if kind == "texts" else (Mapping, "objects")
            for place, row in enumerate(rows):
                if not isinstance(row, wanted):
                    return f"inputs[{place}] is {kind_of(row)}, this model takes {what}: send {self.example}"
        if kind == "table":
            if not self.reads.chooses and self.reads.width not in (None, len(rows[0])):
                return self._wrong_width(0, len(rows[0]), 0).message
            if gone := [name for name in self.reads.names if name not in names and name in str(error)]:
                return f"inputs[0] lacks {', '.join(gone)} ({self._takes})"
            if found := self._odd_value(rows, names, error):
                return found
        words = str(error).splitlines()[0][:LONGEST] if type(error) in TOLD and str(error) else ""
        return f"the model refused these inputs: {words or type(error).__name__}"

    def _odd_value(self, rows: Sequence[Any], names: tuple[str, ...], error: Exception) -> str | None:
        wants_all = "NaN" in str(error)
        for place, row in enumerate(rows):
            for column, value in enumerate(row):
                where = f"inputs[{place}][{names[column]!r}]" if column < len(names) else f"inputs[{place}][{column}]"
                is_nan = value is None or (isinstance(value, float) and value != value)
                if wants_all and is_nan and column not in self.reads.categories:
                    return f"{where} is null or NaN, and this model needs every value: send a number"
                if self.reads.are_numbers and not isinstance(value, (int, float, type(None))):
                    return f"{where} is {kind_of(value)}: send a number"
                if isinstance(value, (list, tuple, Mapping)):
                    return f"{where} is {kind_of(value)}: send one value there, and a row for each prediction"
                if self._known(column, names) in self.reads.texts and not isinstance(value, str):
                    return f"{where} is {kind_of(value)}: send a string"
        return None

    def _known(self, column: int, names: tuple[str, ...]) -> int:
        """Return the model's index of the column at this position in the request."""
        known = self.reads.names
        return known.index(names[column]) if column < len(names) and names[column] in known else column

    def _wrong_width(self, place: int, found: int, first: int) -> BadRequest:
        if self.reads.width is None:
            what = f"inputs[{place}] has {found} values, and inputs[0] has {first}"
        else:
            what = f"inputs[{place}] has {found} values, {self._takes}"
        return BadRequest(what, param="inputs")

    @property
    def _takes(self) -> str:
        names = f": {', '.join(self.reads.names)}" if self.reads.names else ""
        return f"this model takes {self.reads.width}{names}"

    # ── what is said about it ──

    @property
    def example(self) -> str:
        if self.reads.kind == "table" and self.reads.names:
            names = self.reads.names
            return f'{{"inputs": [{{"{names[0]}": …, …}}, …]}} with a value for each of {", ".join(names)}'
        return {
            "texts": '{"inputs": ["a text", …]}',
            "objects": '{"inputs": [{"name": …, …}, …]}',
            "items": '{"inputs": […]} with what the first step of the model takes',
            "line": '{"inputs": [1.0, …]}',
            "table": f'{{"inputs": [[…], …]}} with {self.reads.width or "all"} values in each row',
        }[self.reads.kind]

    def schema(self) -> dict[str, Any]:
        kinds, example = self._row_schemas()
        rows = {"type": "array", "items": {"anyOf": kinds} if kinds else {}, "minItems": 1}
        several = {"anyOf": [rows, *(kind for kind in kinds if self.reads.kind != "line")]}
        return {
            "type": "object",
            "properties": dict.fromkeys(WORDS, several),
            "anyOf": [{"required": ["inputs"]}, {"required": ["instances"]}],
            "examples": [{"inputs": [example]}],
        }

    def _row_schemas(self) -> tuple[list[dict[str, Any]], Any]:
        """Return the possible schemas of a row, and an example."""
        if self.reads.kind == "texts":
            return [{"type": "string"}], "a text"
        if self.reads.kind == "objects":
            return [{"type": "object"}], {"name": 0.0}
        if self.reads.kind == "items":
            return [], "a text"
        if self.reads.kind == "line":
            return [{"type": "number"}], 0.0
        anything = {"type": ["number", "string", "boolean", "null"]}
        cell = {"type": "number"} if self.reads.are_numbers else anything
        by_place: dict[str, Any] = {"type": "array", "items": cell}
        width, names = self.reads.width, self.reads.names
        if width is not None:
            by_place |= {"minItems": width, "maxItems": width}
        if not names:
            return [by_place], [0.0] * (width or 1)
        cells = {name: anything if place in self.reads.categories else cell for place, name in enumerate(names)}
        by_name: dict[str, Any] = {"type": "object", "properties": cells}
        if not self.reads.chooses:
            by_name |= {"required": list(names), "additionalProperties": False}
        return [by_name, by_place], dict.fromkeys(names, 0.0)


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float, type(None))) for value in values)


def kind_of(value: Any) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", type(None): "null"}
    return names.get(type(value), "a list" if isinstance(value, (list, tuple)) else "an object")
