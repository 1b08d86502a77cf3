"""Find the line of a key in a TOML file; tomllib does not report lines.

Used only for error messages and `origin`, so it only has to be right for files as people write them.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

Key = tuple[str, ...]

_HEADER = re.compile(r"\s*(\[\[?)(.+?)\]\]?\s*(#.*)?")
_ASSIGNMENT = re.compile(r"""\s*((?:"(?:[^"\\]|\\.)*"|'[^']*'|[^=#"'\[{])+?)\s*=""")


def key_lines(text: str) -> dict[Key, int]:
    """Return the line of every table and key. Keys in an array of tables contain their index, as a string."""
    lines: dict[Key, int] = {}
    table: Key = ()
    counts: dict[Key, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if match := _HEADER.fullmatch(line):
            if (key := _parts(match[2])) is None:
                continue
            if match[1] == "[[":
                index = counts[key] = counts.get(key, -1) + 1
                lines.setdefault(key, number)
                key = (*key, str(index))
            table = key
            for end in range(1, len(key) + 1):
                lines.setdefault(key[:end], number)
        elif (match := _ASSIGNMENT.match(line)) and (key := _parts(match[1])) is not None:
            for end in range(1, len(key) + 1):
                lines.setdefault((*table, *key[:end]), number)
    return lines


def line_of(lines: dict[Key, int], key: Key) -> int | None:
    """Return the line of the key, or of the nearest table around it."""
    while key:
        if key in lines:
            return lines[key]
        key = key[:-1]
    return None


def _parts(written: str) -> Key | None:
    """Let tomllib parse the key: it may be quoted and dotted."""
    try:
        node: Any = tomllib.loads(f"{written} = 0")
    except tomllib.TOMLDecodeError:
        return None
    parts: list[str] = []
    while isinstance(node, dict):
        if not node:  # only a comment
            return None
        name, node = next(iter(node.items()))
        parts.append(name)
    return tuple(parts)
