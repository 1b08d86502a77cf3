"""Share the cells of one cache among requests. Pure bookkeeping on the event loop.

llama.cpp fails every running request when no cell is left, so this must not happen: a request waits until there is room
for its prompt, and when the answers run out of cells, the youngest request gives up its own and asks again.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from operator import itemgetter

AHEAD = 32  # cells that must be free besides a prompt: or its first tokens would cost somebody his place


class Place:
    """The cells of one request. When it is `lost`, `evict` was called, and the request has to give it back."""

    def __init__(self, cells: Cells, size: int) -> None:
        self._cells, self.size = cells, size
        self.is_lost = False
        self.evict: Callable[[], None] = lambda: None

    def grow(self, count: int) -> None:
        self.size += count
        self._cells.grown(count)


class Cells:
    """A number of cells. One request alone may have all of them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.used = 0
        self._places: list[Place] = []  # oldest first
        self._waiting: list[tuple[int, int, asyncio.Future[Place]]] = []  # priority, size; in order

    @asynccontextmanager
    async def hold(self, size: int, priority: int = 0) -> AsyncIterator[Place]:
        """Wait for this many cells, which are given back at the end of the block.

        Those with a lower `priority` are served first, then in order.
        """
        place = await self._take(size, priority)
        try:
            yield place
        finally:
            self._give_back(place)

    async def _take(self, size: int, priority: int) -> Place:
        if not self._waiting and self._fits(size):
            return self._give(size)
        future: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        insort(self._waiting, (priority, size, future), key=itemgetter(0))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give_back(future.result())
            raise

    def _fits(self, size: int) -> bool:
        return not self._places or self.used + size + AHEAD <= self.count

    def _give(self, size: int) -> Place:
        place = Place(self, size)
        self._places.append(place)
        self.used += size
        return place

    def _give_back(self, place: Place) -> None:
        self._places.remove(place)
        self.used -= place.size
        while self._waiting:
            _, size, future = self._waiting[0]
            if not future.done():
                if not self._fits(size):
                    return
                future.set_result(self._give(size))
            del self._waiting[0]

    def grown(self, count: int) -> None:
        """Count further tokens. Each request takes a cell in a step, and is counted a step later."""
        self.used += count
        held = [place for place in self._places if not place.is_lost]
        kept = sum(place.size for place in held)  # the others give theirs back soon
        if len(held) > 1 and kept + 2 * len(held) > self.count:
            held[-1].is_lost = True
            held[-1].evict()
