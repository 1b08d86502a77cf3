"""What a skops file holds, found out in little memory: the types of its objects, and what it would unpack to.

skops unpacks every array to name the types, as often as the schema names it, and follows an object as often as its id
stands there, which may be without end. So it is shown the schema alone, with empty arrays, and ids that are honest.
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
LARGEST_TABLE = 8 << 20  # bytes of names, for about a hundred thousand arrays
MOST_VALUES = 4_000_000  # of the schema
ALWAYS = 1 << 28  # bytes that any file may unpack to
TIMES = 64  # its size; arrays are rarely packed at all


def untrusted_types(file: Path) -> list[str]:
    """The types in it that skops does not know to be harmless.

    Raises:
        OSError: it cannot be read, is no zip file, or one that nobody could read.
        ValueError, KeyError, TypeError: what it says makes no sense.
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
    """The files that it names, and how often each; and whether ids were taken away.

    skops writes an object in full each time that it comes. A few bytes with the id of a large one would stand for it.
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
