"""All replicas of a model: the current ones, the new ones of a reload, and the replaced ones that still finish calls.

Each has a supervisor. Its events are recorded here first and then passed on; the model decides what they mean for its
state.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..admission.queue import Limiter, Seat
from ..runners.replica import Replica, TakesAhead
from ..spec import ModelSpec, State
from .backoff import Breaker
from .replica_maker import Maker
from .replica_record import Member
from .retiring import Retiring
from .states import LEVELS
from .successors import Successors
from .supervisor import Event, Lost, Supervisor

log = logging.getLogger("gateway.models")

LAST_GRACE = 2.0  # seconds for the model's unload, even if its calls used up all the grace


class Replicas:
    """`on` is called with each event and the member that it is about."""

    def __init__(self, name: str, limiter: Limiter, maker: Maker, on: Callable[[Member, Event], None]) -> None:
        self.members: list[Member] = []
        self.retiring = Retiring(name, LAST_GRACE)
        self.successors = Successors()
        self._name, self._limiter, self._maker, self._on = name, limiter, maker, on
        self._killing: set[asyncio.Task[None]] = set()
        self._killed: dict[Replica, str] = {}  # replicas we killed whose loss is not reported yet, and why

    # ── which there are ──────────────────────────────────────────────────────────────────────────────────────────

    def ready(self) -> list[Replica]:
        return [member.replica for member in self.members if member.replica is not None]

    def ready_by_index(self) -> list[tuple[int, Replica]]:
        return [(member.index, member.replica) for member in self.members if member.replica is not None]

    def running(self) -> list[Replica]:
        """Return all replicas that may have calls."""
        return [*self.ready(), *self.retiring]

    def loading(self) -> list[Replica]:
        members = (*self.members, *self.successors.loading)
        return [member.loading for member in members if member.loading is not None]

    def phases(self) -> Mapping[int, State]:
        """Return the state of each replica, by index."""
        return {member.index: member.phase for member in self.members}

    def pids(self) -> dict[int, int]:
        """Return the process ids of the replicas that are ready or loading, by index."""
        known = [(member.index, member.replica or member.loading) for member in self.members]
        return {index: replica.pid for index, replica in known if replica is not None and replica.pid is not None}

    def hint(self, replica: Replica, what: str) -> bool:
        """Add a hint to the error of this replica's load, should it fail. False if it has one, or is not loading."""
        return any(member.supervisor.hint(replica, what) for member in (*self.members, *self.successors.loading))

    def ill(self) -> list[str]:
        """Return what is wrong with individual replicas."""
        return [str(member) for member in self.members if member.phase in LEVELS]

    # ── what becomes of them ─────────────────────────────────────────────────────────────────────────────────────

    def start(self, spec: ModelSpec, breaker: Breaker) -> None:
        self.members = [self._new(spec, breaker, index) for index in range(spec.replicas)]
        for member in self.members:
            member.supervisor.start()

    async def load_beside(self, spec: ModelSpec, breaker: Breaker, switch: Callable[[list[Member]], None]) -> None:
        """Load new replicas, then call `switch` with them.

        Raises:
            LoadError: one could not be loaded; the others have been ended.
        """
        new = partial(self._new, spec, breaker)
        await self.successors.load(self._name, spec.replicas, new, self.ready(), switch)

    def join(self, member: Member, spec: ModelSpec) -> None:
        """Let the replica take calls.

        If it has preprocess or postprocess, calls queue in the worker, so all are let in.
        """
        assert member.replica is not None
        self._maker.serves(spec, member.files, "its load" if member.phase == "loading" else "its restart")
        limits, has_hooks = spec.limits, member.replica.capabilities.has_hooks
        inside = limits.max_queue if has_hooks else 0
        takes_ahead = isinstance(member.replica, TakesAhead) and not has_hooks
        member.seat = Seat(member.replica, limits.slots, inside, takes_ahead=takes_ahead)
        self._limiter.add(member.seat)
        member.phase, member.reason = "ready", ""

    def switch(self, fresh: list[Member]) -> None:
        """Replace the old replicas by these, which must still `join` and be started. The old ones finish calls."""
        old, self.members = self.members, fresh
        for member in old:
            member.supervisor.cancel()
            self.retiring.await_too(member.supervisor.ended())  # it may still be ending a lost replica or a load
            if member.replica is not None:
                self._part(member)
                self._killed.pop(member.replica, None)
                self.retiring.add(member.replica)

    def update(self, secrets: Mapping[str, str] | None, deployment: Mapping[str, Any] | None) -> None:
        """Pass on changed secrets and a changed environment."""
        loading = [member.loading for member in self.members if member.loading is not None]
        for replica in (*loading, *self.running()):
            replica.update(secrets, deployment)

    def drain(self) -> None:
        """Load no more replicas. Those that are ready stay until they are stopped, but are not replaced."""
        for member in self.members:
            member.supervisor.drain()
            member.phase = "draining"

    async def stop(self, grace: float) -> None:
        """End all replicas and whatever still runs in them."""
        self.retiring.end()
        await asyncio.gather(*(replica.stop(grace) for replica in self.ready()), return_exceptions=True)
        supervisors = [member.supervisor for member in self.members]
        for supervisor in supervisors:
            supervisor.cancel()
        await asyncio.gather(*(supervisor.ended() for supervisor in supervisors))
        await self.retiring.ended()
        await self.successors.ended()
        self.members.clear()
        self._killed.clear()
        self._limiter.seats.clear()

    def kill(self, replica: Replica, reason: str, why: str) -> None:
        if replica in self.ready():  # no loss is reported for the others
            self._killed[replica] = why
        which = ", which has the code from before a reload" if replica in self.retiring else ""
        log.error("%s: killing worker %s%s: %s", self._name, replica.pid, which, reason)
        task = asyncio.create_task(replica.kill(reason))
        self._killing.add(task)
        task.add_done_callback(self._killing.discard)

    def why_lost(self, replica: Replica) -> str:
        """Return why we killed it, otherwise "crash". Forgets the reason, so ask once."""
        return self._killed.pop(replica, "crash")

    def _new(self, spec: ModelSpec, breaker: Breaker, index: int) -> Member:
        """Create a member that is not loading yet."""
        member = Member(index, asyncio.get_running_loop().time())
        on = partial(self._note, member)
        member.supervisor = Supervisor(spec, index, look=self._maker.look, make=self._make, breaker=breaker, on=on)
        return member

    async def _make(self, spec: ModelSpec, index: int) -> Replica:
        return await self._maker.make(spec, index, self.successors.taken_ports)

    def _note(self, member: Member, event: Event) -> None:
        member.note(event)
        if isinstance(event, Lost):
            self._part(member)
        self._on(member, event)

    def _part(self, member: Member) -> None:
        if member.seat is not None:
            self._limiter.remove(member.seat)
            member.seat = None
