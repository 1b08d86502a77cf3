"""What a strict model has started ends with it, found or not: its keeper kills all that is in its domain."""

# ruff: noqa: ASYNC240  (a look at /proc)

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import gateway
from gateway.runners import spawn
from gateway.runners.keeper import Keeper

from .confined import confined
from .started import gone, started, write

pytestmark = pytest.mark.anyio
PATIENCE = 60  # seconds
ROOT = Path(gateway.__file__).parents[1]

# It keeps a pipe open that the test reads: its end shows that nothing is left, whatever the pids are by then.
MODEL = """
    import errno, os, signal, subprocess, sys

    SLEEPS = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; time.sleep(600)"
    # Each process only starts the next one, so that none is there for long.
    RUNS = ("import os, time\\nend = time.monotonic() + 120\\n"
            "while time.monotonic() < end:\\n    if os.fork(): os._exit(0)")

    class Model:
        def leave(self, code):
            pipe = os.open("data/pipe", os.O_WRONLY)
            command = [sys.executable, "-I", "-S", "-c", {"sleeps": SLEEPS, "runs": RUNS}[code]]
            subprocess.Popen(command, start_new_session=True, env={}, pass_fds=[pipe])
            os.close(pipe)
        def predict(self, x): return x
        def signals(self, pid):
            found = []
            for number in (0, signal.SIGSTOP, signal.SIGKILL):
                try: os.kill(pid, number); found.append("sent")
                except OSError as error: found.append(errno.errorcode[error.errno])
            try: os.waitpid(-1, 0)
            except ChildProcessError: found.append("no child")
            return found
    """


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found in /proc, as if each process hid there."""
    monkeypatch.setattr(spawn, "signal_strays", lambda *_, **__: [])


def strict(name: str = "m") -> dict[str, Any]:
    return {"sandbox": "strict", "name": name}


@asynccontextmanager
async def left(root: Path) -> AsyncIterator[asyncio.StreamReader]:
    """A pipe that is at its end when no process of the model holds it any more."""
    (root / "data").mkdir(parents=True)
    os.mkfifo(root / "data/pipe")
    reader = asyncio.StreamReader()
    file = os.fdopen(os.open(root / "data/pipe", os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    try:
        yield reader
    finally:
        transport.close()


async def is_over(pipe: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(PATIENCE):
        return await pipe.read() == b""


def keepers(name: str) -> list[int]:
    """The keepers of a model's workers, which have the command line of the workers' start."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if place.joinpath("comm").read_text() == "gw:keeper\n":
                command = place.joinpath("cmdline").read_bytes()
                found += [int(place.name)] if command.endswith(b"\0%b\0" % name.encode()) else []
        except OSError:
            continue
    return found


@confined
@pytest.mark.usefixtures("blind")
@pytest.mark.parametrize("what", ["sleeps", "runs"])
@pytest.mark.parametrize("end", ["stop", "kill", "crash"])
async def test_all_that_a_strict_model_has_started_ends_with_it(
    tmp_path: Path, what: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[bool] = []

    async def noting(keeper: Keeper, patience: float) -> bool:
        answers.append(await its_end(keeper, patience))
        return answers[-1]

    its_end = Keeper.end
    monkeypatch.setattr(Keeper, "end", noting)
    async with left(tmp_path) as pipe:
        async with started(tmp_path, MODEL, "leave", spec=strict()) as found:
            await found.ask("leave", what)
            if end == "stop":
                await found.replica.stop(10)
            elif found.replica.pid is not None and end == "crash":
                os.kill(found.replica.pid, signal.SIGSEGV)
                await found.replica.lost
            await found.replica.kill("it has ended")
            assert not any("could not be ended" in line for line in found.log.lines)
        assert answers == [True], "the end of the worker waits for it"
        assert await is_over(pipe)


GATEWAY = """
    import asyncio, sys
    from pathlib import Path
    from gateway.runners.replica import Launch
    from gateway.runners.process import ProcessReplica
    from gateway.spec import Limits, ModelSpec
    from tests.runners.started import Started

    async def main():
        root = Path(sys.argv[1])
        found = Started(root, ("leave",), spec={"sandbox": "strict"})
        await found.replica.start()
        await found.ask("leave", sys.argv[2])
        print("left", flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
    """


@confined
@pytest.mark.parametrize("what", ["sleeps", "runs"])
async def test_all_that_it_has_started_ends_with_a_gateway_that_is_killed(tmp_path: Path, what: str) -> None:
    """This one has no reaper, which would search for it."""
    write(tmp_path, {"model/model.py": MODEL})
    async with left(tmp_path) as pipe:
        command = [sys.executable, "-c", textwrap.dedent(GATEWAY), str(tmp_path), what]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"left\n"
        process.kill()
        await process.wait()
        assert await is_over(pipe)


@confined
async def test_a_strict_model_neither_signals_its_keeper_nor_waits_for_it(tmp_path: Path) -> None:
    name = f"kept-{os.getpid()}"
    async with started(tmp_path, MODEL, "signals", spec=strict(name)) as found:
        (keeper,) = keepers(name)
        assert await found.ask("signals", keeper) == ["EPERM", "EPERM", "EPERM", "no child"]
        assert "\nNoNewPrivs:\t1\n" in Path(f"/proc/{keeper}/status").read_text()
        assert Path(f"/proc/{keeper}/oom_score_adj").read_text() == Path("/proc/self/oom_score_adj").read_text()
    async with asyncio.timeout(PATIENCE):
        await gone(keeper)


@confined
async def test_without_its_keeper_a_strict_model_does_not_go_on(tmp_path: Path) -> None:
    name = f"unkept-{os.getpid()}"
    async with left(tmp_path) as pipe:
        async with started(tmp_path, MODEL, "leave", spec=strict(name)) as found:
            await found.ask("leave", "sleeps")
            (keeper,) = keepers(name)
            os.kill(keeper, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE):
                assert "SIGKILL" in await found.replica.lost
            await found.log.find("the process was killed that ends what this model starts")
            await found.replica.kill("it is lost")
        assert await is_over(pipe), "it is searched then"


# A kernel on which the domain restricts no signal, played where nothing can be forked: a keeper would end everything.
UNRESTRICTED = """
import os
from gateway.worker.sandbox import confine, keeper, landlock
def fork(): raise SystemExit("forked")
os.fork, landlock.version, landlock.enclose = fork, lambda: 6, lambda: None
try:
    keeper.begin(os.getppid(), 99)
except confine.Unconfined as error:
    print(error)
"""


def test_where_a_domain_restricts_no_signals_no_keeper_begins() -> None:
    done = subprocess.run([sys.executable, "-c", UNRESTRICTED], capture_output=True, text=True, timeout=60)
    assert done.stdout == "Landlock restricts no signals here\n", done.stderr
