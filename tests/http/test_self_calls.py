"""Calls that wait are asked whether they wait for themselves, without a cost for those that wait for a moment only."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.errors import OwnGateway, WaitsForItself
from gateway.http import self_calls
from gateway.http.route_table import HEALTH
from gateway.system.process_family import STRANGER, Holder

LOCAL = SimpleNamespace(scope={"client": ("127.0.0.1", 5000), "server": ("127.0.0.1", 8000)})


class Waiting:
    """A call, as far as anybody looks at it here."""

    def __init__(self) -> None:
        self.arrived = asyncio.get_running_loop().time()
        self.started, self.has_slot, self.ended = 0.0, False, False
        self.error: BaseException | None = None
        self.abandoned = asyncio.Event()

    def start(self) -> Waiting:
        self.started, self.has_slot = self.arrived, True
        return self

    def abandon(self, error: BaseException) -> None:
        self.error = error
        self.abandoned.set()


class Model:
    """A model with one slot, held by a call; all connections are its own."""

    name = "m"
    pid = 77
    limiter = SimpleNamespace(slots=1)

    def __init__(self) -> None:
        self.held_by, self.asked = Waiting().start(), 0

    @property
    def replicas(self) -> Any:
        return SimpleNamespace(ready=lambda: [self])

    def calls(self) -> list[Waiting]:
        return [self.held_by]

    async def owns(self, client: int, server: int) -> bool:
        self.asked += 1
        return True


HIDDEN = Holder(hidden=(Model.pid,))  # what a gateway sees that is not root: the worker has to be asked


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_calls, "who_holds", lambda *asked: HIDDEN)


def look_at(model: Model, call: Waiting) -> None:
    self_calls.look_at(LOCAL, model, call)  # type: ignore[arg-type]


def test_a_thousand_calls_that_wait_for_a_moment_cost_one_task_and_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(self_calls, "SUSPICIOUS", 0.05)

    async def scenario() -> None:
        model, before = Model(), asyncio.all_tasks()
        for _ in range(1000):
            call = Waiting()
            look_at(model, call)
            call.start()
        (task,) = asyncio.all_tasks() - before
        assert len(self_calls._lines[model]) == 1, "those that have started are not held on to"  # type: ignore[index]
        await asyncio.wait_for(task, 30)
        assert model not in self_calls._lines and not model.asked

    asyncio.run(scenario())


def test_a_call_that_goes_on_waiting_for_its_own_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_calls, "SUSPICIOUS", 0.01)

    async def scenario() -> None:
        model, calls = Model(), [Waiting() for _ in range(3)]
        for call in calls:
            look_at(model, call)
        for call in calls:
            await asyncio.wait_for(call.abandoned.wait(), 30)
            assert isinstance(call.error, WaitsForItself)
        assert model.asked == 3

    asyncio.run(scenario())


BETWEEN = (("127.0.0.1", 5000), ("127.0.0.1", 8000))


def test_a_worker_is_asked_only_where_the_tables_do_not_say_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        model = Model()
        replicas: Any = [model]
        for found, owner in ((STRANGER, None), (Holder(Model.pid), model)):
            monkeypatch.setattr(self_calls, "who_holds", lambda *asked, found=found: found)
            assert await self_calls.owner_of(BETWEEN, replicas) is owner
        monkeypatch.setattr(self_calls, "who_holds", lambda *asked: HIDDEN)
        assert await self_calls.owner_of(BETWEEN, replicas, may_ask=False) is None
        assert not model.asked
        assert await self_calls.owner_of(BETWEEN, replicas) is model

    asyncio.run(scenario())


def test_a_worker_is_never_asked_whose_a_health_check_is() -> None:
    async def scenario() -> None:
        replica = Model()
        model = SimpleNamespace(name="m", replicas=SimpleNamespace(loading=lambda: [replica], hint=lambda *said: False))
        hub: Any = SimpleNamespace(models={"m": model})
        for path in sorted(HEALTH):
            await self_calls.check_question(question(path), hub)
        assert not replica.asked
        with pytest.raises(OwnGateway):
            await self_calls.check_question(question("/v1/models"), hub)

    asyncio.run(scenario())


def question(path: str) -> Any:
    return SimpleNamespace(**vars(LOCAL), named="", path=path, sees=lambda name: True)


def test_a_look_that_takes_long_is_not_waited_for_nor_are_those_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    release, looks = threading.Event(), []

    def look(*asked: Any) -> Holder:
        looks.append(asked)
        release.wait(30)
        return STRANGER

    monkeypatch.setattr(self_calls, "who_holds", look)
    monkeypatch.setattr(self_calls, "LOOK_TIMEOUT", 0.05)

    async def scenario() -> None:
        begun, replicas = time.monotonic(), [Model()]
        asked = (self_calls.owner_of(BETWEEN, replicas) for _ in range(50))  # type: ignore[arg-type]
        assert await asyncio.gather(*asked) == [None] * 50
        assert time.monotonic() - begun < 20  # and not until the look is over
        assert len(looks) == 1, "one at a time, and those that nobody waits for are not done"

    try:
        asyncio.run(scenario())
    finally:
        release.set()
