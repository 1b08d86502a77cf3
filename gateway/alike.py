"""What is told of a directory somebody else made: the first of each kind, and how many more there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from .wording import beginning

if TYPE_CHECKING:
    from .checking import Finding
    from .spec import Level, Problem

MOST_ALIKE = 20  # of one code about one model: who mends those sees the others at the next check

Told = TypeVar("Told", "Problem", "Finding")


def first_of_each_kind(items: Iterable[Told], most: int = MOST_ALIKE) -> Iterator[Told]:
    """The first of each kind, their texts bounded, in their order; behind them a line for the others of each, or the
    other one: what was bounded before is bounded the same."""
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
