"""What one call waits for: the outcomes of its items, of which there are many if its request contained a list."""

from __future__ import annotations

import asyncio
from typing import Any

MISSING: Any = object()  # an item without an outcome


class Ticket:
    """Used on the event loop only. `settled` is done when the call may go on."""

    __slots__ = (
        "_loop",
        "call",
        "error",
        "is_gone",
        "missing",
        "request",
        "request_id",
        "results",
        "running",
        "settled",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, call: int, request_id: str, request: Any, count: int) -> None:
        self._loop, self.call, self.request_id, self.request = loop, call, request_id, request
        self.results = [MISSING] * count
        self.missing = count
        self.running = 0  # items in batches that run
        self.error: BaseException | None = None  # of the first item that failed
        self.is_gone = False  # its caller has left
        self.settled: asyncio.Future[None] = loop.create_future()

    @property
    def is_wanted(self) -> bool:
        return self.error is None and not self.is_gone

    @property
    def waits(self) -> bool:
        """Whether some of its items are in no batch yet."""
        return self.missing > self.running

    def give(self, index: int, outcome: Any) -> None:
        """Take the outcome of an item that is in a batch: its result, or an exception."""
        if self.results[index] is not MISSING:
            return
        self.results[index] = outcome
        self.missing -= 1
        self.running -= 1
        if isinstance(outcome, BaseException) and self.error is None:
            self.error = outcome
        self._look()

    def release(self, index: int) -> None:
        """Its batch has ended, perhaps without an outcome for the item."""
        if self.results[index] is MISSING:
            self.running -= 1
            self.missing -= 1
            self.results[index] = None
            self._look()

    def _look(self) -> None:
        if not self.running and (not self.missing or not self.is_wanted) and not self.settled.done():
            self.settled.set_result(None)

    async def stopped(self) -> None:
        """Wait until none of its items is in a batch, even if the waiting task is cancelled again."""
        while self.running:
            self.settled = self._loop.create_future()
            try:
                await self.settled
            except asyncio.CancelledError:
                continue
