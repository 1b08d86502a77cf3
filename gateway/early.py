"""Requests that came before their model was ready, and may wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from .call import ClientLeft
from .errors import Overloaded
from .shares import Shares
from .wording import counted


class Waiter:
    """A request without a call yet, or none any more, and the body that is held for it meanwhile."""

    has_slot, has_begun, waited = False, False, 0.0  # nor a wait for a slot

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_end: Callable[[], None] | None = None

    def client_left(self) -> None:
        self.abandon(ClientLeft())

    def abandon(self, error: BaseException) -> None:
        """It waits no more: whoever awaits it gets the error, and its place is free at once."""
        if not self.woken.done():
            self.woken.set_exception(error)
            if self.on_end is not None:
                self.on_end()

    def outlives(self, then: Callable[[], None]) -> bool:
        """Nothing runs for it."""
        return False


class Early:
    """The waiters of one model, first come, first served, like a queue. They count in what all models hold."""

    def __init__(self, name: str, shares: Shares, retry_after: Callable[[], float]) -> None:
        self.retry_after = retry_after
        self.queued_bytes = 0
        self._name, self._shares = name, shares
        self._waiters: dict[Waiter, None] = {}
        shares.parties[self] = None

    def __len__(self) -> int:
        return len(self._waiters)

    @property
    def in_flight(self) -> int:
        return len(self._waiters)

    @property
    def line(self) -> int:
        return len(self._waiters)

    def newest_first(self) -> Iterator[Waiter]:
        return reversed(self._waiters)

    async def wait(self, waiter: Waiter, seconds: float, room: int) -> None:
        """Return when the model may be ready, or the time is over.

        Raises:
            Overloaded: `room` of them wait already, or the gateway holds all that it may.
            Whatever `waiter` was abandoned with.
        """
        if not waiter.woken.done():
            self._enter(waiter, room)
        try:
            async with asyncio.timeout(seconds):
                await waiter.woken
        except TimeoutError:
            pass
        finally:
            self._forget(waiter)

    def wake(self) -> None:
        for waiter in tuple(self._waiters):
            self._forget(waiter)
            if not waiter.woken.done():  # or its task is being cancelled
                waiter.woken.set_result(None)

    def _enter(self, waiter: Waiter, room: int) -> None:
        if len(self._waiters) >= room:
            waiting = counted(len(self._waiters), "request")
            text = f"model '{self._name}' is not ready, and {waiting} for it wait already"
            raise Overloaded(text, retry_after=self.retry_after(), cause="max_queue")
        size = len(waiter.body)
        self._shares.make_room(self, size)
        self._waiters[waiter] = None
        self._count(1, size)
        waiter.on_end = lambda: self._forget(waiter)

    def _forget(self, waiter: Waiter) -> None:
        if waiter in self._waiters:
            del self._waiters[waiter]
            self._count(-1, -len(waiter.body))

    def _count(self, calls: int, size: int) -> None:
        self.queued_bytes += size
        self._shares.calls += calls
        self._shares.bytes += size
