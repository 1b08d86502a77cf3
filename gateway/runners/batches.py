"""Calls that run together in one batch of a worker."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..wire.frames import MAX_BATCH
from .pending import NEVER

if TYPE_CHECKING:
    from ..spec import ModelSpec
    from .call import Call

MOST_HELD = 8 * MAX_BATCH  # ids of all batches of a worker; an honest one has few beside its calls
Table = Mapping[int, tuple["Call", Any]]  # the calls of a worker that have not ended, by id


def most_calls(spec: ModelSpec) -> int:
    """Return how many calls a batch of the model can have: each has an item in it, and a slot."""
    return min(spec.batching.size or 0, spec.limits.slots)


class Batches:
    """The batches of a worker, of which some may be over.

    It may tell of any number of batches, each with all calls that run. So the ids in all of them have a limit, above
    which the oldest are forgotten: a call of these is late when it is late itself. Each id is looked at a limited
    number of times.
    """

    __slots__ = ("_all", "_held", "_table")

    def __init__(self, table: Table) -> None:
        self._table = table
        self._all: list[Batch] = []  # from the oldest to the newest
        self._held = 0  # their ids, and one more for each

    def begin(self, ids: Sequence[int]) -> None:
        """Note that these calls begin to run together."""
        batch = Batch(ids, self._table)
        self._all.append(batch)
        self._held += batch.held
        if self._held > MOST_HELD:
            self._forget()

    def _forget(self) -> None:
        self._held, kept = 0, []
        for batch in reversed(self._all):
            if not batch.has_calls:
                continue
            if self._held + batch.held > MOST_HELD // 2:
                batch.forget()
            else:
                self._held += batch.held
                kept.append(batch)
        self._all = kept[::-1]


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
    def held(self) -> int:
        """What it counts for: its ids, and one more."""
        return 1 + len(self._ids)

    @property
    def has_calls(self) -> bool:
        """Whether it is the last batch of a call that has not ended."""
        return any(id in self._table and self._table[id][0].batch is self for id in self._ids)

    def forget(self) -> None:
        self._ids, self._unseen = array("I"), 0

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
