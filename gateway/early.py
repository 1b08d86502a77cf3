"""Requests that came before their model was ready, and may wait for it."""

from __future__ import annotations

import asyncio

from .errors import Overloaded
from .wording import counted


class Early:
    """Each is a future, which whoever waits no more ends himself. First come, first served, like a queue."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._waiters: dict[asyncio.Future[None], None] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    async def wait(self, waiter: asyncio.Future[None], seconds: float, room: int, retry_after: float | None) -> None:
        """Return when the model may be ready, or the time is over.

        Raises:
            Overloaded: `room` of them wait already.
            Whatever `waiter` was ended with.
        """
        if len(self._waiters) >= room:
            text = f"model '{self._name}' is not ready and {counted(room, 'request')} in its queue already"
            raise Overloaded(text, retry_after=retry_after)
        self._waiters[waiter] = None
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._waiters.pop(waiter, None)

    def wake(self) -> None:
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
