"""Read a body of Arrow IPC, a stream or a file, with pyarrow: columns of numbers, texts, categories, dates and nulls.

A body cannot become much larger than it is: compressed ones are refused, and so are types that stand for more values
than they have, or that hold others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gateway import BadRequest, HTTPError

from .arrow_messages import stream_of
from .columns import Columns, short
from .forms import in_order

STREAM, FILE = "application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.file"
MISSING = "Arrow needs pyarrow; run: pip install 'model-gateway[arrow]' (or send JSON or CSV)"
MOST_CELLS = 1 << 24  # values in a body; as many as JSON of the largest default body has
MOST_COLUMNS = 100_000
MOST_TEXT = 1 << 28  # bytes of the texts in a body, which may share what they consist of
INDEX = re.compile(r"__index_level_\d+__")  # that pandas adds


def read_arrow(body: bytes) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the names of the columns in a body, and its rows.

    Raises:
        HTTPError: pyarrow is not installed.
        BadRequest: the body is not Arrow IPC, or has types that no table of a model has.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise HTTPError(415, MISSING, code="unsupported_media_type") from error
    stream = stream_of(body)
    try:
        with pyarrow.ipc.open_stream(pyarrow.py_buffer(stream)) as reader:
            schema = reader.schema
            _check_types(pyarrow, schema)
            batches = _batches(reader, len(schema), len(body))
            names = [str(name) for name in schema.names]
            values = _Values(pyarrow, len(body))
            columns = [
                [value for batch in batches for value in values.of(batch.column(place))] for place in range(len(names))
            ]
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError) as error:
        words = short(str(error).splitlines()[0]) if str(error) else type(error).__name__
        raise BadRequest(f"the body is not a valid stream of Arrow IPC: {words}", code="invalid_value") from error
    kept = [place for place, name in enumerate(names) if INDEX.fullmatch(name) is None]
    return [names[place] for place in kept], list(zip(*(columns[place] for place in kept), strict=True))


def rows_in_order(body: bytes, columns: Columns) -> Sequence[Sequence[Any]]:
    """Return the rows in a body in the order of the model. Names count only if the model's columns have some.

    Raises:
        HTTPError, BadRequest: as `read_arrow` does, or it has other columns than the model.
    """
    names, rows = read_arrow(body)
    if columns.has_names:
        return in_order(names, rows, "the schema of the body", columns)
    if len(names) != columns.width:
        raise BadRequest(f"the body has {len(names)} columns, {columns.taken}")
    return rows


def _batches(reader: Any, columns: int, size: int) -> list[Any]:
    """Return all batches, validated: what pyarrow reads is otherwise not checked against its buffers."""
    batches, rows = [], 0
    for batch in reader:
        rows += batch.num_rows
        # Each value has at least a bit, but a column of nulls has none.
        if rows * max(columns, 1) > min(MOST_CELLS, 8 * size):
            raise BadRequest(f"the body has more than {min(MOST_CELLS, 8 * size):,} values: send several requests")
        batch.validate(full=True)
        batches.append(batch)
    return batches


def _check_types(pyarrow: Any, schema: Any) -> None:
    if len(schema) > MOST_COLUMNS:
        raise BadRequest(f"the body has more than {MOST_COLUMNS:,} columns")
    for field in schema:
        kind = field.type
        if pyarrow.types.is_dictionary(kind):
            kind = kind.value_type
        if not _is_plain(pyarrow.types, kind):
            what = f"has the type {short(field.type)}: send numbers, texts, booleans, dates or a dictionary of these"
            raise BadRequest(f"the column {short(field.name)!r} {what}", param=short(field.name), code="invalid_type")


def _is_plain(types: Any, kind: Any) -> bool:
    checks = (
        *(types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_null),
        *(types.is_string, types.is_large_string, types.is_string_view, types.is_date, types.is_timestamp),
    )
    return any(check(kind) for check in checks)


class _Values:
    """Makes values of columns. All columns together have so many values, and so much text, as a body may have.

    Buffers may share their bytes, so that a small body could have any amount of text.
    """

    def __init__(self, pyarrow: Any, size: int) -> None:
        self._pyarrow = pyarrow
        self._most = self._left = min(MOST_CELLS, 8 * size)
        self._most_text = self._text_left = max(MOST_TEXT, size)
        self._dictionaries: dict[Any, list[Any]] = {}  # by where they are

    def of(self, column: Any) -> list[Any]:
        """Return the values of a column: None where one is missing, and dates as texts."""
        kind, types = column.type, self._pyarrow.types
        if types.is_dictionary(kind):  # each text once, however often it occurs
            values = self._dictionary(column.dictionary)
            return [None if place is None else values[place] for place in column.indices.to_pylist()]
        if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            self._text_left -= _text(types, column)
            if self._text_left < 0:
                raise BadRequest(f"the body has more than {self._most_text:,} bytes of text: send several requests")
        if types.is_date(kind) or types.is_timestamp(kind):
            column = column.cast(self._pyarrow.string())
        if types.is_decimal(kind):
            return [None if value is None else float(value) for value in column.to_pylist()]
        if column.null_count == 0 and (types.is_integer(kind) or types.is_floating(kind)):
            return column.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
        return column.to_pylist()  # type: ignore[no-any-return]

    def _dictionary(self, column: Any) -> list[Any]:
        """Return the values of a dictionary, which batches share. One of nulls has no bytes, whatever its length."""
        place = (str(column.type), len(column), column.offset, *(each and each.address for each in column.buffers()))
        if place not in self._dictionaries:
            self._left -= len(column)
            if self._left < 0:
                raise BadRequest(f"the dictionaries of the body have more than {self._most:,} values")
            self._dictionaries[place] = self.of(column)
        return self._dictionaries[place]


def _text(types: Any, column: Any) -> int:
    """Return the bytes of the texts in a column that was validated."""
    import numpy

    buffer = column.buffers()[1]
    if buffer is None or not len(column):
        return 0
    start, count = column.offset, len(column)
    if types.is_string_view(column.type):
        lengths = numpy.frombuffer(buffer, numpy.int32)[4 * start :: 4][:count]
        return int(lengths.clip(0).sum(dtype=numpy.int64))
    size = numpy.int64 if types.is_large_string(column.type) else numpy.int32
    ends = numpy.frombuffer(buffer, size)[start : start + count + 1]
    return int(ends[-1]) - int(ends[0])
