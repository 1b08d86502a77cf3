"""The new replicas of a reload, loaded beside those that serve: all of them, or none.

When to reload, and what becomes of the old ones, is the model's to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from .keeper import Keeper, Owner, to_the_end
from .replica import LoadError, Replica
from .spec import ModelSpec


class Successors:
    """`keepers` are those that load now; `taken_ports` are the ports of what serves meanwhile."""

    def __init__(self) -> None:
        self.keepers: list[Keeper] = []
        self.taken_ports: tuple[int, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._is_given_up = False

    def __bool__(self) -> bool:
        return self._task is not None

    async def load(
        self, owner: Owner, spec: ModelSpec, serving: Sequence[Replica], switch: Callable[[list[Keeper]], None]
    ) -> None:
        """Load as many as the spec says, then call `switch` with them. Whoever is cancelled here ends the load, and
        goes when nothing is left of it.

        Raises:
            LoadError: one could not be loaded, or `cancel` was called; nothing is left of the others.
        """
        task = self._task = asyncio.create_task(self._load(owner, spec, serving, switch), name=f"{owner.name}/reload")
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            self.cancel()
            await to_the_end(self.ended())  # so that the next one meets nothing of these
            raise
        if task.cancelled():
            raise LoadError("the model was stopped meanwhile")
        task.result()

    def cancel(self) -> None:
        """Only once: a second time would interrupt what it does so that nothing is left behind."""
        if self._task is not None and not self._is_given_up:
            self._is_given_up = True
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until nothing of them is left, or they serve."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task, self._is_given_up = None, False

    async def _load(
        self, owner: Owner, spec: ModelSpec, serving: Sequence[Replica], switch: Callable[[list[Keeper]], None]
    ) -> None:
        fresh = self.keepers = list[Keeper]()
        self.taken_ports = tuple(sorted({port for replica in serving for port in replica.capabilities.ports}))
        try:
            for index in range(spec.replicas):
                fresh.append(Keeper(owner, spec, index))
                await fresh[-1].load()
        except BaseException:
            for keeper in fresh:
                if keeper.replica is not None:
                    await to_the_end(keeper.replica.kill("its reload was given up"))
            raise
        finally:
            self.taken_ports, self.keepers = (), []
        switch(fresh)
