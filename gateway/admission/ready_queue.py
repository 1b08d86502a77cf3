"""Requests that arrive before their model is ready, and may wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from ..errors import Overloaded
from ..runners.pending import ClientLeft
from ..wording import counted
from .shares import Shares


class Waiter:
    """A request that has no call yet, or none any more, with its body."""

    has_slot, has_begun, waited, batched_at = False, False, 0.0, 0.0  # it has no slot and waits for none

    def __init__(self, body: bytes = b"") -> None:
        self.body = body
        self.woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.on_end: Callable[[], None] | None = None

    @property
    def ended(self) -> bool:
        return self.woken.done()

    def client_left(self) -> None:
        self.abandon(ClientLeft())

    def abandon(self, error: BaseException) -> None:
        """End the wait with an error for the awaiting task, and free its place at once."""
        if not self.woken.done():
            self.woken.set_exception(error)
            if self.on_end is not None:
                self.on_end()

    def outlives(self, then: Callable[[], None]) -> bool:
        """Return False: no code runs for it."""
        return False


class Early:
    """The queue of requests that wait for one model, first in, first out. They count against the shared limits."""

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
        """Return when the model may be ready, or after `seconds`.

        Raises:
            Overloaded: `room` requests wait already, or the shared limits are reached.
            BaseException: the error that `waiter` was abandoned with.
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
            if not waiter.woken.done():  # done if its task is being cancelled
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
