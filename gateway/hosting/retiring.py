"""Replicas that a reload has replaced: each finishes its calls and is then stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

from ..runners.pending import NEVER, Pending
from ..runners.replica import Replica


class Retiring:
    """`grace` is the time for the model's unload, in seconds."""

    def __init__(self, name: str, grace: float) -> None:
        self._name, self._grace = name, grace
        self._idle: dict[Replica, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __bool__(self) -> bool:
        return bool(self._idle)

    def __iter__(self) -> Iterator[Replica]:
        return iter(tuple(self._idle))

    @property
    def is_awaited(self) -> bool:
        """Whether a caller still waits for a result. Cancelled calls may keep running without one."""
        pending = (each for replica in self for each in replica.pending())
        return any(each.cancelled_at == NEVER for each in pending if _may_finish(each))

    def end(self) -> None:
        """Stop them now, with the calls that still run in them."""
        for idle in self._idle.values():
            idle.set()

    def add(self, replica: Replica) -> None:
        self._idle[replica] = asyncio.Event()
        self.look()
        self.await_too(self._end(replica))

    def await_too(self, end: Coroutine[Any, Any, None]) -> None:
        """Add another coroutine that `ended` must wait for."""
        task = asyncio.create_task(end, name=f"{self._name}/retired")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def look(self) -> None:
        """Check which replicas are idle; called when a call has ended."""
        for replica, idle in self._idle.items():
            if not any(map(_may_finish, replica.pending())):
                idle.set()

    async def _end(self, replica: Replica) -> None:
        await self._idle[replica].wait()
        await replica.stop(self._grace)
        self._idle.pop(replica, None)

    async def ended(self) -> None:
        """Wait until all have ended. The caller must make sure that their calls end."""
        if self._tasks:
            self.look()
            await asyncio.wait(tuple(self._tasks))


def _may_finish(pending: Pending) -> bool:
    """Return whether a replica must finish this before it is stopped.

    Health questions do not count: they may hang forever.
    """
    return pending.limits.cancel_grace < NEVER
