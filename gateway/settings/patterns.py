"""Settings tables whose name is a pattern of model ids, and which table takes precedence.

`*` matches any characters including `/`, `?` matches one character. A key is taken from the most specific table that
sets it: 1. the table with exactly the model's id  2. the pattern with more characters other than `*` and `?`  3. of
equal patterns, the one later in the file.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def is_pattern(name: str) -> bool:
    """Return whether a table name is a pattern. Model ids contain neither `*` nor `?`."""
    return "*" in name or "?" in name


def tables_of(model: str, tables: Iterable[str]) -> list[str]:
    """Return the tables that apply to the model, the most specific one last."""
    found = [table for table in tables if table == model or (is_pattern(table) and _matches(model, table))]
    return sorted(found, key=lambda table: (table == model, sum(character not in "*?" for character in table)))


def _matches(model: str, pattern: str) -> bool:
    return fnmatchcase(model, pattern.replace("[", "[[]"))  # "[" is an ordinary character here
