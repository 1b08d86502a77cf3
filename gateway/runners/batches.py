"""Calls that run together in one batch of a worker."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .call import Call

Table = Mapping[int, tuple["Call", Any]]  # the calls of a worker that have not ended, by id


class Batch:
    """The ids of its calls, of which some may have ended. It holds no calls: each would be part of a cycle."""

    __slots__ = ("_ids", "_table")

    def __init__(self, ids: Sequence[int], table: Table) -> None:
        self._ids, self._table = ids, table
        now = time.monotonic()
        for call in self._running():
            call.batch = self
            call.batched_at = call.batched_at or now

    @property
    def overdue(self) -> float:
        """When the last of its calls that has not ended will have exhausted its time limit and its grace.

        The code runs for all of them. Until then it must not be killed because one of them is too late.
        """
        return max(map(_overdue, self._running()), default=0.0)

    def _running(self) -> list[Call]:
        return [entry[0] for id in self._ids if (entry := self._table.get(id)) is not None]


def _overdue(call: Call) -> float:
    return call.deadline + call.limits.cancel_grace if call.is_wanted else call.overdue
