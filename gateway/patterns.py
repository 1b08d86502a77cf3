"""Tables of settings whose name is a pattern of model ids, and which of several counts.

`*` stands for any characters, `/` among them, `?` for one. A key counts from the table that says the most of the model:
1. the one of its very name  2. of patterns the one with more characters beside `*` and `?`  3. of two that are equal in
that the one that stands later in the file. What that one does not set is looked for in the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def is_pattern(name: str) -> bool:
    """No id of a model holds these."""
    return "*" in name or "?" in name


def tables_of(model: str, tables: Iterable[str]) -> list[str]:
    """The tables that are about the model, the one that counts most last."""
    found = [table for table in tables if table == model or (is_pattern(table) and _matches(model, table))]
    return sorted(found, key=lambda table: (table == model, sum(character not in "*?" for character in table)))


def _matches(model: str, pattern: str) -> bool:
    return fnmatchcase(model, pattern.replace("[", "[[]"))  # which is a character like any other
