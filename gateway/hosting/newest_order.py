"""Run only the newest job for each name: starting a new one cancels the older ones, which might never end.

Callers that wait for an older job get the outcome of the newest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from .supervisor import to_the_end

Work = Callable[[], Coroutine[Any, Any, None]]


class GivenUp(Exception):
    """The newest job was cancelled by its caller, and no other replaced it."""


class Newest:
    """Names → running jobs, the newest last."""

    def __init__(self) -> None:
        self._begun: dict[str, list[_Begun]] = {}

    async def run(self, name: str, work: Work) -> None:
        """Cancel older jobs of this name, wait for their end, then run `work`.

        If a newer job replaces this one, return with the outcome of the newer one. If the caller is cancelled, its own
        job is cancelled, and this returns when the job has ended.

        Raises:
            GivenUp: the job that replaced this one was cancelled by its caller.
            Whatever the work raises.
        """
        older = self._begun.setdefault(name, [])
        own = last = _Begun([each.task for each in older], work, name)
        if older:
            older[-1].give_up(own)
        older.append(own)
        own.task.add_done_callback(lambda _: self._ended(name, own))
        try:
            while True:
                await asyncio.wait([last.task])
                if not last.task.cancelled():
                    last.task.result()
                    return
                if last.newer is None:
                    raise GivenUp
                last = last.newer
        except asyncio.CancelledError:
            own.give_up()
            await to_the_end(_end(own.task))
            raise

    def _ended(self, name: str, begun: _Begun) -> None:
        self._begun[name].remove(begun)
        if not self._begun[name]:
            del self._begun[name]


class _Begun:
    def __init__(self, older: Sequence[asyncio.Task[None]], work: Work, name: str) -> None:
        self.task = asyncio.create_task(_after(older, work), name=f"{name}/newest")
        self.newer: _Begun | None = None  # the job that replaces it
        self._is_given_up = False

    def give_up(self, newer: _Begun | None = None) -> None:
        """Cancel once only: a second cancellation would interrupt the cleanup."""
        self.newer = self.newer or newer
        if not self._is_given_up:
            self._is_given_up = True
            self.task.cancel()


async def _after(older: Sequence[asyncio.Task[None]], work: Work) -> None:
    if older:
        await asyncio.wait(older)
    await work()


async def _end(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # mark the exception as retrieved
