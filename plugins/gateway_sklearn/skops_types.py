"""Inspect a skops file with little memory: the types of its objects, and the size that it would unpack to.

To list types, skops unpacks every array as often as the schema mentions it, and follows an object each time its id
occurs, possibly endlessly. So it only gets the schema, with empty arrays and consistent ids.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from gateway import ConfigError, parse_json, peek_archive

SCHEMA = "schema.json"
LARGEST_SCHEMA = 128 << 20  # bytes; three thousand small trees have half of it
LARGEST_TABLE = 8 << 20  # bytes of names, for about 100,000 arrays
MOST_VALUES = 4_000_000  # in the schema
ALWAYS = 1 << 28  # bytes that any file may unpack to
TIMES = 64  # multiples of the file size; arrays are rarely compressed


def untrusted_types(file: Path) -> list[str]:
    """Return the types in a file that skops does not know to be safe.

    Raises:
        OSError: the file cannot be read, or is not a readable zip file.
        ValueError, KeyError, TypeError: its content is invalid.
        ConfigError: it would unpack to far more than its size.
    """
    import skops.io

    text, sizes = peek_archive(file, SCHEMA, LARGEST_SCHEMA, LARGEST_TABLE)
    schema = parse_json(text, MOST_VALUES)
    try:
        named, is_odd = _looked_through(schema)
        text = json.dumps(schema).encode() if is_odd else text
        del schema
        _check_sizes(file, named, sizes)
        shown = io.BytesIO()
        with ZipFile(shown, "w") as archive:
            for name in named.keys() - {SCHEMA}:
                archive.writestr(name, b"")
            archive.writestr(SCHEMA, text)
        return skops.io.get_untrusted_types(data=shown.getvalue())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _check_sizes(file: Path, named: Counter[str], sizes: Mapping[str, int]) -> None:
    if absent := named.keys() - sizes.keys():
        raise KeyError(f"there is no {min(absent)} in it")
    size = sum(sizes[name] * times for name, times in named.items())
    if size > ALWAYS + TIMES * file.stat().st_size:
        raise ConfigError(f"{file} would unpack to {size:,} bytes, more than {TIMES} times its size; it is not opened")


def _looked_through(schema: Any) -> tuple[Counter[str], bool]:
    """Return the files in the schema with their number of uses, and whether ids were removed.

    skops writes an object in full each time it occurs. Otherwise, a few bytes with the id of a large object could stand
    for it.
    """
    named: Counter[str] = Counter()
    known: dict[Any, Any] = {}
    is_odd = False
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "__id__" in value and known.setdefault(value["__id__"], value) != value:
                del value["__id__"]
                is_odd = True
            if isinstance(value.get("file"), str):
                named[value["file"]] += 1
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return named, is_odd
