"""Whatever ends the gateway ends the process groups that it told the reaper of, and no others."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator

import pytest

from gateway.runners import spawn
from gateway.system import reaper as reaper_module
from gateway.system.reaper import Reaper, born

from .started import gone

pytestmark = pytest.mark.anyio
SLEEP = [sys.executable, "-S", "-c", "import time; print('up', flush=True); time.sleep(600)"]


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Three processes, each in a group of its own."""
    found = [subprocess.Popen(SLEEP, stdout=subprocess.PIPE, start_new_session=True) for _ in range(3)]
    for process in found:
        assert process.stdout is not None
        process.stdout.readline()
    yield found
    for process in found:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


async def test_when_the_pipe_closes_the_groups_that_are_left_are_ended(
    sleepers: list[subprocess.Popen[bytes]],
) -> None:
    reaper = Reaper()
    one, two, other = sleepers
    reaper.add(one.pid, "one")
    reaper.add(two.pid, "two")
    reaper.remove(two.pid)
    reaper.add(2**22 + 1, "none")  # no such process
    reaper.close()
    await gone(one.pid)
    assert two.poll() is None
    assert other.poll() is None


async def test_a_group_whose_number_another_process_has_by_now_is_left_alone(
    sleepers: list[subprocess.Popen[bytes]],
) -> None:
    ours, others, _ = sleepers
    earlier = str(int(born(others.pid)) - 1)
    assert not spawn._signal_rest(others.pid, earlier, signal.SIGKILL)
    reaper_module.end(others.pid, earlier, "")
    reaper_module.end(ours.pid, born(ours.pid), "")
    await gone(ours.pid)
    assert others.poll() is None
    assert spawn._signal_rest(others.pid, born(others.pid), signal.SIGKILL)
    await gone(others.pid)


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """It carries a mark, and tells the pid of a process that it started in a session of its own."""
    stray = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    source = f"""if True:
        import subprocess, sys, time
        subprocess.Popen([sys.executable, "-S", "-c", {stray!r}], start_new_session=True)
        time.sleep(600)
    """
    command, marked = [sys.executable, "-S", "-c", source], {**os.environ, reaper_module.MARK: f"of-{os.getpid()}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, env=marked) as process:
        yield process
        process.kill()


async def test_what_left_a_workers_group_is_ended_with_it(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdout is not None
    stray = int(worker.stdout.readline())
    reaper = Reaper()
    reaper.add(worker.pid, f"of-{os.getpid()}")
    reaper.close()
    await gone(stray)


async def test_a_killed_reaper_is_no_trouble_for_the_gateway() -> None:
    reaper = Reaper()
    reaper._process.kill()
    await gone(reaper._process.pid)
    for _ in range(3):
        reaper.add(2**22 + 1, "none")
    reaper.close()
    reaper.close()


async def test_half_a_line_at_the_end_is_not_a_group(sleepers: list[subprocess.Popen[bytes]]) -> None:
    command = [sys.executable, "-I", "-S", "-E", reaper_module.__file__]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE)
    await process.communicate(f"+{sleepers[0].pid}\n+".encode())
    assert process.returncode == 0
    await gone(sleepers[0].pid)


def marked(size: int, *, is_first: bool) -> tuple[dict[str, str], str]:
    """An environment of so many KiB with a mark, as a gateway begins it or as a model may write it."""
    mark = f"in-{size}-{os.getpid()}-{is_first}"
    large = {f"V{number}": "x" * 1016 for number in range(size)}
    own = {reaper_module.MARK: mark}
    return ({**own, **large} if is_first else {**large, **own}), mark


@pytest.mark.parametrize(("size", "is_first", "is_found"), [(8, False, True), (1000, True, True), (1000, False, False)])
def test_of_an_environment_the_beginning_is_read_where_the_gateway_writes_its_mark(
    size: int, is_first: bool, is_found: bool
) -> None:
    """A process may say that its environment has gigabytes, and each end of a worker reads those of all processes."""
    environment, mark = marked(size, is_first=is_first)
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        tracemalloc.start()
        found = reaper_module.is_of(process.pid, mark)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        found_longer = reaper_module.is_of(process.pid, mark[:-1])
        process.kill()
    assert found == is_found
    assert most < 4 * reaper_module.BEGINNING
    assert not found_longer


def test_what_is_older_than_the_worker_is_not_read(sleepers: list[subprocess.Popen[bytes]]) -> None:
    environment, mark = marked(1, is_first=True)
    with subprocess.Popen(SLEEP, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()
        begun = int(born(process.pid))
        assert reaper_module.signal_strays(0, mark, since=str(begun)) == [process.pid]
        assert reaper_module.signal_strays(0, mark, since=str(begun + 1)) == []
        process.kill()


def test_what_the_reaper_found_is_ended_whatever_forks_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that forks while the others are searched has a child that was not found."""
    seen = iter([[11, 12], [13], []])
    monkeypatch.setattr(reaper_module, "signal_strays", lambda *_, **__: next(seen))
    monkeypatch.setattr(reaper_module.sys, "stdin", iter([f"+{2**22 + 1} of-nobody\n"]))
    monkeypatch.setattr(reaper_module.signal, "signal", lambda *_: None)
    reaper_module.main()
    assert next(seen, None) is None
