from __future__ import annotations

import asyncio
import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.directories.discovery import discover
from gateway.plugins import Plugins
from gateway.runners.yielding import LEAST, LOOK, Yielding
from gateway.settings.load import load_settings

from .confined import confined
from .started import Started, started, write

ECHO = "class Model:\n    def predict(self, x): return x\n"


@pytest.fixture
def pid() -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def pause(times: int) -> None:
    """Sleep as an event loop does that has nothing to do."""
    for _ in range(times):
        select.select([], [], [], 0.0001)


def test_a_worker_yields_while_calls_come_without_a_pause(pid: int) -> None:
    yielding = Yielding(pid)
    yielding.look(LEAST)
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    yielding.look(3 * LEAST)
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    pause(2 * LEAST)  # as with one client that waits for each answer
    yielding.look(4 * LEAST)
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER


def test_few_calls_make_no_worker_yield(pid: int) -> None:
    yielding = Yielding(pid)
    yielding.look(LEAST - 1)
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER
    yielding.look(2 * LEAST)
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    yielding.look(2 * LEAST)  # the heartbeat of a worker that has nothing to do any more
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER


def test_a_policy_that_somebody_has_chosen_stays(pid: int) -> None:
    os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    yielding = Yielding(pid)
    yielding.look(LEAST)
    assert os.sched_getscheduler(pid) == os.SCHED_IDLE


def test_a_worker_that_has_ended_yields_to_nobody(pid: int) -> None:
    yielding = Yielding(pid)
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yielding.look(LEAST)
    Yielding(None).look(LEAST)


async def crowd(found: Started) -> None:
    """Make so many calls at a time that the loop looks after its worker without having slept for most of them."""
    await asyncio.gather(*(found.ask("predict") for _ in range(2 * LOOK)))


async def yields_and_stops(found: Started) -> None:
    pid = found.replica.pid
    assert pid is not None
    await crowd(found)
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    while os.sched_getscheduler(pid) == os.SCHED_BATCH:
        assert await found.ask("predict", 1) == 1


@pytest.mark.anyio
async def test_a_crowd_of_calls_makes_a_worker_yield_until_there_are_pauses_again(tmp_path: Path) -> None:
    async with started(tmp_path, ECHO) as found:
        await yields_and_stops(found)


@confined
@pytest.mark.anyio
async def test_so_it_does_with_a_strict_worker(tmp_path: Path) -> None:
    async with started(tmp_path, ECHO, spec={"sandbox": "strict"}) as found:
        await yields_and_stops(found)


@pytest.mark.anyio
async def test_a_setting_switches_it_off(tmp_path: Path) -> None:
    write(tmp_path, {"models/a/model.py": ECHO})
    (tmp_path / "gateway.toml").write_text("[gateway.worker]\nyields = false\n")
    settings = load_settings(tmp_path / "gateway.toml", environ={})
    (spec,) = discover([tmp_path / "models"], Plugins.load(), settings).specs
    assert spec.yields is False
    async with started(tmp_path / "run", ECHO, spec={"yields": False}) as found:
        await crowd(found)
        assert found.replica.pid is not None
        assert os.sched_getscheduler(found.replica.pid) == os.SCHED_OTHER
