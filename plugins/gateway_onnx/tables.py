"""Requests in the forms of tables as the inputs of a graph: rows, records, columns and the splits of pandas.

A graph has one input for all columns, or one for each column. A column for an input `(n, 1)` is sent as n values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway_tabular.forms import WORDS, is_by_columns, is_split, named_rows, refuse_repeated, transposed
from gateway_tensors.types import Value
from gateway_tensors.values import IGNORED, short

from gateway import BadRequest

Names = Sequence[str]


class Tables:
    """Reads tables for the inputs of a graph. `columns` are the names in its one input, if they are known."""

    def __init__(self, inputs: Sequence[Value], columns: Names = ()) -> None:
        self._inputs = {each.name: each for each in inputs}
        needed = [each.name for each in inputs if not each.has_default and each.type.kind != "optional"]
        self._needed, self._columns = needed, tuple(columns)

    def by_input(self, body: Any) -> Any:
        """Return a body that has a field for each input, if it has another form; otherwise the body itself.

        Raises:
            BadRequest: it is a table that does not fit the inputs.
        """
        if isinstance(body, list):
            return self._of_rows(None, body, "the body")
        if not isinstance(body, Mapping):
            return body
        sent = [word for word in WORDS if body.get(word) is not None and word not in self._inputs]
        if not sent:
            return body
        if len(sent) > 1:
            raise BadRequest(f"{sent[0]} and {sent[1]} both hold rows: send one of them", param=sent[1])
        word = sent[0]
        for name, value in body.items():
            if value is not None and name not in (*IGNORED, word):
                what = f"{short(name)} is sent beside {word}: send all inputs in it, or each by its name"
                raise BadRequest(what, param=str(name)[:60], code="unsupported_value")
        return self._of_value(body[word], word)

    def _of_value(self, value: Any, where: str) -> Any:
        if where == "dataframe_split" and not is_split(value, ()):
            raise BadRequest(f"{where} has to be an object with columns and data", param=where)
        if is_split(value, self._inputs):
            if value.get("columns") is None:
                return self._of_rows(None, value["data"], where)
            return self._of_rows(*named_rows(value, where), where)
        if isinstance(value, Mapping):
            if not self._inputs.keys().isdisjoint(value):  # by input, as tensors or columns
                return {name: self._column(name, each) for name, each in value.items()}
            value = transposed(value, where) if is_by_columns(value) else [value]
        if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
            return self._of_records(value, where)
        return self._of_rows(None, value, where)

    def _of_records(self, records: Sequence[Mapping[str, Any]], where: str) -> Any:
        names = tuple(records[0])
        for place, record in enumerate(records):
            if record.keys() != records[0].keys():
                raise BadRequest(f"{where}[{place}] has other names than {where}[0]", param=where)
        return self._of_rows(
            names,
            [
                tuple(record.values()) if tuple(record) == names else tuple(record[name] for name in names)
                for record in records
            ],
            where,
        )

    def _of_rows(self, names: Names | None, rows: Any, where: str) -> Any:
        """Return the rows of a table by input. `names` are those of its columns."""
        if names is not None and not self._inputs.keys().isdisjoint(names):
            refuse_repeated(names, where)
            return {name: self._column(name, [row[place] for row in rows]) for place, name in enumerate(names)}
        if len(self._needed) == 1:
            return {self._needed[0]: self._ordered(names, rows, where)}
        if (
            not isinstance(rows, (list, tuple))
            or names is not None
            or not all(isinstance(row, (list, tuple)) and len(row) == len(self._needed) for row in rows)
        ):
            what = f"{where} has to have a column for each input: {', '.join(self._needed[:20])}"
            raise BadRequest(what, param=where)
        return {name: self._column(name, [row[place] for row in rows]) for place, name in enumerate(self._needed)}

    def _ordered(self, names: Names | None, rows: Any, where: str) -> Any:
        """Return rows with their values in the order of the input's columns."""
        if names is None or tuple(names) == self._columns:
            return [list(row) if isinstance(row, tuple) else row for row in rows] if names is not None else rows
        if not self._columns:
            what = f"{where} has names of columns, which the model does not have: send rows without names"
            raise BadRequest(what, param=where)
        refuse_repeated(names, where)
        if lost := [name for name in self._columns if name not in names]:
            raise BadRequest(f"{where} lacks {', '.join(lost[:20])}", param=where)
        if unknown := [name for name in names if name not in self._columns]:
            raise BadRequest(f"{where} has unknown {short(unknown[0])}", param=where)
        places = [list(names).index(name) for name in self._columns]
        return [[row[place] for place in places] for row in rows]

    def _column(self, name: str, values: Any) -> Any:
        """Return the values of one column in the shape of its input."""
        kind = self._inputs[name].type if name in self._inputs else None
        is_column = kind is not None and kind.kind == "tensor" and kind.dims is not None and len(kind.dims) == 2
        if is_column and isinstance(values, list) and not any(isinstance(each, (list, tuple)) for each in values):
            return [[value] for value in values]
        if is_column and not isinstance(values, (list, tuple)) and not hasattr(values, "shape"):
            return [[values]]  # of one record
        return values
