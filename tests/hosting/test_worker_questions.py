"""What the gateway itself asks of the replicas of a model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fakes import Fakes, VirtualLoop, launch_of, turns

from gateway.errors import Crashed, GatewayError
from gateway.hosting.worker_questions import swap_class
from gateway.spec import Limits, ModelSpec

pytestmark = pytest.mark.anyio
SAYS = {"methods": [{"name": "predict", "kind": "sync"}]}


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


def replicas(fakes: Fakes, count: int) -> list[Any]:
    spec = ModelSpec(name="m", target="x:X", root=Path())
    return [fakes(launch_of(spec, index)) for index in range(count)]


async def test_each_replica_swaps_its_class_after_the_one_before_it(fakes: Fakes) -> None:
    both = replicas(fakes, 2)
    asked = asyncio.create_task(swap_class(both, Limits()))
    for count, replica in enumerate(both, 1):
        await turns()
        assert [question.ask.what for question in fakes.asked] == ["swap_class"] * count
        replica.say(replica.open_questions[0], SAYS)
    found = await asked
    assert found is not None and [method.name for method in found.methods] == ["predict"]


async def test_a_replica_that_is_gone_is_passed_over(fakes: Fakes) -> None:
    gone, there = replicas(fakes, 2)
    gone.die("gone")
    asked = asyncio.create_task(swap_class([gone, there], Limits()))
    await turns()
    there.say(there.open_questions[0], SAYS)
    assert await asked is not None
    assert await swap_class([gone], Limits()) is None


async def test_code_that_is_no_good_ends_it_with_the_error_of_the_first(fakes: Fakes) -> None:
    first, second = replicas(fakes, 2)
    asked = asyncio.create_task(swap_class([first, second], Limits()))
    await turns()
    first.fail(first.open_questions[0], GatewayError("no good"))
    with pytest.raises(GatewayError, match="no good"):
        await asked
    assert second.open_questions == []


async def test_a_worker_that_is_lost_meanwhile_ends_it(fakes: Fakes) -> None:
    (one,) = replicas(fakes, 1)
    asked = asyncio.create_task(swap_class([one], Limits()))
    await turns()
    one.die("killed")
    with pytest.raises(Crashed):
        await asked


async def test_who_asked_and_left_has_the_question_cancelled(fakes: Fakes) -> None:
    (one,) = replicas(fakes, 1)
    asked = asyncio.create_task(swap_class([one], Limits()))
    await turns()
    asked.cancel()
    await turns()
    assert one.cancelled == fakes.asked and fakes.asked[0].ended
