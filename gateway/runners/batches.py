"""Calls that run together in one batch of a worker."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .pending import NEVER

if TYPE_CHECKING:
    from ..spec import ModelSpec
    from .call import Call

Table = Mapping[int, tuple["Call", Any]]  # the calls of a worker that have not ended, by id


def most_calls(spec: ModelSpec) -> int:
    """Return how many calls a batch of the model can have: each has an item in it, and a slot."""
    return min(spec.batching.size or 0, spec.limits.slots)


class Batch:
    """The ids of its calls, of which some may have ended. It holds no calls: each would be part of a cycle.

    A worker may put each call into any number of batches, and each sweep of the time limits asks about each call. So an
    id is passed once: a call that was given up stays so, and then its `overdue` does not change any more.
    """

    __slots__ = ("_ids", "_table", "_unseen")

    def __init__(self, ids: Sequence[int], table: Table) -> None:
        self._table = table
        self._ids = array("I", [id for id in ids if id in table])
        self._unseen = len(
            self._ids
        )  # the calls of so many ids, the first ones, may be wanted; then the ids are sorted
        now = time.monotonic()
        for id in self._ids:
            call = table[id][0]
            call.batch = self
            call.batched_at = call.batched_at or now

    @property
    def overdue(self) -> float:
        """When the last of its calls that has not ended will have exhausted its grace; `NEVER` if one is still wanted.

        The code runs for all of them. Until then it must not be killed because one of them is too late.
        """
        table = self._table
        while self._unseen:
            entry = table.get(self._ids[self._unseen - 1])
            if entry is not None and entry[0].is_wanted:
                return NEVER
            self._unseen -= 1
            if not self._unseen:
                left = sorted((table[id][0].overdue, id) for id in self._ids if id in table)
                self._ids = array("I", [id for _, id in left])
        while self._ids and self._ids[-1] not in table:
            self._ids.pop()
        return table[self._ids[-1]][0].overdue if self._ids else 0.0
