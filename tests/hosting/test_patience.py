"""What a client gives its call in time: it shortens every limit, lengthens none, and nothing begins behind it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fakes import Fakes, VirtualLoop, chat, launch_of, predict, turns

from gateway.errors import QueueTimeout, Timeout
from gateway.hosting.model import HostedModel
from gateway.hosting.replica_maker import Maker
from gateway.spec import Limits, ModelSpec

pytestmark = pytest.mark.anyio
LIMITS = Limits(slots=1, max_queue=2000, queue_timeout=30, request_timeout=600, first_item_timeout=120, gap_timeout=60)


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


def now() -> float:
    return asyncio.get_running_loop().time()


async def ready(limits: Limits = LIMITS) -> tuple[HostedModel, Fakes]:
    fakes = Fakes()
    model = HostedModel(
        ModelSpec(name="m", target="m:M", root=Path("/nowhere"), limits=limits), Maker(fakes, launch_of)
    )
    model.start()
    await model.settled()
    return model, fakes


async def test_a_call_that_waits_gives_up_when_its_client_does_and_never_begins() -> None:
    model, fakes = await ready()
    first = model.call(predict(), b"")
    second = model.call(predict(), b"", 2.0)
    began = now()
    with pytest.raises(QueueTimeout, match=r"waited 2\.\d s for a slot"):
        await second.first()
    assert 2.0 <= now() - began < 2.2
    fakes.last.answer(first)
    await turns()
    assert fakes.opened == [first]
    await model.stop(0)


@pytest.mark.parametrize("given", [0.03, 0.43, 0.71, 1.23])
async def test_a_time_limit_is_kept_to_a_hundredth_of_a_second_in_the_queue_and_in_a_slot(given: float) -> None:
    model, _ = await ready()
    runs = model.call(predict(), b"", given)
    await asyncio.sleep(0.012)
    waits = model.call(predict(), b"", given)
    for call in (runs, waits):
        with pytest.raises((QueueTimeout, Timeout)):
            await call.first()
        assert given <= now() - call.arrived <= given + 0.01
    await model.stop(0)


async def test_a_slot_that_is_free_too_late_goes_to_the_next_who_still_waits() -> None:
    """Though no sweep has seen the late ones yet, and though there are a thousand of them."""
    model, fakes = await ready()
    first = model.call(predict(), b"")
    late = [model.call(predict(), b"", 2.0) for _ in range(1000)]
    last = model.call(predict(), b"")
    asyncio.get_running_loop().call_later(2.003, fakes.last.answer, first)
    await asyncio.sleep(2.003)
    await turns()
    assert fakes.opened == [first, last]
    for call in late:
        with pytest.raises(QueueTimeout):
            await call.first()
    assert model.limiter.queued == 0
    await model.stop(0)


async def test_a_call_without_time_is_refused_at_the_door() -> None:
    model, fakes = await ready()
    with pytest.raises(QueueTimeout) as caught:
        model.call(predict(), b"", 0.0)
    assert caught.value.retry_after
    assert fakes.opened == []
    await model.stop(0)


async def test_a_running_answer_ends_when_its_client_gives_up() -> None:
    model, fakes = await ready()
    call = model.call(predict(), b"", 5.0)
    began = now()
    with pytest.raises(Timeout, match="not done within the 5 s"):
        await call.first()
    assert 5.0 <= now() - began < 5.2
    assert fakes.last.cancelled == [call]
    await model.stop(0)


async def test_the_time_of_a_stream_covers_all_of_it() -> None:
    model, fakes = await ready()
    call = model.call(chat(), b"", 5.0)
    took: list[Any] = []
    began = now()
    for number in range(3):
        fakes.last.stream(call, number)
        await call.first()
        took += await call.take() or []
        await asyncio.sleep(1.5)
    with pytest.raises(Timeout, match="5 s"):
        await call.take()
    assert took == [0, 1, 2]
    assert 5.0 <= now() - began < 5.2
    await model.stop(0)


async def test_a_stream_whose_client_takes_nothing_ends_too() -> None:
    model, fakes = await ready()
    call = model.call(chat(), b"", 5.0)
    fakes.last.stream(call, "a")
    await call.first()
    await asyncio.sleep(5.2)
    assert fakes.last.cancelled == [call]
    assert await call.take() == ["a"]
    with pytest.raises(Timeout):
        await call.take()
    await model.stop(0)


async def test_no_limit_gets_longer() -> None:
    model, fakes = await ready(Limits(slots=1, queue_timeout=1, request_timeout=2, first_item_timeout=3, gap_timeout=4))
    for req, limit in ((predict(), 2), (chat(), 3)):
        began = now()
        call = model.call(req, b"", 1e6)
        with pytest.raises(Timeout, match="did not answer"):
            await call.first()
        assert limit <= now() - began < limit + 0.2
        await turns()
    call = model.call(chat(), b"", 1e6)
    fakes.last.stream(call, "a")
    waits = model.call(predict(), b"", 1e6)
    await call.take()
    with pytest.raises(QueueTimeout):
        await waits.first()
    began = now()
    with pytest.raises(Timeout, match="its stream"):
        await call.take()
    assert 4 <= now() - began < 4.2
    await model.stop(0)


async def test_a_call_that_waits_inside_the_worker_has_waited_for_its_slot_too() -> None:
    model, _ = await ready()
    call = model.call(predict(), b"", 2.0)
    call.got_slot = False
    await asyncio.sleep(0.5)
    call.on_waits()
    with pytest.raises(QueueTimeout, match=r"waited 1\.5 s"):
        await call.first()
    await model.stop(0)


async def test_a_call_whose_preprocess_takes_all_the_time_was_not_late_for_its_slot() -> None:
    model, _ = await ready()
    call = model.call(predict(), b"", 2.0)
    call.got_slot = False
    with pytest.raises(Timeout):
        await call.first()
    await model.stop(0)
