"""What is said about the input of a model: its columns, an example, and the JSON schema of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway_tabular.columns import MOST_LISTED, Column, Columns, few, quoted

from .columns import Reads

WORDS = ("inputs", "instances")
TABLES = ("dataframe_records",)
# What a category or a text may be.
ANYTHING = {"type": ["number", "string", "boolean", "null"]}


def columns_of(reads: Reads) -> Columns:
    """Return the columns of a model, to read the cells of CSV and to name values; none if it takes no table."""
    if reads.kind != "table" or reads.width is None:
        return Columns([], has_names=False)
    names = reads.names or [str(place) for place in range(reads.width)]
    return Columns([_column(reads, place, name) for place, name in enumerate(names)], has_names=bool(reads.names))


def _column(reads: Reads, place: int, name: str) -> Column:
    if place in reads.known and place in reads.categories:
        values = [value for value in reads.known[place] if value is not None]
        return Column(name, "known", {value: float(code) for code, value in enumerate(values)})
    if place in reads.texts or place in reads.dates or place in reads.categories:
        return Column(name, "text")
    return Column(name)


def takes(reads: Reads) -> str:
    """Return what a row has, for messages."""
    return f"this model takes {reads.width}" + (f": {few(reads.names)}" if reads.names else "")


def example_of(reads: Reads) -> str:
    """Return a request, for messages."""
    if reads.kind == "table" and reads.names:
        names = reads.names
        return f'{{"inputs": [{{{quoted(names[:1])[0]}: …, …}}, …]}} with a value for each of {few(names)}'
    return {
        "texts": '{"inputs": ["a text", …]}',
        "objects": '{"inputs": [{"name": …, …}, …]}',
        "items": '{"inputs": […]} with what the first step of the model takes',
        "line": '{"inputs": [1.0, …]}',
        "table": f'{{"inputs": [[…], …]}} with {reads.width or "all"} values in each row',
    }[reads.kind]


def schema_of(reads: Reads, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a request: rows, and `options`."""
    kinds, example = _row_schemas(reads)
    rows = {"type": "array", "items": {"anyOf": kinds} if kinds else {}, "minItems": 1}
    several = {"anyOf": [rows, *(kind for kind in kinds if reads.kind != "line")]}
    words: tuple[str, ...] = WORDS
    properties: dict[str, Any] = dict.fromkeys(words, several)
    if reads.kind == "table":
        words = (*WORDS, *TABLES, "dataframe_split")
        split = {"type": "object", "properties": {"columns": {"type": "array"}, "data": rows}, "required": ["data"]}
        properties |= {**dict.fromkeys(TABLES, several), "dataframe_split": split}
    return {
        "type": "object",
        "properties": {**properties, **options},
        "anyOf": [{"required": [word]} for word in words],
        "examples": [{"inputs": [example]}],
    }


def _row_schemas(reads: Reads) -> tuple[list[dict[str, Any]], Any]:
    """Return the possible schemas of a row, and an example."""
    if reads.kind == "texts":
        return [{"type": "string"}], "a text"
    if reads.kind == "objects":
        return [{"type": "object"}], {"name": 0.0}
    if reads.kind == "items":
        return [], "a text"
    if reads.kind == "line":
        return [{"type": "number"}], 0.0
    cells = [_cell(reads, place) for place in range(reads.width or 1)]
    first = cells[0]
    by_place: dict[str, Any] = {"type": "array", "items": first if cells.count(first) == len(cells) else ANYTHING}
    if reads.width is not None:
        by_place |= {"minItems": reads.width, "maxItems": reads.width}
    examples = [_example(reads, place) for place in range(reads.width or 1)]
    if not reads.names:
        return [by_place], examples
    by_name: dict[str, Any] = {"type": "object", "properties": dict(zip(reads.names, cells, strict=True))}
    if not reads.chooses:
        by_name |= {"required": list(reads.names), "additionalProperties": False}
    return [by_name, by_place], dict(zip(reads.names, examples, strict=True))


def _cell(reads: Reads, place: int) -> dict[str, Any]:
    if place in reads.refuse_unknown and len(reads.known[place]) <= MOST_LISTED:
        return {"enum": list(reads.known[place])}
    if place in reads.texts or place in reads.dates:
        return {"type": "string"} if place in reads.texts else {"type": ["string", "null"]}
    return {"type": "number"} if reads.are_numbers else ANYTHING


def _example(reads: Reads, place: int) -> Any:
    """Return a value that the model takes in a column."""
    known = [value for value in reads.known.get(place, ()) if value is not None]
    return known[0] if known else "a text" if place in reads.texts or place in reads.categories else 0.0
