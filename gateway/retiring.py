"""Replicas that a reload has replaced: each finishes what it has begun, then it is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

from .call import NEVER, Call
from .replica import Replica


class Retiring:
    """`grace` is the seconds that a model has for its unload."""

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
        """Whether anybody waits for one of its calls; code may run on that nobody waits for."""
        return any(call.cancelled_at == NEVER for call in self.calls() if _may_finish(call))

    def end(self) -> None:
        """End them now, with what still runs in them."""
        for idle in self._idle.values():
            idle.set()

    def calls(self) -> Iterator[Call]:
        return (call for replica in self for call in replica.calls())

    def add(self, replica: Replica) -> None:
        self._idle[replica] = asyncio.Event()
        self.look()
        self.await_too(self._end(replica))

    def await_too(self, end: Coroutine[Any, Any, None]) -> None:
        """Something else that has to end, on its own, before nothing is left of what was replaced."""
        task = asyncio.create_task(end, name=f"{self._name}/retired")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def look(self) -> None:
        """A call has ended; perhaps it was the last of one of them."""
        for replica, idle in self._idle.items():
            if not any(map(_may_finish, replica.calls())):
                idle.set()

    async def _end(self, replica: Replica) -> None:
        await self._idle[replica].wait()
        await replica.stop(self._grace)
        self._idle.pop(replica, None)

    async def ended(self) -> None:
        """Wait until nothing of them is left; whoever asks has seen to it that their calls end."""
        if self._tasks:
            self.look()
            await asyncio.wait(tuple(self._tasks))


def _may_finish(call: Call) -> bool:
    """Whether a replica may finish it first. Not a question about its health: nobody kills for one that hangs."""
    return call.limits.cancel_grace < NEVER
