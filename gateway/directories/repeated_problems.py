"""Limit the problems reported for a directory: the first of each kind, and the number of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from ..wording import beginning

if TYPE_CHECKING:
    from ..inspection.check import Finding
    from ..spec import Level, Problem

MOST_ALIKE = 20  # problems of one code about one model: whoever fixes these sees the next ones in the next check

Told = TypeVar("Told", "Problem", "Finding")


def first_of_each_kind(items: Iterable[Told], most: int = MOST_ALIKE) -> Iterator[Told]:
    """Yield the first items of each kind in their order, with bounded texts. For each kind, one line counts the rest.

    If only one more item remains, it is yielded itself, so that a second pass changes nothing.
    """
    counts: Counter[tuple[str | None, Level, str]] = Counter()
    last: dict[tuple[str | None, Level, str], Told] = {}
    for item in items:
        kind = item.model, item.level, item.code
        counts[kind] += 1
        if counts[kind] <= most:
            yield _cut(item)
        else:
            last[kind] = item
    for kind, item in last.items():
        more = counts[kind] - most
        yield replace(item, what=f"{more} more of this kind", fix="") if more > 1 else _cut(item)


def _cut(item: Told) -> Told:
    return replace(item, what=beginning(item.what), fix=beginning(item.fix))
