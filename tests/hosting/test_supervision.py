"""Replicas are kept alive in any order of crashes, bad loads, reloads and stops, by a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes import PATIENT, FakeReplica, Fakes, VirtualLoop, launch_of, turns
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.hosting.backoff import CRASH_WINDOW, FIRST_PAUSE, HEALTHY_AFTER, MAX_PAUSE, MAX_TRIAL
from gateway.hosting.model import HostedModel
from gateway.hosting.replica_maker import Maker
from gateway.hosting.supervisor import LOAD_TRIES
from gateway.runners.replica import Launch, LoadError
from gateway.spec import Capabilities, Limits, ModelSpec

KILL, UNLOAD = 3.0, 1.0  # seconds that a process takes to be gone
LIMITS = Limits(slots=1, max_crashes=4, load_timeout=50.0)
HANG = 1e6  # seconds
LOADS = st.sampled_from([None, None, None, 5.0, HANG, LoadError("no luck"), LoadError("never", fatal=True)])


@dataclass
class Place:
    """Where one replica of one version of the model runs: a device that only one process may hold."""

    held_by: Process | None = None
    crashes: int = 0  # one after the other, none of them healthy for long
    tries: int = 0  # loads that failed, one after the other
    is_given_up: bool = False
    earliest: float = 0.0  # of the next start
    latest: float = HANG


class Process(FakeReplica):
    """It takes its time to end, and is on its device from its start to the end of that."""

    fakes: Machines

    async def start(self) -> Capabilities:
        place, loop = self.fakes.begins(self), asyncio.get_running_loop()
        self.born = loop.time()
        try:
            found = await super().start()
        except BaseException as error:
            took = loop.time() - self.born
            if isinstance(error, LoadError):
                place.tries += 1
            place.is_given_up = (
                took >= LIMITS.load_timeout or place.tries == LOAD_TRIES or getattr(error, "fatal", False)
            )
            raise
        self.born, place.tries = loop.time(), 0
        return found

    async def kill(self, reason: str) -> None:
        self.killed.append(reason)
        self.die(reason)
        await self._leave_device(KILL)

    async def stop(self, grace: float) -> None:
        await asyncio.sleep(min(UNLOAD, grace))
        self.die("stopped")
        await self._leave_device(0.0)

    async def _leave_device(self, seconds: float) -> None:
        """Begun once, it goes on though nobody waits for it any more, as in a real process."""
        loop = asyncio.get_running_loop()
        if not hasattr(self, "_gone"):
            self._gone = loop.create_future()
            loop.call_later(seconds, self._is_gone)
        await asyncio.shield(self._gone)

    def _is_gone(self) -> None:
        if not self._gone.done():
            self._gone.set_result(None)
            self.fakes.ends(self)


class Machines(Fakes):
    """All processes that were ever started, and the rules that their starts keep."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[tuple[str | None, int], Place] = {}
        self.alive: set[Process] = set()
        self.may_start = True
        self.broken: list[str] = []  # rules; raised here they would end in a task of the model's
        self.crashes: dict[str | None, list[float]] = {}  # of each version of the model
        self.trials: dict[str | None, int] = {}  # since its crash loop began

    def __call__(self, launch: Launch) -> Process:
        self.replicas.append(Process(launch, self))
        return self.replicas[-1]  # type: ignore[return-value]

    def place(self, replica: FakeReplica) -> Place:
        return self.places.setdefault((replica.launch.spec.display_name, replica.launch.index), Place())

    def begins(self, replica: Process) -> Place:
        place, now = self.place(replica), asyncio.get_running_loop().time()
        rules = {
            "a replica was started while its model is stopped": self.may_start,
            "two processes on one device": place.held_by is None,
            "started again after its load had failed for good": not place.is_given_up,
            f"started at {now}, not {place.earliest}-{place.latest}": place.earliest <= now <= place.latest + 0.001,
        }
        self.broken += [rule for rule, holds in rules.items() if not holds]
        place.held_by, place.earliest, place.latest = replica, 0.0, HANG
        self.alive.add(replica)
        return place

    def crashed(self, replica: Process) -> None:
        """By the rules, when may the next one start?"""
        place, now = self.place(replica), asyncio.get_running_loop().time()
        place.crashes = 0 if now - replica.born > HEALTHY_AFTER else place.crashes + 1
        version = replica.launch.spec.display_name
        known = self.crashes.setdefault(version, [])
        known.append(now)
        recent = known[-LIMITS.max_crashes :]
        trials = self.trials.get(version, 0) if place.crashes else 0
        if trials or (len(recent) == LIMITS.max_crashes and recent[-1] - recent[0] < CRASH_WINDOW):
            trials += 1
        self.trials[version] = trials
        if trials:
            place.earliest = now + min(MAX_TRIAL, 2 ** (trials - 1))
            place.latest = max(place.earliest, now + KILL)
        else:
            pause = min(MAX_PAUSE, FIRST_PAUSE * 2 ** max(0, place.crashes - 1))
            place.earliest, place.latest = now + 0.8 * pause, now + max(1.2 * pause, KILL)

    def forget(self) -> None:
        """After a stop everything begins anew, but for the crashes that were counted."""
        for place in self.places.values():
            place.crashes = place.tries = 0
            place.is_given_up, place.earliest, place.latest = False, 0.0, HANG

    def ends(self, replica: Process) -> None:
        self.place(replica).held_by = None
        self.alive.discard(replica)


class Supervision(RuleBasedStateMachine):
    @initialize(replicas=st.integers(1, 3))
    def begin(self, replicas: int) -> None:
        self.loop = VirtualLoop()
        self.machines, self.version = Machines(), 0
        self.replicas = replicas
        self.reloading: asyncio.Task[None] | None = None
        self.run(self.create())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        asyncio.set_event_loop(self.loop)
        return self.loop.run_until_complete(work)

    def spec(self) -> ModelSpec:
        self.version += 1
        return ModelSpec(
            name="m",
            target="m:M",
            root=Path("/nowhere"),
            limits=LIMITS,
            replicas=self.replicas,
            display_name=str(self.version),
        )

    async def create(self) -> None:
        self.model = HostedModel(self.spec(), Maker(self.machines, launch_of))
        self.model.start()
        await turns()

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────────────

    @rule(times=st.integers(2, 6), data=st.data())
    def crash_loop(self, times: int, data: st.DataObject) -> None:
        """One crash as soon as the last is over, which is when pauses grow and the breaker opens."""
        for _ in range(times):
            if self.model.replicas.ready():
                self.crash(data)
            self.run(asyncio.sleep(4))

    @rule(outcomes=st.lists(LOADS, min_size=1, max_size=4))
    def next_loads(self, outcomes: list[Any]) -> None:
        self.machines.loads = outcomes

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.6, 1.5, 4.0, 20.0, 61.0, 130.0]))
    def pass_time(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @precondition(lambda self: self.model.replicas.ready())
    @rule(data=st.data())
    def one_crashes(self, data: st.DataObject) -> None:
        self.crash(data)

    def crash(self, data: st.DataObject) -> None:
        self.run(self._crash(data))

    async def _crash(self, data: st.DataObject) -> None:
        victim = data.draw(st.sampled_from(self.model.replicas.ready()))
        assert isinstance(victim, Process)
        if victim.lost.done():
            return
        self.machines.crashed(victim)
        victim.die("SIGKILL")
        await turns()

    @rule()
    def reload(self) -> None:
        async def begin() -> None:
            self.reloading = asyncio.create_task(self.model.reload(self.spec()))
            self.reloading.add_done_callback(lambda task: task.cancelled() or task.exception())
            await turns()

        if self.model.state == "ready" and (self.reloading is None or self.reloading.done()):
            self.run(begin())

    @precondition(lambda self: self.reloading is not None and not self.reloading.done())
    @rule(then_stop=st.booleans())
    def give_up_reload(self, then_stop: bool) -> None:
        """What a newer change of its files does."""

        async def give_up() -> None:
            assert self.reloading is not None
            self.reloading.cancel()
            if then_stop:
                await turns(1)
                await self.model.stop(0.0)
            await asyncio.wait([self.reloading])
            assert not self.model.is_under_way
            if then_stop:
                assert self.machines.alive == set(), "a process is left over"
                self.machines.forget()
                self.model.start()
                await turns()

        self.run(give_up())

    @rule(grace=st.sampled_from([0.0, 1.0, 30.0]), restart=st.booleans(), twice=st.booleans())
    def stop(self, grace: float, restart: bool, twice: bool) -> None:
        async def stop() -> None:
            stopping = asyncio.create_task(self.model.stop(grace))
            await turns(1)
            self.machines.may_start = False
            if twice:
                await asyncio.gather(stopping, self.model.stop(0.0))
            await stopping
            assert self.machines.alive == set(), "a process is left over"
            assert self.model.state == "unloaded"
            await asyncio.sleep(100)
            assert self.machines.alive == set(), "a process began after the end"
            self.machines.may_start = True
            self.machines.forget()
            if restart:
                self.model.start()
                await turns()

        self.run(stop())

    # ── what holds ───────────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def its_state_is_that_of_its_replicas(self) -> None:
        if not hasattr(self, "model"):
            return
        assert self.machines.broken == []
        ready = [replica for replica in self.model.replicas.ready() if not replica.lost.done()]
        assert (self.model.state == "ready") == bool(ready)
        assert {id(seat.owner) for seat in self.model.limiter.seats} == {id(replica) for replica in ready}

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        self.run(self.model.stop(0))
        assert self.machines.broken == []
        assert self.machines.alive == set()
        self.loop.close()


TestSupervision = Supervision.TestCase
TestSupervision.settings = settings(PATIENT, max_examples=200, stateful_step_count=50)
