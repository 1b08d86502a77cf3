"""One model through its whole life, on replicas that do as the test says and by a clock that nobody waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes import PATIENT, FakeReplica, Fakes, LoadError, VirtualLoop, chat, launch_of, predict, turns
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import (
    BadRequest,
    Crashed,
    Draining,
    GatewayError,
    LoadFailed,
    Loading,
    Overloaded,
    QueueTimeout,
    Timeout,
    Unavailable,
)
from gateway.hosting.backoff import HEALTHY_AFTER
from gateway.hosting.health_check import HEALTH_TIMEOUT
from gateway.hosting.model import HostedModel
from gateway.hosting.refusals import MAX_RETRY_AFTER
from gateway.hosting.replica_maker import Maker
from gateway.runners.call import Call
from gateway.runners.failures import to_error
from gateway.runners.pending import ClientLeft
from gateway.spec import Capabilities, Limits, ModelSpec
from gateway.system import frozen_workers
from gateway.wire.frames import Failure

pytestmark = pytest.mark.anyio
LIMITS = Limits(slots=1, max_queue=2, queue_timeout=30, request_timeout=600, cancel_grace=5, load_timeout=1800)


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


def now() -> float:
    return asyncio.get_running_loop().time()


class Hosted:
    """A model and what it tells its observers."""

    def __init__(
        self, fakes: Fakes, limits: Limits = LIMITS, replicas: int = 1, name: str = "m", **options: Any
    ) -> None:
        self.fakes = fakes
        self.events: list[tuple[str, str]] = []
        self.changed = asyncio.Event()
        spec = ModelSpec(name=name, target="model:Model", root=Path("/nowhere"), limits=limits, replicas=replicas)
        maker = Maker(fakes, options.pop("launch", launch_of), files=options.pop("files", None))
        self.model = HostedModel(spec, maker, self.note, **options)

    def note(self, event: Any) -> None:
        self.events.append((event["previous"], event["state"]))
        self.changed.set()

    async def until(self, state: str) -> None:
        while self.model.state != state:
            self.changed.clear()
            await self.changed.wait()


@asynccontextmanager
async def hosted(*loads: Any, limits: Limits = LIMITS, **options: Any) -> AsyncIterator[Hosted]:
    """A model that was started, and is stopped without mercy at the end."""
    found = Hosted(Fakes(*loads, capabilities=options.pop("capabilities", None)), limits, **options)
    found.model.start()
    if not loads:
        await found.model.settled()
    try:
        yield found
    finally:
        await found.model.stop(0)
        rest = [task for task in asyncio.all_tasks() if task.get_name().startswith("m/")]
        assert rest == [], "a task of the model is left over"


async def error_of(call: Call) -> BaseException:
    with pytest.raises((GatewayError, ClientLeft)) as caught:
        await call.first()
    return caught.value


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_model_goes_from_unloaded_over_loading_to_ready_and_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with hosted() as found:
        assert found.model.state == "ready"
        assert "ready with 1 slot" in caplog.text
    assert found.model.state == "unloaded"
    assert found.events == [
        ("unloaded", "loading"),
        ("loading", "ready"),
        ("ready", "draining"),
        ("draining", "unloaded"),
    ]


async def test_a_model_that_loads_again_after_a_crash_is_restarting_until_it_is_ready() -> None:
    async with hosted(20.0, 20.0) as found:
        await found.model.settled()
        assert found.model.history.last_load == 20.0
        found.fakes.last.die("killed")
        await asyncio.sleep(10)
        assert len(found.fakes.replicas) == 2
        with pytest.raises(Unavailable, match="restarting after a crash"):
            found.model.call(predict(), b"")
        await asyncio.sleep(15)
        assert found.model.state == "ready"


async def test_a_first_load_asks_to_come_back_soon_and_never_later_than_clients_accept() -> None:
    async with hosted(1000.0) as found:
        error = found.model.not_ready()
        assert isinstance(error, Loading)
        assert error.retry_after == 5
        assert error.truss_message == "Model with name m is not ready: model 'm' is loading."
        await asyncio.sleep(60)
        assert found.model.not_ready().retry_after == 1
        found.model.history.last_load = 5000.0
        assert found.model.not_ready().retry_after == MAX_RETRY_AFTER


async def test_several_may_wait_for_the_end_of_a_load() -> None:
    async with hosted(1.0) as found:
        states = await asyncio.gather(*(found.model.settled() for _ in range(3)))
        assert states == ["ready"] * 3


async def test_a_load_that_fails_is_tried_three_times_and_then_given_up_with_its_reason() -> None:
    async with hosted(*(LoadError(f"no file, try {n}") for n in range(9)), debug=True) as found:
        assert await found.model.settled() == "failed"
        assert len(found.fakes.replicas) == 3
        assert found.model.reason == "no file, try 2"
        with pytest.raises(LoadFailed, match="no file, try 2") as caught:
            found.model.call(predict(), b"")
        assert caught.value.should_retry is False


async def test_the_reason_of_a_failure_is_for_the_operator_only(caplog: pytest.LogCaptureFixture) -> None:
    async with hosted(LoadError("secret path", fatal=True)) as found:
        await found.model.settled()
        assert "secret path" not in str(found.model.not_ready())
        assert "secret path" in caplog.text


async def test_a_load_that_succeeds_at_the_second_try_is_ready() -> None:
    async with hosted(LoadError("once"), None) as found:
        assert await found.model.settled() == "ready"


async def test_a_fatal_failure_is_not_tried_again() -> None:
    async with hosted(LoadError("SyntaxError", fatal=True)) as found:
        assert await found.model.settled() == "failed"
        assert len(found.fakes.replicas) == 1


async def test_a_load_that_takes_too_long_is_ended_and_the_model_failed() -> None:
    async with hosted(10_000.0) as found:
        assert await found.model.settled() == "failed"
        assert "longer than 1800 s" in found.model.reason
        assert found.fakes.last.killed


async def test_a_runner_that_breaks_fails_its_model_with_the_text() -> None:
    def broken(spec: ModelSpec, index: int) -> Any:
        raise RuntimeError("no such option")

    found = Hosted(Fakes(), launch=broken)
    found.model.start()
    assert await found.model.settled() == "failed"
    assert found.model.reason == "RuntimeError: no such option"
    await found.model.stop(0)


async def test_a_model_that_placement_refused_is_failed_with_its_sentence() -> None:
    found = Hosted(Fakes())
    found.model.fail("m/0 cannot run here: 2 × H100 wanted")
    assert found.model.state == "failed"
    assert isinstance(found.model.not_ready(), LoadFailed)
    await found.model.stop(0)
    assert found.model.state == "unloaded"


# ── on demand ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_request_has_an_unloaded_model_loaded_once_and_is_told_to_come_back() -> None:
    demands = []
    found = Hosted(Fakes(5.0), on_demand=lambda: (demands.append(1), found.model.start()))  # type: ignore[func-returns-value]
    for number in range(3):
        assert found.model.load_on_demand() == (number == 0)
        with pytest.raises(Loading) as caught:
            found.model.call(predict(), b"")
        assert caught.value.retry_after is not None
    assert len(demands) == 1
    assert await found.model.settled() == "ready"
    found.model.call(predict(), b"")
    await found.model.stop(0)


async def test_neither_a_call_nor_asking_how_an_unloaded_model_is_loads_it() -> None:
    found = Hosted(Fakes(), on_demand=lambda: pytest.fail("it was loaded"))
    with pytest.raises(Unavailable):
        found.model.call(predict(), b"")
    assert not await found.model.is_healthy()
    assert isinstance(found.model.not_ready(), Unavailable)
    assert found.model.state == "unloaded"


# ── calls ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_call_runs_at_once_and_its_slot_is_free_when_it_was_answered() -> None:
    async with hosted() as found:
        with found.model.call(predict(), b"body") as call:
            assert found.model.limiter.running == 1
            found.fakes.last.answer(call, b"answer")
            assert (await call.first()).final
            assert call.reply == b"answer"
        assert found.model.limiter.running == 0


async def test_three_items_and_then_an_error() -> None:
    async with hosted() as found:
        with found.model.call(chat(), b"") as call:
            found.fakes.last.stream(call, "a", "b", "c")
            await call.first()
            assert await call.take() == ["a", "b", "c"]
            found.fakes.last.fail(call, GatewayError("boom"))
            with pytest.raises(GatewayError, match="boom"):
                await call.take()
        assert found.model.limiter.running == 0


async def test_the_slot_stays_taken_until_the_code_has_stopped() -> None:
    async with hosted() as found:
        found.fakes.last.is_obedient = False
        first = found.model.call(predict(), b"")
        second = found.model.call(predict(), b"")
        first.client_left()
        await turns()
        assert found.fakes.opened == [first]
        found.fakes.last.end(first)
        assert found.fakes.opened == [first, second]


async def test_a_call_that_was_given_up_while_it_waited_never_reaches_the_model() -> None:
    async with hosted() as found:
        first, second, third = (found.model.call(predict(), b"") for _ in range(3))
        second.client_left()
        assert isinstance(await error_of(second), ClientLeft)
        found.fakes.last.answer(first)
        assert found.fakes.opened == [first, third]


async def test_a_full_queue_is_429_with_the_time_to_come_back() -> None:
    async with hosted() as found:
        for _ in range(3):
            found.model.call(predict(), b"")
        with pytest.raises(Overloaded) as caught:
            found.model.call(predict(), b"")
        assert caught.value.retry_after >= 1


async def test_calls_that_belong_together_are_refused_together() -> None:
    async with hosted() as found:
        found.model.admission.check_room(3)
        with pytest.raises(BadRequest, match="4 calls of model 'm', which takes 3 at once"):
            found.model.admission.check_room(4)
        found.model.call(predict(), b"")
        with pytest.raises(Overloaded, match="room for 2"):
            found.model.admission.check_room(3)


async def test_a_call_that_waits_too_long_gets_its_error_and_leaves_the_queue() -> None:
    async with hosted() as found:
        first = found.model.call(predict(), b"")
        began = now()
        second = found.model.call(predict(), b"")
        error = await error_of(second)
        assert isinstance(error, QueueTimeout)
        assert error.retry_after >= 1
        assert 30 <= now() - began < 31
        assert found.model.limiter.queued == 0
        found.fakes.last.answer(first)
        assert found.fakes.opened == [first]


@pytest.mark.parametrize(("req", "limit"), [(predict(), 600), (chat(), 120)], ids=["whole", "stream"])
async def test_an_answer_that_does_not_come_in_time_is_504_and_its_code_is_stopped(req: Any, limit: int) -> None:
    async with hosted() as found:
        call = found.model.call(req, b"")
        began = now()
        error = await error_of(call)
        assert isinstance(error, Timeout)
        assert f"{limit} s" in error.message
        assert limit <= now() - began < limit + 1
        assert found.fakes.last.cancelled == [call]
        await turns()
        assert found.model.limiter.running == 0
        assert found.model.state == "ready"


async def test_a_stream_that_pauses_too_long_breaks_off_after_what_came() -> None:
    async with hosted() as found:
        call = found.model.call(chat(), b"")
        found.fakes.last.stream(call, "a")
        await call.first()
        assert await call.take() == ["a"]
        began = now()
        with pytest.raises(Timeout, match="stream"):
            await call.take()
        assert 60 <= now() - began < 61


async def test_a_slow_reader_is_not_timed_out_by_its_own_slowness() -> None:
    async with hosted() as found:
        call = found.model.call(chat(), b"")
        found.fakes.last.stream(call, "a", "b")
        await call.first()
        await asyncio.sleep(1000)
        assert await call.take() == ["a", "b"]
        await asyncio.sleep(1000)
        found.fakes.last.stream(call, "c")
        assert await call.take() == ["c"]


async def test_code_that_does_not_stop_after_its_time_limit_costs_the_worker_its_life() -> None:
    async with hosted() as found:
        replica = found.fakes.last
        replica.is_obedient = False
        call = found.model.call(predict(), b"")
        began = now()
        assert isinstance(await error_of(call), Timeout)
        await asyncio.wait([replica.lost])
        assert 605 <= now() - began < 607
        assert "beyond its time limit" in replica.killed[0]
        assert call.ended
        await asyncio.sleep(1)
        assert found.model.state == "ready"
        assert len(found.fakes.replicas) == 2


async def test_code_whose_client_left_is_left_alone_until_its_time_limit() -> None:
    async with hosted() as found:
        replica = found.fakes.last
        replica.is_obedient = False
        call = found.model.call(predict(), b"")
        await asyncio.sleep(1)
        call.client_left()
        await asyncio.sleep(500)
        assert replica.killed == []
        await asyncio.sleep(110)
        assert replica.killed


async def test_a_gateway_that_stood_still_hears_its_workers_before_it_judges_them() -> None:
    """SIGSTOP and SIGCONT, a laptop that slept: the answers lie in the sockets."""
    async with hosted() as found:
        replica = found.fakes.last
        replica.is_obedient = False
        left, waits = found.model.call(chat(), b""), found.model.call(predict(), b"")
        left.client_left()
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop._now += 10_000
        loop.call_soon(replica.end, left)
        await turns(3)
        assert replica.killed == []
        assert waits.error is None
        assert found.fakes.opened == [left, waits]


async def test_a_silent_worker_with_a_call_beyond_its_limit_is_killed_without_grace() -> None:
    limits = Limits(request_timeout=600, cancel_grace=3600)
    async with hosted(limits=limits) as found:
        replica, began = found.fakes.last, now()
        replica.is_obedient, replica.last_ping = False, now()
        call = found.model.call(predict(), b"")
        assert isinstance(await error_of(call), Timeout)
        await asyncio.wait([replica.lost])
        assert now() - began < 601
        assert "silent for 600 s" in replica.killed[0]


@pytest.mark.parametrize("silent", [False, True])
async def test_neither_silence_nor_a_limit_alone_kills(silent: bool) -> None:
    limits = Limits(request_timeout=60, cancel_grace=3600)
    async with hosted(limits=limits) as found:
        replica, began = found.fakes.last, now()
        replica.is_obedient = False
        call = found.model.call(predict(), b"")
        while now() < began + (59 if silent else 3600):
            replica.last_ping = began if silent else now()
            await asyncio.sleep(1)
        assert replica.killed == []
        assert (call.error is None) is silent


async def test_a_gateway_that_stood_still_does_not_take_its_own_silence_for_the_workers() -> None:
    async with hosted(limits=Limits(request_timeout=60, cancel_grace=30)) as found:
        replica = found.fakes.last
        replica.is_obedient, replica.last_ping = False, now()
        call = found.model.call(predict(), b"")
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop._now += 100
        assert isinstance(await error_of(call), Timeout)
        await asyncio.sleep(14)
        assert replica.killed == []
        await asyncio.wait([replica.lost])
        assert "silent for 15 s" in replica.killed[0]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the system says of every process: its state, and the share of a core that it uses."""
    said: dict[str, Any] = {"state": "S", "share": 0.0}
    monkeypatch.setattr(
        frozen_workers, "observe", lambda pid: frozen_workers.Seen(said["state"], now() * said["share"])
    )
    return said


@pytest.mark.parametrize(
    ("state", "seconds", "reason"),
    [("T", 5, "stopped"), ("D", 15, "a disk"), ("S", 125, "not run for 120 s")],
    ids=["stopped", "stuck", "silent"],
)
async def test_a_worker_that_stands_still_is_replaced_and_its_callers_get_504(
    seen: dict[str, Any], state: str, seconds: float, reason: str
) -> None:
    async with hosted() as found:
        replica, began, seen["state"] = found.fakes.last, now(), state
        replica.is_obedient, replica.last_ping = False, now()
        call = found.model.call(predict(), b"")
        assert reason in str(await error_of(call))
        assert isinstance(call.error, Timeout)
        assert now() - began < seconds
        await asyncio.wait([replica.lost])
        await turns()
        await found.until("ready")
        assert found.model.history.restart_reasons == {"frozen": 1}


@pytest.mark.parametrize(("state", "share"), [("R", 1.0), ("S", 0.2), ("D", 0.2), ("t", 1.0)])
async def test_a_worker_that_computes_is_busy_and_not_frozen(seen: dict[str, Any], state: str, share: float) -> None:
    async with hosted() as found:
        replica, began = found.fakes.last, now()
        seen.update(state=state, share=share)
        replica.is_obedient, replica.last_ping = False, now()
        call = found.model.call(predict(), b"")
        await asyncio.sleep(began + 590 - now())
        assert call.error is None
        assert replica.killed == []


async def test_a_worker_that_goes_on_in_time_is_let_alone(seen: dict[str, Any]) -> None:
    async with hosted() as found:
        replica, began = found.fakes.last, now()
        replica.last_ping = now()
        call = found.model.call(predict(), b"")
        for second in range(590):
            seen["state"] = "T" if second % 100 < 3 else "S"  # stopped for three seconds, silent for 90
            if not 0 < second % 100 < 90:
                replica.last_ping = now()
            await asyncio.sleep(began + second + 1 - now())
        assert call.error is None
        assert replica.killed == []


async def test_how_long_a_worker_may_be_silent_is_a_setting(seen: dict[str, Any]) -> None:
    async with hosted(limits=Limits(worker_silence=20)) as found:
        began = found.fakes.last.last_ping = now()
        call = found.model.call(predict(), b"")
        assert "for 20 s" in str(await error_of(call))
        assert now() - began < 25


async def test_no_timer_runs_while_there_is_no_call() -> None:
    async with hosted() as found:
        found.fakes.last.answer(found.model.call(predict(), b""))
        await asyncio.sleep(1)
        assert not found.model.admission.deadlines.watching


# ── lost replicas ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_calls_that_ran_on_a_lost_replica_and_calls_that_waited_end_differently() -> None:
    async with hosted() as found:
        ran, waited = found.model.call(predict(), b""), found.model.call(predict(), b"")
        found.fakes.last.die("the worker was ended by SIGKILL")
        first, second = await error_of(ran), await error_of(waited)
        assert isinstance(first, Crashed)
        assert isinstance(second, Crashed)
        assert (first.should_retry, second.should_retry) == (False, True)
        assert found.model.limiter.in_flight == 0


async def test_a_lost_replica_is_started_again_after_a_pause_that_grows() -> None:
    async with hosted() as found:
        pauses = []
        for _ in range(3):
            found.fakes.last.die("crash")
            began = now()
            await turns()
            assert found.model.state == "restarting"
            error = found.model.not_ready()
            assert isinstance(error, Unavailable)
            assert error.retry_after >= 1
            await found.until("ready")
            pauses.append(now() - began)
        for pause, expected in zip(pauses, (0.5, 1.0, 2.0), strict=True):
            assert expected * 0.79 < pause < expected * 1.21 + 0.02
        assert found.model.history.restarts == 3


async def test_a_replica_that_lived_long_enough_is_restarted_soon_again() -> None:
    async with hosted() as found:
        for _ in range(3):
            await asyncio.sleep(200)
            found.fakes.last.die("crash")
            began = now()
            await turns()
            await found.until("ready")
            assert now() - began < 0.65


async def crash_often(found: Hosted, times: int = LIMITS.max_crashes) -> None:
    for n in range(times):
        await found.until("ready")
        found.fakes.last.die(f"crash {n}")
        await turns()


async def test_a_crash_loop_is_a_failure_with_tries_after_1_2_4_and_up_to_60_seconds() -> None:
    async with hosted() as found:
        await crash_often(found)
        for pause in (1, 2, 4, 8, 16, 32, 60, 60, 60):
            assert found.model.state == "failed"
            assert "5 crashes within" in found.model.reason
            error = found.model.not_ready()
            assert isinstance(error, Unavailable)
            assert not isinstance(error, LoadFailed)
            assert error.retry_after == pytest.approx(pause)
            began = now()
            await found.until("ready")
            assert now() - began == pytest.approx(pause, abs=0.1)
            found.fakes.last.die("crash again")
            await turns()


async def test_a_replica_that_lived_for_a_minute_ends_a_crash_loop() -> None:
    async with hosted() as found:
        await crash_often(found)
        await found.until("ready")
        await asyncio.sleep(HEALTHY_AFTER + 60)
        found.fakes.last.die("crash")
        await turns()
        assert found.model.state == "restarting"


async def test_crashes_that_are_far_apart_are_no_crash_loop() -> None:
    async with hosted() as found:
        for _ in range(2 * LIMITS.max_crashes):
            await asyncio.sleep(40)
            await crash_often(found, 1)
            assert found.model.state == "restarting"


async def test_a_replica_that_cannot_be_loaded_again_makes_the_model_failed() -> None:
    async with hosted() as found:
        found.fakes.loads = [LoadError("the file is gone", fatal=True)]
        found.fakes.last.die("crash")
        await asyncio.sleep(5)
        assert found.model.state == "failed"
        assert found.model.reason == "the file is gone"


async def test_with_a_second_replica_the_model_stays_ready_and_nobody_who_waits_notices() -> None:
    async with hosted(replicas=2) as found:
        await turns()
        one, two = found.fakes.replicas
        calls = [found.model.call(predict(), b"") for _ in range(3)]
        one.die("crash")
        await turns()
        assert found.model.state == "ready"
        assert isinstance(await error_of(calls[0]), Crashed)
        two.answer(calls[1])
        assert found.fakes.opened[-1] is calls[2]
        assert calls[2] in two.open_calls


async def test_the_loss_of_one_replica_of_several_is_a_warning_and_its_reason_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with hosted(replicas=2) as found:
        found.fakes.loads = [LoadError("no memory", fatal=True)]
        caplog.clear()
        found.fakes.replicas[0].die("killed by SIGKILL")
        await turns()
        assert found.model.state == "ready"
        assert found.model.replicas.ill() == ["its replica 0 is restarting: killed by SIGKILL"]
        await asyncio.sleep(10)  # of the clock that nobody waits for
        assert found.model.replicas.ill() == ["its replica 0 failed: no memory"]
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            ("WARNING", "model 'm' is ready still, but its replica 0 is restarting: killed by SIGKILL"),
            ("ERROR", "model 'm' is ready still, but its replica 0 failed: no memory"),
        ]


async def test_a_model_that_restarts_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with hosted() as found:
        caplog.clear()
        found.fakes.last.die("killed by SIGKILL")
        await turns()
        (told,) = caplog.records
        assert (told.levelname, told.getMessage()) == ("WARNING", "model 'm' is restarting: killed by SIGKILL")


async def test_a_replica_that_refuses_a_call_gets_no_more_of_them() -> None:
    """Between the loss of the channel and the news of it a dead replica looks like the freest."""
    async with hosted(replicas=2) as found:
        await turns()
        one, two = found.fakes.replicas
        one.open_error = ConnectionError("gone")
        calls = [found.model.call(predict(), b"") for _ in range(2)]
        assert two.open_calls == calls[:1]
        two.answer(calls[0])
        assert two.open_calls == calls[1:]


async def test_a_call_that_the_last_replica_refuses_ends_even_for_a_route_without_a_task() -> None:
    async with hosted() as found:
        found.fakes.last.open_error = ConnectionError("gone")
        call = found.model.call(predict(), b"")
        seen: list[Call] = []
        call.on_ready = seen.append
        await turns()
        assert seen == [call]
        assert isinstance(call.error, Crashed)
        assert call.error.should_retry is True
        assert found.model.limiter.in_flight == 0


async def test_a_call_that_cannot_be_sent_ends_with_an_error_and_gives_its_slot_back() -> None:
    async with hosted() as found:
        found.fakes.last.open_error = TypeError("no such field")
        call = found.model.call(predict(), b"")
        assert (await error_of(call)).code == "internal_error"  # type: ignore[attr-defined]
        assert found.model.limiter.in_flight == 0
        found.fakes.last.open_error = None
        found.fakes.last.answer(found.model.call(predict(), b""))


async def test_a_replica_killed_while_calls_wait_leaves_none_of_them_behind() -> None:
    limits = Limits(slots=2, max_queue=1000)
    async with hosted(limits=limits) as found:
        calls = [found.model.call(predict(), b"") for _ in range(900)]
        found.fakes.last.open_error = ConnectionError("gone")
        found.fakes.last.die("SIGKILL")
        errors = await asyncio.gather(*(error_of(call) for call in calls))
        assert {type(error) for error in errors} == {Crashed}
        assert found.model.limiter.in_flight == 0


# ── with hooks ───────────────────────────────────────────────────────────────────────────────────────────────────────

HOOKS = Capabilities(methods=(), has_hooks=True)


async def test_with_hooks_slots_and_queue_are_in_the_worker_and_counted_by_what_it_says() -> None:
    async with hosted(capabilities=HOOKS) as found:
        calls = [found.model.call(predict(), b"") for _ in range(3)]
        limiter = found.model.limiter
        assert found.fakes.opened == calls
        assert (limiter.running, limiter.queued) == (3, 0)
        calls[0].on_slot()
        for call in calls[1:]:
            call.on_waits()
        assert (limiter.running, limiter.queued) == (1, 2)
        with pytest.raises(Overloaded):
            found.model.call(predict(), b"")
        found.fakes.last.answer(calls[0])
        assert (limiter.running, limiter.queued) == (0, 2)
        found.fakes.last.fail(calls[1], GatewayError("preprocess failed"))
        assert (limiter.running, limiter.queued) == (0, 1)
        found.fakes.last.die("crash")
        assert (limiter.running, limiter.queued) == (0, 0)


async def test_with_hooks_only_the_time_with_a_slot_is_measured() -> None:
    async with hosted(capabilities=HOOKS) as found:
        one, two = found.model.call(predict(), b""), found.model.call(predict(), b"")
        await asyncio.sleep(100)
        one.on_slot()
        await asyncio.sleep(4)
        found.fakes.last.answer(one)
        found.fakes.last.fail(two, GatewayError("preprocess failed"))
        assert found.model.limiter.mean_service == pytest.approx(4.0)


async def test_a_refused_call_of_a_model_with_hooks_is_not_counted_as_waiting() -> None:
    async with hosted(capabilities=HOOKS) as found:
        found.fakes.last.open_error = ConnectionError("gone")
        found.model.call(predict(), b"")
        assert found.model.limiter.queued == 0


# ── health ───────────────────────────────────────────────────────────────────────────────────────────────────────────

PROBED = Capabilities(methods=(), has_health_check=True)


async def test_without_a_check_of_its_own_a_ready_model_is_healthy() -> None:
    async with hosted() as found:
        assert await found.model.is_healthy()
    assert not await found.model.is_healthy()


@pytest.mark.parametrize(("answer", "healthy"), [(True, True), (False, False), (None, True)])
async def test_the_models_own_check_decides_and_none_means_ready(answer: Any, healthy: bool) -> None:
    async with hosted(capabilities=PROBED) as found:
        probe = asyncio.create_task(found.model.is_healthy())
        await turns()
        (question,) = found.fakes.asked
        assert question.ask.what == "is_healthy"
        found.fakes.last.say(question, answer)
        assert await probe is healthy


async def test_a_check_that_raises_is_unhealthy() -> None:
    async with hosted(capabilities=PROBED) as found:
        probe = asyncio.create_task(found.model.is_healthy())
        await turns()
        found.fakes.last.fail(found.fakes.asked[0], GatewayError("no"))
        assert not await probe


async def test_each_change_of_what_a_check_says_is_a_line_and_a_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gateway.models")
    async with hosted(capabilities=PROBED) as found:
        caplog.clear()
        told = []
        for answer in (True, False, False, GatewayError("no"), True, True):
            probe = asyncio.create_task(found.model.is_healthy())
            await turns()
            if isinstance(answer, GatewayError):
                found.fakes.last.fail(found.fakes.asked[-1], answer)
            else:
                found.fakes.last.say(found.fakes.asked[-1], answer)
            await probe
            told.append(found.model.health.problem)
        assert told == ["", *["its is_healthy says False"] * 2, "its is_healthy failed: no", "", ""]
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            ("WARNING", "model 'm' is unhealthy but still gets calls: its is_healthy says False"),
            ("INFO", "model 'm' is healthy again"),
        ]


async def test_who_asks_while_a_check_is_asked_gets_its_answer() -> None:
    async with hosted(capabilities=PROBED) as found:
        probes = [asyncio.create_task(found.model.is_healthy()) for _ in range(3)]
        await turns()
        probes[0].cancel()
        (question,) = found.fakes.asked
        found.fakes.last.say(question, True)
        assert [await probe for probe in probes[1:]] == [True, True]


async def test_what_a_lost_replica_said_of_its_health_is_forgotten() -> None:
    async with hosted(capabilities=PROBED) as found:
        probe = asyncio.create_task(found.model.is_healthy())
        await turns()
        found.fakes.last.say(found.fakes.asked[-1], False)
        await probe
        found.fakes.last.die("gone")
        await turns()
        assert (found.model.health.is_good, found.model.health.problem) == (None, "")


async def test_a_check_takes_no_slot() -> None:
    async with hosted(capabilities=PROBED) as found:
        found.model.call(predict(), b"")
        probe = asyncio.create_task(found.model.is_healthy())
        await turns()
        found.fakes.last.say(found.fakes.asked[-1], True)
        assert await probe
        assert found.model.limiter.running == 1


async def test_a_check_that_hangs_is_unhealthy_is_asked_once_only_and_kills_nobody() -> None:
    async with hosted(capabilities=PROBED) as found:
        found.fakes.last.is_obedient = False
        began = now()
        assert not await found.model.is_healthy()
        assert now() - began == HEALTH_TIMEOUT
        assert not await found.model.is_healthy()
        assert len(found.fakes.asked) == 1
        found.fakes.last.answer(found.model.call(predict(), b""))
        await asyncio.sleep(2000)
        assert found.fakes.last.killed == []
        found.fakes.last.end(found.fakes.asked[0])
        probe = asyncio.create_task(found.model.is_healthy())
        await turns()
        found.fakes.last.say(found.fakes.asked[-1], True)
        assert await probe


async def test_a_check_that_could_not_be_sent_is_asked_again_later() -> None:
    async with hosted(capabilities=PROBED) as found:
        found.fakes.last.open_error = ConnectionError("gone")
        assert not await found.model.is_healthy()
        found.fakes.last.open_error = None
        probe = asyncio.create_task(found.model.is_healthy())
        await turns()
        found.fakes.last.say(found.fakes.asked[-1], True)
        assert await probe


# ── swapping the class ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_class_that_was_swapped_is_what_the_model_can_do() -> None:
    async with hosted() as found:
        swapped = asyncio.create_task(found.model.swap_class())
        await turns()
        found.fakes.last.say(found.fakes.asked[0], {"methods": [{"name": "rerank", "kind": "sync"}]})
        await swapped
        assert [method.name for method in found.model.capabilities.methods] == ["rerank"]


async def test_a_swap_takes_as_long_as_a_request_may_and_code_that_does_not_stop_costs_the_worker() -> None:
    async with hosted() as found:
        found.fakes.last.is_obedient = False
        began = now()
        with pytest.raises(Timeout, match="did not answer within 600 s"):
            await found.model.swap_class()
        assert now() - began == pytest.approx(LIMITS.request_timeout, abs=1)
        await asyncio.sleep(LIMITS.cancel_grace + 1)
        assert found.fakes.replicas[0].killed and found.model.history.restart_reasons == {"cancel": 1}


async def test_a_swap_that_outlasts_a_stop_ends_with_an_error() -> None:
    async with hosted() as found:
        swapped = asyncio.create_task(found.model.swap_class())
        await turns()
        await found.model.stop(1)
        with pytest.raises(Draining):
            await swapped


# ── draining ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stop_lets_running_and_waiting_calls_finish_and_takes_no_more() -> None:
    async with hosted() as found:
        replica = found.fakes.last
        first, second = found.model.call(predict(), b""), found.model.call(predict(), b"")
        stopping = asyncio.create_task(found.model.stop(30))
        await turns()
        with pytest.raises(Draining) as caught:
            found.model.call(predict(), b"")
        assert caught.value.retry_after == 1
        await asyncio.sleep(5)
        replica.answer(first)
        await asyncio.sleep(5)
        assert not stopping.done()
        replica.answer(second)
        await stopping
        assert replica.stopped == [20]
        assert first.error is None
        assert second.error is None
        assert found.model.state == "unloaded"


async def test_a_stop_is_over_as_soon_as_nobody_runs_or_waits_any_more() -> None:
    async with hosted() as found:
        first, second = found.model.call(predict(), b""), found.model.call(predict(), b"")
        began = now()
        stopping = asyncio.create_task(found.model.stop(30))
        await asyncio.sleep(1)
        second.client_left()
        found.fakes.last.answer(first)
        await stopping
        assert now() - began < 1.1


async def test_calls_that_outlast_the_grace_end_with_an_error_before_their_worker_does() -> None:
    async with hosted() as found:
        running, waiting = found.model.call(chat(), b""), found.model.call(predict(), b"")
        found.fakes.last.is_obedient = False
        began = now()
        await found.model.stop(30)
        assert isinstance(await error_of(running), Draining)
        assert isinstance(await error_of(waiting), Draining)
        assert now() - began < 32
        assert found.fakes.last.stopped == [2]  # enough for an unload


async def test_a_second_stop_hurries_the_first() -> None:
    async with hosted() as found:
        call = found.model.call(predict(), b"")
        began = now()
        patient = asyncio.create_task(found.model.stop(30))
        await asyncio.sleep(1)
        await found.model.stop(0)
        await patient
        assert isinstance(await error_of(call), Draining)
        assert now() - began < 2


async def test_a_stop_in_the_middle_of_a_load_ends_the_load() -> None:
    async with hosted(1000.0) as found:
        await asyncio.sleep(1)
        began = now()
        await found.model.stop(30)
        assert now() - began < 1
        assert set(found.fakes.last.killed) == {"the load was given up"}
        assert found.model.state == "unloaded"
    assert ("draining", "ready") not in found.events


async def test_a_load_that_ends_during_a_stop_does_not_make_the_model_ready() -> None:
    async with hosted(replicas=2) as found:
        await turns()
        found.fakes.loads = [3.0]
        found.fakes.replicas[1].die("crash")
        call = found.model.call(predict(), b"")
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(found.model.stop(30))
        await asyncio.sleep(10)
        assert found.model.state == "draining"
        assert len(found.fakes.replicas) == 2, "a replica was started while draining"
        found.fakes.replicas[0].answer(call)
        await stopping


async def test_a_crash_during_a_stop_starts_nothing_and_leaves_nobody_waiting() -> None:
    async with hosted() as found:
        running, waiting = found.model.call(predict(), b""), found.model.call(predict(), b"")
        stopping = asyncio.create_task(found.model.stop(30))
        await turns()
        began = now()
        found.fakes.last.die("crash")
        await stopping
        assert now() - began < 1
        assert isinstance(await error_of(running), Crashed)
        assert isinstance(await error_of(waiting), Crashed)
        assert len(found.fakes.replicas) == 1
        assert found.fakes.last.stopped, "what is left of its processes was not ended"


async def test_a_model_can_be_started_again_after_a_stop() -> None:
    async with hosted() as found:
        await found.model.stop(1)
        found.model.start()
        assert await found.model.settled() == "ready"
        found.fakes.last.answer(found.model.call(predict(), b""))
        assert len(found.fakes.replicas) == 2


async def test_start_is_once_only() -> None:
    async with hosted() as found:
        found.model.start()
        await turns()
        assert len(found.fakes.replicas) == 1


async def test_what_changed_reaches_every_replica() -> None:
    async with hosted(replicas=2) as found:
        await turns()
        found.model.replicas.update({"token": "new"}, None)
        assert [replica.updates for replica in found.fakes.replicas] == [[({"token": "new"}, None)]] * 2


async def test_what_changed_during_a_load_reaches_the_replica_that_loads() -> None:
    async with hosted(10.0) as found:
        await asyncio.sleep(1)
        found.model.replicas.update({"token": "new"}, None)
        assert found.fakes.last.updates == [({"token": "new"}, None)]
        await found.model.settled()
        found.model.replicas.update({"token": "newer"}, None)
        assert len(found.fakes.last.updates) == 2


# ── any order of events ──────────────────────────────────────────────────────────────────────────────────────────────

steps = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "stream", "answer", "fail", "leave", "late", "die", "deaf", "time"]),
        st.integers(0, 30),
    ),
    max_size=60,
)


@settings(PATIENT, max_examples=120)
@given(steps, st.sampled_from([1, 2]), st.sampled_from([None, HOOKS]))
def test_every_call_ends_exactly_once_whatever_happens(
    script: list[tuple[str, int]], replicas: int, capabilities: Capabilities | None
) -> None:
    async def run() -> None:
        limits = Limits(slots=2, max_queue=3, queue_timeout=20, request_timeout=50, cancel_grace=3)
        found = Hosted(Fakes(capabilities=capabilities), limits, replicas)
        found.model.start()
        await found.model.settled()
        calls: list[Call] = []
        outcomes: list[asyncio.Task[str]] = []

        async def outcome(call: Call) -> str:
            try:
                with call:
                    await call.first()
                    while call.head is not None and call.head.stream and await call.take() is not None:
                        pass
                return "answered"
            except (GatewayError, ClientLeft) as error:
                return type(error).__name__

        def pick(number: int) -> tuple[FakeReplica, Call] | None:
            pairs = [(replica, call) for replica in found.fakes.replicas for call in replica.open_calls]
            return pairs[number % len(pairs)] if pairs else None

        for what, number in script:
            if what in ("call", "stream"):
                try:
                    calls.append(found.model.call(predict() if what == "call" else chat(), b""))
                    outcomes.append(asyncio.create_task(outcome(calls[-1])))
                except GatewayError:
                    pass
            elif what == "time":
                await asyncio.sleep(number)
            elif what == "leave" and calls:
                calls[number % len(calls)].client_left()
            elif what == "die":
                found.fakes.replicas[number % len(found.fakes.replicas)].die("crash")
            elif what == "deaf":
                found.fakes.replicas[number % len(found.fakes.replicas)].is_obedient = False
            elif (chosen := pick(number)) is not None:
                replica, call = chosen
                if what == "answer" and call.head is None:
                    replica.answer(call)
                elif what == "answer" or (what == "late" and call.head is not None):
                    replica.end(call)
                elif what == "late":
                    call.on_slot()
                    replica.stream(call, "item")
                else:
                    replica.fail(call, GatewayError("boom"))
            await turns(2)
            limiter = found.model.limiter
            assert all(0 <= seat.used <= seat.room and 0 <= seat.waiting <= seat.used for seat in limiter.seats)
            assert 0 <= limiter.in_flight <= limiter.slots + limiter.max_queue or not limiter.seats
        await asyncio.sleep(200)
        await found.model.stop(1)
        assert all(task.done() for task in outcomes), "a call never ended"
        for task in outcomes:
            task.result()
        assert found.model.limiter.in_flight == 0
        assert all(not replica.open_calls for replica in found.fakes.replicas)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run())


def test_a_worker_that_reports_a_queue_timeout_is_a_queue_timeout() -> None:
    assert isinstance(to_error(Failure(503, "queue_timeout", "waited")), QueueTimeout)
