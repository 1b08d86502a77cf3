"""Bound the time that is spent on JSON of model directories, in calls that hold up the whole gateway.

Threads do not help: nothing else of the process runs while JSON is decoded. So the time is estimated first, and one
file, a directory and a search of all directories may take so long. What would take longer is refused before it is
decoded. Workers, and the process in which libraries examine files, have no such budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .. import json_costs

A_FILE, A_DIRECTORY, A_SEARCH = 200_000_000, 600_000_000, 10_000_000_000  # nanoseconds
CHEAP = 1_000_000  # nanoseconds; no budget refuses a file that takes less, such as the config.json of any model


class _Budget:
    def __init__(self, left: int) -> None:
        self.left = left


_budgets: ContextVar[tuple[_Budget, ...]] = ContextVar("json_budgets", default=())


@contextmanager
def of_directory() -> Iterator[None]:
    """While active, JSON that is read belongs to one directory; also to the search that is active around it, if any."""
    with _with(_budgets.get()[:1], A_DIRECTORY):
        yield


@contextmanager
def of_search() -> Iterator[None]:
    """While active, all JSON that is read belongs to one search."""
    with _with((), A_SEARCH):
        yield


@contextmanager
def _with(outer: tuple[_Budget, ...], left: int) -> Iterator[None]:
    token = _budgets.set((*outer, _Budget(left)))
    try:
        yield
    finally:
        _budgets.reset(token)


def spend(text: bytes, times: int = 1) -> json_costs.Amount:
    """Take the time to decode a text, or so many times of it, from the active budgets. Returns what the text holds.

    Raises:
        ValueError: it would take longer than one of them has left.
    """
    budgets = _budgets.get()
    most = max(CHEAP, min(A_FILE, *(each.left for each in budgets))) // times if budgets else math.inf
    found = json_costs.Amount(len(text))
    for found in json_costs.amounts(text):
        if found.cost > most:
            raise ValueError("it would take too long to read")
    if found.cost * times > CHEAP:
        for each in budgets:
            each.left -= found.cost * times
    return found
