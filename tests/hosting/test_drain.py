"""A stop: nobody new gets in, who is in may finish, and when the time is up everybody has an outcome."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes import PATIENT, FakeReplica, Fakes, VirtualLoop, chat, launch_of, predict
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.hosting.model import LAST_GRACE, HostedModel
from gateway.hosting.replica_maker import Maker
from gateway.runners.call import Call
from gateway.spec import Limits, ModelSpec

NEVER = 1e5  # seconds that code takes which does not end by itself


@dataclass(frozen=True)
class Job:
    """A call that comes at some time and whose code takes a while; it may hear a cancel, or not."""

    at: float
    takes: float
    streams: bool
    is_obedient: bool


JOBS = st.lists(
    st.builds(
        Job,
        at=st.integers(0, 40).map(lambda half: half / 2),
        takes=st.sampled_from([0.0, 0.5, 3.0, 8.0, NEVER]),
        streams=st.booleans(),
        is_obedient=st.booleans(),
    ),
    max_size=12,
)


class Machine(FakeReplica):
    """Runs each call for as long as its job says."""

    fakes: Plant

    def open(self, call: Call, ended: Any) -> None:
        super().open(call, ended)
        self.fakes.begun.append(call)
        asyncio.get_running_loop().call_later(self.fakes.jobs[call.req.request_id].takes, self.done, call)

    def done(self, call: Call) -> None:
        if call in self.open_calls:
            if self.fakes.jobs[call.req.request_id].streams:
                self.stream(call, "x")
                self.end(call)
            else:
                self.answer(call)

    def cancel(self, call: Call) -> None:
        self.is_obedient = self.fakes.jobs[call.req.request_id].is_obedient
        super().cancel(call)

    async def stop(self, grace: float) -> None:
        now = asyncio.get_running_loop().time()
        self.fakes.stopped_at = now
        self.fakes.abandoned = [call for call in self.open_calls if call.error is None]
        await super().stop(grace)


class Plant(Fakes):
    def __init__(self, jobs: dict[str, Job]) -> None:
        super().__init__()
        self.jobs = jobs
        self.begun: list[Call] = []
        self.abandoned: list[Call] = []
        self.stopped_at = 0.0

    def __call__(self, launch: Any) -> Machine:
        self.replicas.append(Machine(launch, self))
        return self.replicas[-1]  # type: ignore[return-value]


@settings(PATIENT, max_examples=300)
@given(
    jobs=JOBS,
    slots=st.integers(1, 3),
    stop_at=st.integers(0, 40).map(lambda half: half / 2),
    grace=st.sampled_from([0.0, 1.0, 5.0, 30.0]),
    again=st.none() | st.tuples(st.integers(1, 40).map(float), st.sampled_from([0.0, 1.0])),
)
def test_every_call_has_one_outcome_by_the_end_of_a_drain(
    jobs: list[Job], slots: int, stop_at: float, grace: float, again: tuple[float, float] | None
) -> None:
    loop = VirtualLoop()
    try:
        loop.run_until_complete(drain(jobs, slots, stop_at, grace, again))
    finally:
        loop.close()


async def drain(jobs: list[Job], slots: int, stop_at: float, grace: float, again: tuple[float, float] | None) -> None:
    loop = asyncio.get_running_loop()
    start, events = loop.time(), []
    plant = Plant({str(number): job for number, job in enumerate(jobs)})
    limits = Limits(slots=slots, max_queue=20, queue_timeout=1e6, request_timeout=1e6, first_item_timeout=1e6)
    spec = ModelSpec(name="m", target="m:M", root=Path("/nowhere"), limits=limits)
    model = HostedModel(spec, Maker(plant, launch_of), lambda event: events.append(event["state"]))
    model.start()
    await model.settled()
    outcomes: dict[int, list[tuple[str, float]]] = {number: [] for number in range(len(jobs))}

    async def client(number: int, job: Job) -> None:
        await asyncio.sleep(job.at)
        req = (chat if job.streams else predict)(request_id=str(number))
        try:
            with model.call(req, b"") as call:
                await call.first()
                while job.streams and await call.take() is not None:
                    pass
            outcome = "answered"
        except GatewayError as error:
            outcome = error.code
        outcomes[number].append((outcome, loop.time() - start))

    async def stop(at: float, seconds: float) -> None:
        await asyncio.sleep(at)
        await model.stop(seconds)
        ends.append(loop.time() - start)

    ends: list[float] = []
    stops = [stop(stop_at, grace)]
    deadline = stop_at + grace
    if again is not None and stop_at < again[0] < deadline:
        stops.append(stop(*again))
    clients = [asyncio.ensure_future(client(number, job)) for number, job in enumerate(jobs)]
    await asyncio.gather(*stops)
    await asyncio.gather(*clients)

    assert max(ends) <= deadline + LAST_GRACE + 0.001, "the drain took too long"
    for number, job in enumerate(jobs):
        [(outcome, at)] = outcomes[number]
        if job.at > stop_at:
            assert outcome in ("shutting_down", "model_unavailable"), "it came after the stop"
            assert at == job.at or abs(at - job.at) < 0.001, "who comes late is told at once"
        elif job.at < stop_at:
            assert outcome in ("answered", "shutting_down")
            assert at <= deadline + LAST_GRACE + 0.001
            if outcome == "shutting_down":
                assert at >= min([deadline, *([sum(again)] if len(stops) == 2 and again else [])]) - 0.001, "too early"
            if job.takes + job.at < stop_at and len(jobs) <= slots:
                assert outcome == "answered"
    assert plant.abandoned == [], "a replica was ended under a call that had no word of it"
    assert model.state == "unloaded" and not model.limiter.in_flight
    assert events == ["loading", "ready", "draining", "unloaded"]
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("m/")] == []
