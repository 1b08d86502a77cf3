"""A reload: the new replica beside the old, the switch in one step, and nothing lost whichever way it goes."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeReplica, LoadError, VirtualLoop, predict, turns
from test_model import LIMITS, Hosted, error_of, hosted

from gateway.admission.ready_queue import Waiter
from gateway.errors import Crashed, Draining, Loading
from gateway.files.clearing import clear_away
from gateway.hosting.reload import _forget_compiled
from gateway.runners.call import Call
from gateway.spec import Capabilities, ModelSpec

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


def other(found: Hosted, **changes: object) -> ModelSpec:
    return replace(found.model.spec, display_name="the second", **changes)  # type: ignore[arg-type]


def begun(found: Hosted) -> tuple[FakeReplica, Call]:
    """A call that runs, and the replica that runs it."""
    call = found.model.call(predict(), b"")
    return found.fakes.last, call


async def test_calls_go_to_the_new_replica_and_the_old_one_finishes_what_it_has() -> None:
    async with hosted() as found:
        old, call = begun(found)
        await found.model.reload(other(found))
        new, later = found.fakes.last, found.model.call(predict(), b"")
        assert new is not old and later in new.open_calls
        assert old.stopped == [] and call in old.open_calls
        old.answer(call, b"first")
        assert (await call.first()).status == 200
        await turns()
        assert len(old.stopped) == 1
        assert found.model.spec.display_name == "the second"
        new.answer(later)


async def test_those_who_wait_are_served_by_the_new_one() -> None:
    async with hosted() as found:
        old, call = begun(found)
        waiting = found.model.call(predict(), b"")
        await found.model.reload(other(found))
        assert waiting in found.fakes.last.open_calls
        old.answer(call)
        found.fakes.last.answer(waiting)
        assert (await waiting.first()).status == 200


async def test_the_model_is_ready_all_the_while_and_nobody_hears_of_it() -> None:
    async with hosted() as found:
        loading = asyncio.Event()
        found.fakes.loads = [loading]
        before = len(found.events)
        reloading = asyncio.create_task(found.model.reload(other(found)))
        await turns()
        assert found.model.state == "ready"
        old, call = found.fakes.replicas[0], found.model.call(predict(), b"")
        assert call in old.open_calls
        loading.set()
        await reloading
        assert found.model.state == "ready" and len(found.events) == before
        old.answer(call)


async def test_a_new_one_that_cannot_be_loaded_changes_nothing_and_says_why() -> None:
    async with hosted(replicas=2) as found:
        await turns()
        old, spec = list(found.fakes.replicas), found.model.spec
        found.fakes.loads = [None, LoadError("a syntax error in line 3")]
        with pytest.raises(LoadError, match="line 3"):
            await found.model.reload(other(found))
        assert found.fakes.replicas[2].killed  # the one that was good
        assert all(not replica.killed and not replica.stopped for replica in old)
        assert found.model.spec is spec
        call = found.model.call(predict(), b"")
        assert any(call in replica.open_calls for replica in old)


async def test_a_check_of_health_that_hangs_holds_up_no_reload_and_no_stop() -> None:
    async with hosted(capabilities=Capabilities(methods=(), has_health_check=True)) as found:
        old = found.fakes.last
        old.is_obedient = False
        asked = asyncio.create_task(found.model.is_healthy())
        await turns()
        assert len(old.open_questions) == 1
        await found.model.reload(other(found))
        async with asyncio.timeout(60):
            await found.model.replicas.retiring.ended()
        assert len(old.stopped) == 1 and not await asked
        found.fakes.last.is_obedient = False
        again = asyncio.create_task(found.model.is_healthy())
        await turns()
        async with asyncio.timeout(60):
            await found.model.stop(30)
        assert not await again


async def test_a_check_of_health_that_was_replaced_with_its_worker_is_no_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with hosted(capabilities=Capabilities(methods=(), has_health_check=True)) as found:
        asked, old = asyncio.create_task(found.model.is_healthy()), found.fakes.last
        await turns()
        lost = old.lost
        old.lost = asyncio.get_running_loop().create_future()  # it is known a moment after its calls have ended
        old.fail(old.open_questions[0], Crashed("the worker was lost", should_retry=False))
        assert not await asked
        assert found.model.health.problem == "" and "unhealthy" not in caplog.text
        old.lost = lost


async def test_a_reload_may_change_slots_queue_and_replicas() -> None:
    async with hosted() as found:
        limits = replace(LIMITS, slots=3, max_queue=7)
        await found.model.reload(other(found, limits=limits, replicas=2))
        assert (found.model.limiter.slots, found.model.limiter.max_queue) == (6, 7)
        assert found.model.replicas.phases() == {0: "ready", 1: "ready"}


async def test_the_new_one_is_kept_alive_and_the_old_one_is_not() -> None:
    async with hosted() as found:
        await found.model.reload(other(found))
        await turns()
        count = len(found.fakes.replicas)
        assert found.model.history.restarts == 0
        found.fakes.last.die("crash")
        await turns()
        assert found.model.state == "restarting"
        await found.until("ready")
        assert len(found.fakes.replicas) == count + 1
        assert found.fakes.last.launch.spec.display_name == "the second"


async def test_a_stop_does_not_wait_for_code_of_a_replaced_one_that_nobody_waits_for() -> None:
    async with hosted() as found:
        old, call = begun(found)
        old.is_obedient = False
        await found.model.reload(other(found))
        call.client_left()
        began = asyncio.get_running_loop().time()
        await found.model.stop(30)
        assert len(old.stopped) == 1 and asyncio.get_running_loop().time() - began < 1


async def test_a_stop_ends_a_replaced_one_whose_code_outlives_all_grace() -> None:
    async with hosted() as found:
        old, call = begun(found)
        old.is_obedient = False
        await found.model.reload(other(found))
        began = asyncio.get_running_loop().time()
        await found.model.stop(30)
        assert isinstance(await error_of(call), Draining)
        assert len(old.stopped) == 1 and asyncio.get_running_loop().time() - began < 31


async def test_two_reloads_at_once_are_one_too_many() -> None:
    async with hosted() as found:
        loading = asyncio.Event()
        found.fakes.loads = [loading]
        first = asyncio.create_task(found.model.reload(other(found)))
        await turns()
        with pytest.raises(LoadError, match="already"):
            await found.model.reload(other(found))
        loading.set()
        await first


async def test_a_stop_in_the_middle_of_a_reload_ends_both_replicas() -> None:
    async with hosted() as found:
        found.fakes.loads = [asyncio.Event()]
        reloading = asyncio.create_task(found.model.reload(other(found)))
        await turns()
        await found.model.stop(0)
        with pytest.raises(LoadError, match="stopped"):
            await reloading
        assert all(replica.lost.done() for replica in found.fakes.replicas)


async def test_a_stop_waits_for_what_a_replaced_replica_still_runs() -> None:
    async with hosted() as found:
        old, call = begun(found)
        await found.model.reload(other(found))
        stopping = asyncio.create_task(found.model.stop(10))
        await turns()
        assert not stopping.done()
        old.answer(call)
        await stopping
        assert (await call.first()).status == 200


async def test_a_stop_ends_what_a_replaced_replica_runs_too_long() -> None:
    async with hosted() as found:
        _, call = begun(found)
        await found.model.reload(other(found))
        await found.model.stop(10)
        assert isinstance(await error_of(call), Draining)


async def test_the_time_limits_hold_for_what_a_replaced_replica_runs_and_its_end_says_which_code_it_had(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with hosted() as found:
        old, call = begun(found)
        old.is_obedient = False
        await found.model.reload(other(found))
        await asyncio.sleep(LIMITS.request_timeout + LIMITS.cancel_grace + 1)
        assert old.killed
        assert (await error_of(call)).code == "timeout"  # type: ignore[attr-defined]
        assert f"killing worker {old.pid}, which has the code from before a reload: a call that was" in caplog.text
        new, later = begun(found)
        new.is_obedient = False
        await asyncio.sleep(LIMITS.request_timeout + LIMITS.cancel_grace + 1)
        assert f"killing worker {new.pid}: a call" in caplog.text
        assert (await error_of(later)).code == "timeout"  # type: ignore[attr-defined]
        await turns()
        assert found.model.replicas._killed == {}


@pytest.mark.parametrize("then", ["reload", "stop"])
async def test_why_a_replica_was_killed_is_kept_for_no_other_when_nobody_hears_of_its_loss(then: str) -> None:
    async with hosted() as found:
        found.model.replicas.kill(found.fakes.last, "too long", "timeout")
        await (found.model.reload(other(found)) if then == "reload" else found.model.stop(10))
        await turns()
        assert found.model.replicas._killed == {}


# ── replace: stop, then load ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_replaced_model_finishes_and_ends_before_the_new_one_is_loaded() -> None:
    async with hosted() as found:
        old, call = begun(found)
        replacing = asyncio.create_task(found.model.replace(other(found), 30))
        await turns()
        assert found.model.state == "draining" and len(found.fakes.replicas) == 1
        old.answer(call, b"first")
        assert (await call.first()).status == 200
        await replacing
        assert len(old.stopped) == 1 and found.fakes.last is not old
        assert found.model.state == "ready" and found.model.spec.display_name == "the second"
        assert [state for _, state in found.events[-3:]] == ["draining", "loading", "ready"]


async def test_requests_wait_for_what_replaces_a_model_as_for_one_that_loads() -> None:
    async with hosted(limits=replace(LIMITS, wait_for_ready=100)) as found:
        old, call = begun(found)
        replacing = asyncio.create_task(found.model.replace(other(found), 30))
        await turns()
        with pytest.raises(Loading) as caught:
            found.model.call(predict(), b"")
        assert caught.value.retry_after is not None and "is loading" in str(caught.value)

        waiting = asyncio.create_task(found.model.wait_ready(Waiter(), 100))
        await turns()
        old.answer(call)
        await replacing
        await waiting
        assert found.model.call(predict(), b"") in found.fakes.last.open_calls


async def test_code_that_cannot_be_loaded_leaves_a_replaced_model_failed_until_the_next_reload() -> None:
    async with hosted() as found:
        found.fakes.loads = [LoadError("no good", fatal=True)]
        with pytest.raises(LoadError, match="no good"):
            await found.model.replace(other(found), 0)
        assert (found.model.state, found.model.reason) == ("failed", "no good")
        await found.model.replace(other(found), 0)
        assert found.model.state == "ready"


async def test_a_stop_in_the_middle_of_a_replacement_is_the_last_word() -> None:
    async with hosted() as found:
        _, call = begun(found)
        replacing = asyncio.create_task(found.model.replace(other(found), 30))
        await turns()
        with pytest.raises(LoadError, match="being reloaded or stopped already"):
            await found.model.replace(other(found), 30)
        stopping = asyncio.create_task(found.model.stop(0))
        await error_of(call)
        await stopping
        with pytest.raises(LoadError, match="stopped meanwhile"):
            await replacing
        assert found.model.state == "unloaded" and len(found.fakes.replicas) == 1


async def test_a_replica_that_is_loaded_beside_others_hears_of_their_ports() -> None:
    async with hosted(capabilities=Capabilities(ports=(18499,))) as found:
        assert found.fakes.last.launch.taken_ports == ()
        await found.model.reload(other(found))
        assert found.fakes.last.launch.taken_ports == (18499,)
        await found.model.replace(other(found), 0)
        assert found.fakes.last.launch.taken_ports == ()


def test_compiled_code_is_looked_for_among_its_own_files_first_and_not_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.hosting.reload.MOST_LOOKED", 20)
    root, shared = tmp_path / "model", tmp_path / "shared"
    for place in (root / "part/__pycache__", *(shared / f"{number:02}/__pycache__" for number in range(50))):
        place.mkdir(parents=True)
        (place / "a.pyc").touch()
    _forget_compiled(ModelSpec(name="a", target="m:M", root=root, import_dirs=(shared,)))
    assert not (root / "part/__pycache__/a.pyc").exists()
    assert len(list(shared.rglob("*.pyc"))) == 50
    (said,) = caplog.messages
    assert said.startswith("a has more than 20 files and directories, those of its external_package_dirs included")


def test_of_compiled_code_nothing_goes_that_lies_behind_a_link_or_in_the_models_data(tmp_path: Path) -> None:
    """A strict model may write to its data, and the gateway anywhere: it is not to remove files for the model."""
    root, outside = tmp_path / "model", tmp_path / "outside"
    places = [root / "__pycache__", root / "packages/deep/__pycache__", root / "data/__pycache__", outside]
    for place in places:
        place.mkdir(parents=True)
        (place / "a.pyc").touch()
    for link in (root / "data/behind", root / ".hidden"):
        link.mkdir()
        (link / "__pycache__").symlink_to(outside)
    (root / "linked").symlink_to(outside.parent / "model/data")
    deep = os.open(root / "data", os.O_RDONLY)
    for _ in range(sys.getrecursionlimit() + 100):
        os.mkdir("d", dir_fd=deep)
        below = os.open("d", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(deep)
    _forget_compiled(ModelSpec(name="a", target="m:M", root=root, data_dir=root / "data"))
    assert [(place / "a.pyc").exists() for place in places] == [False, False, True, True]
    _forget_compiled(ModelSpec(name="a", target="m:M", root=root))
    assert (outside / "a.pyc").exists()
    clear_away(root)
