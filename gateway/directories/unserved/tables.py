"""Find the rows of a table of kinds that match a name, without trying each row: directories may be very large."""

from __future__ import annotations

import re
from collections import defaultdict
from fnmatch import fnmatchcase, translate
from functools import cache

from .kinds import Kind


class Table:
    def __init__(self, kinds: tuple[Kind, ...]) -> None:
        self._whole: defaultdict[str, list[int]] = defaultdict(list)
        self._ends: defaultdict[str, list[int]] = defaultdict(list)  # by ".pkl.gz"
        self._others: list[tuple[str, int]] = []
        for row, kind in enumerate(kinds):
            for pattern in kind.names.split():
                if not re.search(r"[*?\[]", pattern):
                    self._whole[pattern].append(row)
                elif pattern.startswith("*.") and not re.search(r"[*?\[]", pattern[2:]):
                    self._ends[pattern[1:]].append(row)
                else:
                    self._others.append((pattern, row))
        self._any_other = re.compile("|".join(translate(pattern) for pattern, _ in self._others) or r"(?!)")

    def rows(self, name: str) -> list[int]:
        """Return the numbers of the rows that match the name (in lower case), in ascending order."""
        found = set(self._whole.get(name, ()))
        at = name.find(".")
        while at >= 0:
            found.update(self._ends.get(name[at:], ()))
            at = name.find(".", at + 1)
        if self._any_other.match(name):
            found.update(row for pattern, row in self._others if fnmatchcase(name, pattern))
        return sorted(found)


@cache
def table(kinds: tuple[Kind, ...]) -> Table:
    return Table(kinds)
