"""The columns of a model: their names, which of them hold categories, and their JSON schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

MOST_SHOWN = 10  # names in one message
LONGEST = 64  # characters of a name or value in one message
MOST_LISTED = 100  # categories in the schema of a column

# number: a number, true or false · known: one of `Column.codes` · code: the number of a category, from 0 on
# text: any string or whole number, which the library looks up itself
Kind = Literal["number", "known", "code", "text"]


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind = "number"
    codes: Mapping[Any, float] | None = None  # of a `known` column: the number by which the model knows each value

    def schema(self) -> dict[str, Any]:
        if self.kind == "known" and self.codes is not None and len(self.codes) <= MOST_LISTED:
            return {"enum": [*self.codes, None]}
        if self.kind == "known":
            return {"type": ["string", "number", "boolean", "null"]}
        if self.kind == "text":
            return {"type": ["string", "integer", "null"]}
        return {"type": ["number", "null"]} if self.kind == "number" else {"type": ["integer", "null"], "minimum": 0}

    @property
    def example(self) -> Any:
        if self.codes:
            return next(iter(self.codes))
        return "a" if self.kind == "text" else 0 if self.kind == "code" else 0.0


class Columns:
    """All columns of a model, in its order. `has_names` is false if a request cannot name them."""

    def __init__(self, columns: Sequence[Column], *, has_names: bool = True) -> None:
        self.columns = tuple(columns)
        self.width = len(self.columns)
        self.names = tuple(column.name for column in self.columns)
        self.has_names = has_names
        self.index = {name: place for place, name in enumerate(self.names)} if has_names else {}
        self.coded = [(place, column) for place, column in enumerate(self.columns) if column.kind != "number"]

    def named(self, names: Sequence[str]) -> Columns:
        """Return the same columns with other names, if there are any."""
        if not names:
            return self
        return Columns([replace(column, name=name) for column, name in zip(self.columns, names, strict=True)])

    @property
    def taken(self) -> str:
        """What a row has, for messages."""
        return f"this model takes {self.width}" + (f": {few(self.names)}" if self.has_names else "")

    @property
    def example(self) -> str:
        """A request, for messages."""
        if self.has_names:
            return f'{{"inputs": [{{{quoted(self.names[:1])[0]}: …, …}}]}} with a value for each of {few(self.names)}'
        return f'{{"inputs": [[…], …]}} with {self.width} values in each row'

    def label(self, column: int) -> str:
        """The place of a value in its row, for messages."""
        return f"[{quoted([self.names[column]])[0]}]" if self.has_names else f"[{column}]"

    def schema(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the schema of a request: rows, or records if the columns have names; and `options`."""
        cells = [column.schema() for column in self.columns]
        first = cells[0] if cells else {}
        alike = all(cell == first for cell in cells)
        row: dict[str, Any] = {"type": "array", "minItems": self.width, "maxItems": self.width}
        row |= {"items": first} if alike else {"prefixItems": cells, "items": _any_of(cells)}
        kinds, example = [row], [column.example for column in self.columns]
        if self.has_names:
            record: dict[str, Any] = {"type": "object", "properties": dict(zip(self.names, cells, strict=True))}
            kinds = [{**record, "required": list(self.names), "additionalProperties": False}, row]
            example = dict(zip(self.names, example, strict=True))  # type: ignore[assignment]
        rows = {"type": "array", "items": {"anyOf": kinds}, "minItems": 1}
        words = ("inputs", "instances", "dataframe_records")
        several = {"anyOf": [rows, *kinds]}
        split = {"type": "object", "properties": {"columns": {"type": "array"}, "data": rows}, "required": ["data"]}
        return {
            "type": "object",
            "properties": {**dict.fromkeys(words, several), "dataframe_split": split, **options},
            "anyOf": [{"required": [word]} for word in (*words, "dataframe_split")],
            "examples": [{"inputs": [example]}],
        }


def _any_of(schemas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"anyOf": list({repr(schema): schema for schema in schemas}.values())}


def few(values: Sequence[Any]) -> str:
    """Return the first values as text."""
    shown = ", ".join(short(value) for value in values[:MOST_SHOWN])
    return f"{shown}, … ({len(values)} in all)" if len(values) > MOST_SHOWN else shown


def short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def quoted(values: Sequence[Any]) -> list[str]:
    return [repr(short(value)) if isinstance(value, str) else short(value) for value in values]


def kind_of(value: Any) -> str:
    """Return what a JSON value is, for messages."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text", type(None): "null"}
    return names.get(type(value), "a list" if isinstance(value, (list, tuple)) else "an object")
