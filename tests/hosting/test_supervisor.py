"""What the supervisor of one replica tells, and what it does when it is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fakes import Fakes, LoadError, VirtualLoop, launch_of, turns

from gateway.hosting.backoff import Breaker
from gateway.hosting.supervisor import Event, Launched, LoadBegan, Loaded, Lost, NotLoaded, PhaseChanged, Supervisor
from gateway.runners.replica import Replica
from gateway.spec import ModelSpec

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


class Supervised:
    """A supervisor without any model, and what it has told."""

    def __init__(self, *loads: Any) -> None:
        self.fakes = Fakes(*loads)
        self.events: list[Event] = []
        spec = ModelSpec(name="m", target="model:Model", root=Path("/nowhere"))
        self.supervisor = Supervisor(spec, 0, look=self.look, make=self.make, breaker=Breaker(5), on=self.events.append)

    async def look(self, spec: ModelSpec) -> dict[str, Any]:
        return {}

    async def make(self, spec: ModelSpec, index: int) -> Replica:
        return self.fakes(launch_of(spec, index))

    @property
    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.events]


async def test_a_load_a_loss_and_the_next_load_are_told_in_their_order() -> None:
    found = Supervised()
    found.supervisor.start()
    await turns()
    first = found.fakes.last
    assert found.kinds == [LoadBegan, Launched, Loaded]
    assert found.events[1] == Launched(first)
    found.events.clear()
    first.die("killed by SIGKILL")
    await asyncio.sleep(60)  # of the virtual clock: it is loaded again after its back-off
    assert found.kinds == [Lost, PhaseChanged, LoadBegan, Launched, Loaded]
    lost, changed = found.events[:2]
    assert lost == Lost(first)
    assert isinstance(changed, PhaseChanged) and (changed.phase, changed.reason) == ("restarting", "killed by SIGKILL")
    found.supervisor.cancel()
    await found.supervisor.ended()


async def test_a_load_that_fails_for_good_is_told_once_and_no_other_is_tried() -> None:
    found = Supervised(LoadError("no weights", fatal=True))
    found.supervisor.start()
    await found.supervisor.ended()
    assert found.kinds == [LoadBegan, Launched, NotLoaded, PhaseChanged]
    assert found.events[-1] == PhaseChanged("failed", "no weights")


async def test_what_is_lost_while_it_drains_is_told_and_not_replaced() -> None:
    found = Supervised()
    found.supervisor.start()
    await turns()
    found.supervisor.drain()
    found.events.clear()
    found.fakes.last.die("killed by SIGKILL")
    await found.supervisor.ended()
    assert found.events == [Lost(found.fakes.last)]
    assert len(found.fakes.replicas) == 1


async def test_a_load_that_is_under_way_ends_when_it_drains() -> None:
    found = Supervised(1000.0)
    found.supervisor.start()
    await turns()
    found.supervisor.drain()
    await found.supervisor.ended()
    assert found.kinds == [LoadBegan, Launched]
    assert found.fakes.last.killed
