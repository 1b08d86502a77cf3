"""Decide which waiting items form the next batch. A pure state machine: the caller passes the time.

A batch has items with one key, of one request or of many. The rules, in this order:

1. A batch is due when it is full (in number, or by the sum of costs), or when its oldest item has waited for `delay`.
2. Of the due ones, the one whose turn came first goes.
3. While others wait, a request gets at most half of a batch, so that a long list does not hold up single inputs. What
   is left over goes to the requests in order. A request that got a share then waits behind the others, also behind
   those with other keys.
4. Items of a request stay in order, and so do requests that fit into one batch. An item that exceeds the budget by
   itself goes alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

NEVER = float("inf")


@dataclass(slots=True)
class Bounds:
    """How much goes into one batch. Both may be lowered later, when a batch has exceeded the memory of its device."""

    size: int
    budget: float = NEVER


@dataclass(slots=True, eq=False)
class Item:
    """One input that waits for `owner`, a call; `key` must be equal in a batch.

    `request` is the request that the call belongs to: one with n answers has n calls. None: the call is one.
    """

    owner: Any
    value: Any
    key: tuple[str, Hashable]  # the method, and what `batch_key` says
    bounds: Bounds
    arrived: float
    delay: float = 0.0
    cost: float = 1.0
    index: int = 0  # its place in the call
    request: Hashable = None

    @property
    def source(self) -> Hashable:
        return id(self.owner) if self.request is None else self.request


class _Queue:
    """The waiting items of one request. `turn` is when it arrived, or when it last got a share of a batch."""

    __slots__ = ("items", "turn")

    def __init__(self, turn: float) -> None:
        self.items, self.turn = deque[Item](), turn


class _Group:
    """The waiting items with one key: a queue for each request, in the order of their turns."""

    __slots__ = ("queues",)

    def __init__(self) -> None:
        self.queues: dict[Hashable, _Queue] = {}  # by request

    @property
    def turn(self) -> float:
        return next(iter(self.queues.values())).turn

    @property
    def due(self) -> float:
        """When its oldest item has waited for long enough."""
        return min(queue.items[0].arrived + queue.items[0].delay for queue in self.queues.values())

    def choose(self) -> tuple[list[Item], bool]:
        """Return the items of the next batch, and whether it is full."""
        queues = [queue.items for queue in self.queues.values()]
        batch = _Batch(queues[0][0].bounds)
        if len(queues) == 1:
            batch.fill(queues[0], 0, batch.bounds.size, batch.bounds.budget)
            return batch.items, batch.is_full
        share, cost = max(1, batch.bounds.size // 2), batch.bounds.budget / 2
        taken = []
        for queue in queues:
            if batch.is_full:
                break
            taken.append(batch.fill(queue, 0, share, cost))
        for queue, start in zip(queues, taken, strict=False):
            if not batch.is_full:
                batch.fill(queue, start, batch.bounds.size, batch.bounds.budget)
        return batch.items, batch.is_full

    def remove(self, items: list[Item], now: float) -> None:
        """Remove chosen items, the first ones of their requests. The requests go behind the others."""
        for item in items:
            source = item.source
            queue = self.queues.pop(source)
            queue.items.popleft()
            if queue.items:
                queue.turn = now
                self.queues[source] = queue


class _Batch:
    """A batch that is being put together."""

    __slots__ = ("bounds", "cost", "is_full", "items")

    def __init__(self, bounds: Bounds) -> None:
        self.bounds, self.items, self.cost, self.is_full = bounds, list[Item](), 0.0, False

    def fill(self, queue: deque[Item], start: int, most: int, most_cost: float) -> int:
        """Add items of a request, from number `start` on, up to the limits. Return where it stopped."""
        own_cost, place = 0.0, start
        while place < len(queue) and place - start < most and not self.is_full:
            item = queue[place]
            if self.items and self.cost + item.cost > self.bounds.budget:
                self.is_full = True  # no smaller item overtakes it
                break
            if place > start and own_cost + item.cost > most_cost:
                break
            self.items.append(item)
            self.cost += item.cost
            own_cost += item.cost
            place += 1
            self.is_full = len(self.items) >= self.bounds.size or self.cost >= self.bounds.budget
        return place


class Collector:
    """The items of one model that wait for a batch."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, item: Item) -> None:
        group = self._groups.get(item.key)
        if group is None:
            group = self._groups[item.key] = _Group()
        queue = group.queues.get(source := item.source)
        if queue is None:
            queue = group.queues[source] = _Queue(item.arrived)
        queue.items.append(item)
        self._count += 1

    def remove(self, owner: Any) -> int:
        """Remove all items of a call; their number."""
        found = 0
        for key, group in list(self._groups.items()):
            for source, queue in list(group.queues.items()):
                if any(item.owner is owner for item in queue.items):
                    kept = deque(item for item in queue.items if item.owner is not owner)
                    found += len(queue.items) - len(kept)
                    queue.items = kept
                    if not kept:
                        del group.queues[source]
            if not group.queues:
                del self._groups[key]
        self._count -= found
        return found

    def take(self, now: float, only_full: bool = False) -> list[Item]:
        """Return the items of the batch that is to go now; [] if none is due, or with `only_full` none is full."""
        for key, group in sorted(self._groups.items(), key=lambda each: each[1].turn):
            items, is_full = group.choose()
            if is_full or (not only_full and group.due <= now):
                group.remove(items, now)
                if not group.queues:
                    del self._groups[key]
                self._count -= len(items)
                return items
        return []

    @property
    def due(self) -> float:
        """When `take` returns a batch at the latest, if nothing arrives; NEVER if nothing waits."""
        return min((group.due for group in self._groups.values()), default=NEVER)
