"""Load the new replicas of a reload beside those that serve: all of them, or none.

The model decides when to reload and what happens to the old replicas.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..runners.replica import LoadError, Replica
from .replica_record import Member
from .supervisor import to_the_end

Switch = Callable[[list[Member]], None]


class Successors:
    """`loading` are the members that load now; `taken_ports` are the ports of the replicas that serve meanwhile."""

    def __init__(self) -> None:
        self.loading: list[Member] = []
        self.taken_ports: tuple[int, ...] = ()
        self._task: asyncio.Task[None] | None = None
        self._is_given_up = False

    def __bool__(self) -> bool:
        return self._task is not None

    async def load(
        self, name: str, count: int, new: Callable[[int], Member], serving: Sequence[Replica], switch: Switch
    ) -> None:
        """Load `count` replicas, then call `switch` with them. `new` makes a member from its index.

        If the caller is cancelled, the load is ended first.

        Raises:
            LoadError: one could not be loaded, or `cancel` was called; the others have been ended.
        """
        task = self._task = asyncio.create_task(self._load(count, new, serving, switch), name=f"{name}/reload")
        task.add_done_callback(self._ended)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            self.cancel()
            await to_the_end(self.ended())  # so that the next reload meets none of these
            raise
        if task.cancelled():
            raise LoadError("the model was stopped meanwhile")
        task.result()

    def cancel(self) -> None:
        """Cancel once only: a second cancellation would interrupt the cleanup."""
        if self._task is not None and not self._is_given_up:
            self._is_given_up = True
            self._task.cancel()

    async def ended(self) -> None:
        """Wait until they serve or have all ended."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task, self._is_given_up = None, False

    async def _load(self, count: int, new: Callable[[int], Member], serving: Sequence[Replica], switch: Switch) -> None:
        fresh: list[Member] = []
        self.taken_ports = tuple(sorted({port for replica in serving for port in replica.capabilities.ports}))
        try:
            for index in range(count):
                fresh.append(new(index))
                self.loading = [fresh[-1]]
                await fresh[-1].supervisor.load()
        except BaseException:
            self.loading = []
            for member in fresh:
                if member.replica is not None:
                    await to_the_end(member.replica.kill("its reload was given up"))
            raise
        finally:
            self.taken_ports, self.loading = (), []
        switch(fresh)
