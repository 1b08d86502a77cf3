"""Of what is begun under one name, the newest counts: what was begun before is given up, for it may never end.

Whoever waits for that gets the outcome of the newest, which is about what there is now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from .keeper import to_the_end

Work = Callable[[], Coroutine[Any, Any, None]]


class GivenUp(Exception):
    """Whoever began the newest has left, and nothing was begun in its place."""


class Newest:
    """Names → what is under way, the newest last."""

    def __init__(self) -> None:
        self._begun: dict[str, list[_Begun]] = {}

    async def run(self, name: str, work: Work) -> None:
        """Do it once nothing is left of what was under way, or wait for what is begun meanwhile in its place.

        Whoever is cancelled here ends what it has begun, and goes when nothing is left of it.

        Raises:
            GivenUp: that which was begun in its place was ended so.
            Whatever the work does.
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
        self.newer: _Begun | None = None  # what came in its place
        self._is_given_up = False

    def give_up(self, newer: _Begun | None = None) -> None:
        """Only once: a second time would interrupt what it does so that nothing is left behind."""
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
        task.exception()  # nobody will ask for it
