"""Read a CSV body: one line for each row, with or without a first line of names.

`text/csv; header=present` or `absent` (RFC 4180) says whether there is one. Otherwise it is one if it has a name of a
column, or, for columns without names, nothing but texts. An empty cell, NA, NaN and null are missing values.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from gateway import BadRequest

from .columns import Column, Columns
from .forms import in_order

MOST_CELLS = 1 << 24  # values in a body, each of which becomes an object; Arrow may have as many
MISSING = frozenset(("", "na", "nan", "null", "none", "n/a"))


def read_csv(body: bytes, content_type: str, columns: Columns) -> Sequence[Sequence[Any]]:
    """Return the rows of a body in the order of the model.

    Raises:
        BadRequest: it is not CSV, or has other columns than the model.
    """
    names, lines = split_csv(body, content_type, columns)
    if names is not None and columns.has_names:
        lines = in_order(names, lines, "the first line of the body", columns)
    return typed(lines, columns.columns)


def split_csv(body: bytes, content_type: str, columns: Columns) -> tuple[list[str] | None, Sequence[Sequence[str]]]:
    """Return the names in the first line of a body, None if there are none, and the cells of the other lines.

    Lines without names have the model's width, and so do those with names if the model's columns have none.

    Raises:
        BadRequest: it is not CSV, or has lines of different lengths.
    """
    if sum(body.count(each) for each in (b",", b"\n", b"\r")) > MOST_CELLS:
        raise BadRequest(f"the body has more than {MOST_CELLS:,} values: send several requests")
    try:
        text = body.decode("utf-8-sig")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadRequest(f"the body is not CSV in UTF-8: {error}", code="invalid_value") from error
    if not lines:
        raise BadRequest("nothing to predict: the body has no line", code="missing_required_parameter")
    names = [cell.strip() for cell in lines[0]]
    has_header = _has_header(names, content_type, columns)
    width = len(lines[0])
    for place, line in enumerate(lines):
        if len(line) != width or (not has_header and width != columns.width):
            other = f"the first has {width}" if len(line) != width else f"but {columns.taken}"
            raise BadRequest(f"line {place + 1} of the body has {len(line)} values, {other}")
    if has_header and not columns.has_names and width != columns.width:
        raise BadRequest(f"the body has {width} columns, {columns.taken}")
    return (names, lines[1:]) if has_header else (None, lines)


def typed(lines: Sequence[Sequence[str]], columns: Sequence[Column]) -> list[list[Any]]:
    """Return the values in cells. `columns` are those of the cells in a line."""
    read = [_reader(column) for column in columns]
    return [[each(cell) for each, cell in zip(read, line, strict=True)] for line in lines]


def _reader(column: Column) -> Callable[[str], Any]:
    if column.kind in ("known", "text"):
        return partial(_known, codes=column.codes if column.kind == "known" else None)
    return _number


def _has_header(names: Sequence[str], content_type: str, columns: Columns) -> bool:
    parameters = [part.strip().lower().replace('"', "") for part in content_type.split(";")[1:]]
    if "header=present" in parameters:
        return True
    if "header=absent" in parameters:
        return False
    if columns.has_names:
        return not columns.index.keys().isdisjoint(names)
    return all(isinstance(_number(name), str) for name in names)


def _number(cell: str) -> Any:
    """Return the number in a cell, None for a missing value, and the text if it is neither."""
    text = cell.strip()
    if text.lower() in MISSING:
        return None
    try:
        return float(text) if "_" not in text else cell  # Python would read 1_000
    except ValueError:
        return {"true": True, "false": False}.get(text.lower(), cell)


def _known(cell: str, codes: Any) -> Any:
    """Return the category in a cell: the text itself if the model knows it, otherwise the number in it."""
    if codes is None:
        return cell or None  # "NA" may be a text
    if cell in codes:
        return cell
    if (text := cell.strip()) in codes:
        return text
    number = _number(cell)
    return number if number is None or number in codes else text
