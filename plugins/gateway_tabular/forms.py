"""Find the rows in the body of a request. All forms give lists of values in the order of the model's columns.

rows       {"inputs": [[1, 2], …]}, also as "instances", alone as [[1, 2], …], or one row: {"inputs": [1, 2]}
records    {"inputs": [{"a": 1, "b": 2}, …]}, also as "instances", "records", "dataframe_records", or alone
columns    {"inputs": {"a": [1, …], "b": [2, …]}}, or alone
split      {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], …]}}, as pandas writes it, or alone
arrays     a table of NumPy in a binary body, wherever rows may be
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from gateway import BadRequest

from .columns import Columns, few, kind_of, short

WORDS = ("inputs", "instances", "dataframe_records", "records", "dataframe_split")
SPLIT = frozenset(("columns", "data", "index"))
PASSED_OVER = frozenset(("model", "id"))  # names that clients send along with any request


class Found(NamedTuple):
    rows: Any  # a list of rows of the model's width or an array
    where: str  # the field, for messages
    options: Mapping[str, Any]  # the other fields


def find_rows(inputs: Any, columns: Columns, options: Sequence[str]) -> Found:
    """Return the rows in a body, in the order of the model.

    Raises:
        BadRequest: there are none, they do not have the model's columns, or there is a field of another name.
    """
    value, where, given = find_value(inputs, columns.index, options, columns.example)
    is_bare = not where and isinstance(value, Mapping)
    if is_bare and not (value and (value.keys() <= SPLIT or not columns.index.keys().isdisjoint(value))):
        raise nothing(value, columns.example)
    is_a_split = is_split(value, columns.index)
    return Found(_split(value, where, columns) if is_a_split else _rows(value, where, columns), where, given)


def find_value(inputs: Any, names: Container[str], options: Sequence[str], example: str) -> Found:
    """Return what holds the rows in a body: what a word of `WORDS` has, or the body itself.

    A field that is the name of a column is data, not a word. `example` is a request, for messages.

    Raises:
        BadRequest: there are two such words, or a field of another name beside one.
    """
    if not isinstance(inputs, Mapping):
        return Found(inputs, "", {})
    sent = [word for word in WORDS if inputs.get(word) is not None and word not in names]
    if len(sent) > 1:
        raise BadRequest(f"{sent[0]} and {sent[1]} both hold rows: send one of them", param=sent[1])
    given = {name: inputs[name] for name in options if inputs.get(name) is not None and name not in names}
    for name, value in given.items():
        if type(value) is not bool:
            raise BadRequest(f"{name} is {kind_of(value)}: send true or false", param=name, code="invalid_type")
    if sent:
        _refuse_others(inputs, {*WORDS, *options})
        return Found(inputs[sent[0]], sent[0], given)
    passed_over = {name for name in PASSED_OVER if name not in names}
    return Found(
        {name: value for name, value in inputs.items() if name not in given and name not in passed_over}, "", given
    )


def _refuse_others(inputs: Mapping[str, Any], known: set[str]) -> None:
    for name, value in inputs.items():
        if value is not None and name not in known and name not in PASSED_OVER:
            what = f"the field {short(name)!r} is not known (known: {', '.join(sorted(known))})"
            raise BadRequest(what, param=short(name), code="unsupported_value")


def nothing(inputs: Mapping[str, Any], example: str) -> BadRequest:
    """Return the error for a body without rows. `example` is a request."""
    others = [name for name in inputs if name not in WORDS]
    hint = f" (it has {few(others)})" if others else ""
    what = f"nothing to predict{hint}: send {example}"
    return BadRequest(what, param="inputs", code="missing_required_parameter")


def is_split(value: Any, names: Container[str]) -> bool:
    """Return whether it is a table as pandas splits it. `names` are those of the model's columns."""
    return isinstance(value, Mapping) and "data" in value and "data" not in names and value.keys() <= SPLIT


def is_by_columns(value: Any) -> bool:
    """Return whether it is a table by columns, not a record."""
    return isinstance(value, Mapping) and any(
        isinstance(each, (list, tuple)) or getattr(each, "ndim", 0) for each in value.values()
    )


def _rows(value: Any, where: str, columns: Columns) -> Any:
    """Return rows of the model's width, in its order, or an array."""
    if hasattr(value, "dtype"):
        return value
    if isinstance(value, Mapping):
        value = transposed(value, where) if is_by_columns(value) else [value]
    if not isinstance(value, (list, tuple)):
        raise BadRequest(f"{where or 'the body'} is {kind_of(value)}: send {columns.example}", param=where or None)
    if value and not isinstance(value[0], (list, tuple, Mapping)) and not hasattr(value[0], "dtype"):
        value = [value]  # one row
    if any(isinstance(row, Mapping) for row in value):
        return _by_name(value, where, columns)
    for place, row in enumerate(value):
        if hasattr(row, "dtype"):
            value[place] = row = row.tolist()
        if not isinstance(row, (list, tuple)):
            what = f"{where}[{place}] is {kind_of(row)}, not a row: send {columns.example}"
            raise BadRequest(what, param=where or None)
        if len(row) != columns.width:
            raise BadRequest(f"{where}[{place}] has {len(row)} values, {columns.taken}", param=where or None)
    return value


def _by_name(records: Sequence[Any], where: str, columns: Columns) -> list[Sequence[Any]]:
    width, take = columns.width, _taker(columns.names)
    found = []
    for place, record in enumerate(records):
        try:
            if len(record) != width or not columns.has_names:
                raise KeyError
            found.append(take(record))
        except (KeyError, TypeError):
            raise _wrong_record(record, f"{where}[{place}]", where, columns) from None
    return found


def _wrong_record(record: Any, place: str, where: str, columns: Columns) -> BadRequest:
    param = where or None
    if not isinstance(record, Mapping):
        return BadRequest(f"{place} is {kind_of(record)}, but others are objects: send {columns.example}", param=param)
    if not columns.has_names:
        return BadRequest(f"{place} has names, but this model's columns have none: send {columns.example}", param=param)
    if lost := [name for name in columns.names if name not in record]:
        return BadRequest(f"{place} lacks {few(lost)} ({columns.taken}); null is a missing value", param=param)
    unknown = [name for name in record if name not in columns.index]
    return BadRequest(f"{place} has unknown {few(unknown)} ({columns.taken})", param=param)


def _taker(keys: Sequence[Any]) -> Any:
    """Return a function that returns a tuple of these values of a record or a row."""
    return itemgetter(*keys) if len(keys) > 1 else lambda values: tuple(values[key] for key in keys)


def transposed(table: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Return the records of a table by columns.

    Raises:
        BadRequest: the columns are not lists of one length.
    """
    table = {name: each.tolist() if hasattr(each, "tolist") else each for name, each in table.items()}
    first = next(iter(table))
    for name, values in table.items():
        if not isinstance(values, (list, tuple)):
            what = f"{where}[{short(name)!r}] is {kind_of(values)}, but others are lists: send a list for each column"
            raise BadRequest(what, param=where or None)
        if len(values) != len(table[first]):
            what = f"{where}[{short(name)!r}] has {len(values)} values, {short(first)!r} has {len(table[first])}"
            raise BadRequest(what, param=where or None)
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def _split(value: Mapping[str, Any], where: str, columns: Columns) -> Any:
    """Return the rows of pandas' split, in the order of the model."""
    inner = f"{where}.data" if where else "data"
    if value.get("columns") is None:
        return _rows(value["data"], inner, columns)
    names, rows = named_rows(value, where)
    return in_order(names, rows, "columns", columns)


def named_rows(split: Mapping[str, Any], where: str) -> tuple[Sequence[str], Sequence[Any]]:
    """Return the names of columns in pandas' split, and its rows in their order.

    Raises:
        BadRequest: they do not fit each other.
    """
    names, data = split.get("columns"), split.get("data")
    inner = f"{where}.data" if where else "data"
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise BadRequest("columns is not a list of names", param="columns", code="invalid_type")
    if hasattr(data, "tolist"):
        data = data.tolist()
    if not isinstance(data, (list, tuple)):
        raise BadRequest(f"{inner} is {kind_of(data)}: send a list of rows", param=where or None)
    refuse_repeated(names, "columns")
    for place, row in enumerate(data):
        if not isinstance(row, (list, tuple)) or len(row) != len(names):
            what = f"{len(row)} values" if isinstance(row, (list, tuple)) else kind_of(row)
            raise BadRequest(f"{inner}[{place}] is not a row of {len(names)} values but {what}", param=where or None)
    return names, data


def in_order(names: Sequence[str], rows: Sequence[Sequence[Any]], where: str, columns: Columns) -> Sequence[Any]:
    """Return rows whose values are in the order of `names` in the order of the model.

    Raises:
        BadRequest: the names are not those of the model.
    """
    if tuple(names) == columns.names:
        return rows
    refuse_repeated(names, where)
    places = {name: place for place, name in enumerate(names)}
    if not columns.has_names or places.keys() != columns.index.keys():
        raise _wrong_record(places, where, "columns", columns)
    take = _taker([places[name] for name in columns.names])
    return [take(row) for row in rows]


def refuse_repeated(names: Sequence[str], where: str) -> None:
    """Raise `BadRequest` if two columns have one name."""
    if len(set(names)) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise BadRequest(f"{where} has {few(twice)} more than once", param="columns")
