"""Real workers: how they die, in every way, and that nothing of them is left over."""

# ruff: noqa: ASYNC240  (a look at a directory)

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from held_clearing import held

from gateway.errors import Crashed, InvalidOutput, ModelError
from gateway.files import clearing
from gateway.hosting.model import HostedModel
from gateway.hosting.replica_maker import Maker
from gateway.runners.process import ProcessReplica
from gateway.runners.replica import Launch, LoadError
from gateway.spec import Limits, ModelSpec
from gateway.wire.frames import BYTES, Req

from .started import KITCHEN, METHODS, Started, body_of, gone, started, write

pytestmark = pytest.mark.anyio


async def test_a_killed_worker_ends_every_call_on_it_and_says_how_it_died(tmp_path: Path) -> None:
    async with started(tmp_path, KITCHEN, *METHODS, slots=8) as found:
        stream = found.open("die_streaming", stream=True)
        await stream.first()
        assert await stream.take() == ["one"]
        running = [found.open("block"), found.open("wait")]
        await found.log.find("blocked")
        await found.log.find("waiting")
        found.open("die", "SIGKILL")
        for call in running:
            with pytest.raises(Crashed) as caught:
                await call.first()
            assert caught.value.should_retry is False
            assert "`gateway logs m` says how it ended" in caught.value.message
        with pytest.raises(Crashed):
            await stream.take()
        assert await found.replica.lost == "the worker was ended by SIGKILL (out of memory, or killed by hand)"
        said = await found.log.find("ERROR gateway: the worker was ended by SIGKILL (out of memory, or killed by hand)")
        assert said.endswith(", while it ran r, r, r and 1 more")
        assert list(found.replica.calls()) == []
        assert len(found.ended) == 4
        with pytest.raises(ConnectionError):
            found.open("predict")
        found.replica.update({"token": "x"}, None)
        assert await found.replica.scrape() == b""


@pytest.mark.parametrize("load", ["pass", "raise ValueError"])
async def test_no_file_of_a_worker_that_has_ended_waits_for_the_garbage_collector(tmp_path: Path, load: str) -> None:
    source = f"""
        class Model:
            def load(self): {load}
            def predict(self, x): return x
        """
    with contextlib.suppress(LoadError):  # the first also opens what every worker needs
        async with started(tmp_path / "first", source):
            pass
    await asyncio.to_thread(clearing.wait, 30)
    gc.disable()
    try:
        before = open_files()
        with contextlib.suppress(LoadError):
            async with started(tmp_path / "second", source):
                pass
        assert await asyncio.to_thread(clearing.wait, 30)
        await asyncio.sleep(0)  # the loop closes an aborted transport one turn later
        assert open_files() == before
    finally:
        gc.enable()


def open_files() -> Counter[str]:
    """The kinds of files that this process holds open."""
    files = Path("/proc/self/fd")
    kinds: Counter[str] = Counter()
    for name in os.listdir(files):
        with contextlib.suppress(FileNotFoundError):  # the one by which the directory was listed
            kinds[os.readlink(files / name).partition("[")[0]] += 1
    return kinds


async def test_a_worker_that_exits_in_a_stream_breaks_it_off_with_the_status_as_reason(tmp_path: Path) -> None:
    async with started(tmp_path, KITCHEN, *METHODS, slots=4) as found:
        stream = found.open("die_streaming", stream=True)
        await stream.first()
        await stream.take()
        found.open("let_go")
        with pytest.raises(Crashed):
            await stream.take()
        assert await found.replica.lost == (
            "the worker exited with status 7 (code of the model, or of a library, ended its process)"
        )


async def test_a_worker_that_breaks_the_protocol_is_of_no_further_use_and_nobody_else_suffers(tmp_path: Path) -> None:
    source = """
        import gc, os, socket
        class Model:
            def predict(self, x):
                channel = next(o for o in gc.get_objects() if type(o).__name__ == "ThreadChannel")
                os.write(channel.transport.get_extra_info("socket").fileno(), bytes.fromhex(x))
        """
    frames = {
        "oversized": "ffffffff0601000000",
        "unknown kind": "000000003f01000000",
        "not msgpack": "01000000050100000000",
    }

    async def reason_of(name: str, frame: str) -> str:
        async with started(tmp_path / name, source) as found:
            call = found.open("predict", frame)
            with pytest.raises(Crashed):
                await call.first()
            return await found.replica.lost

    reasons = await asyncio.gather(*(reason_of(name, frame) for name, frame in frames.items()))
    assert all(reason.startswith("the worker broke the protocol: ") for reason in reasons), reasons


async def test_a_worker_whose_device_is_lost_reports_the_call_and_asks_to_be_replaced(tmp_path: Path) -> None:
    source = "class Model:\n    def predict(self, x): raise RuntimeError('CUDA error: device-side assert triggered')\n"
    async with started(tmp_path, source) as found:
        with pytest.raises(ModelError):
            await found.ask("predict")
        assert "CUDA error: device-side assert triggered" in await found.replica.lost


async def test_a_killed_worker_is_noticed_though_a_process_that_it_forked_holds_its_channel(tmp_path: Path) -> None:
    """What a data loader with worker processes does."""
    source = """
        import os, time
        class Model:
            def predict(self, x):
                child = os.fork()
                if not child:
                    while True: time.sleep(600)
                return child
        """
    async with started(tmp_path, source) as found:
        child = await found.ask("predict")
        assert found.replica.pid is not None
        os.kill(found.replica.pid, signal.SIGKILL)
        assert "SIGKILL" in await found.replica.lost
        await found.replica.kill("it is lost")
        await gone(child)


async def test_processes_that_a_model_started_end_with_it(tmp_path: Path) -> None:
    source = """
        import subprocess, sys
        class Model:
            def load(self):
                sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
                self.children = [subprocess.Popen(sleep) for _ in range(2)]
            def predict(self, x): return [child.pid for child in self.children]
        """
    async with started(tmp_path, source) as found:
        pids = await found.ask("predict")
        await found.replica.stop(5)
        await asyncio.gather(*(gone(pid) for pid in pids))
        assert await found.replica.lost


async def test_a_stop_lets_the_model_unload_and_leaves_nothing(tmp_path: Path) -> None:
    source = """
        import os, tempfile
        class Model:
            def load(self): self.file = tempfile.NamedTemporaryFile(delete=False)
            def predict(self, x): return os.environ["TMPDIR"]
            async def unload(self): print("unloaded")
        """
    async with started(tmp_path, source) as found:
        tmp = Path(await found.ask("predict"))
        assert list(tmp.iterdir())
        await found.replica.stop(30)
        assert "unloaded" in found.log.lines
        assert await asyncio.to_thread(clearing.wait, 30)
        assert not tmp.exists()
        assert not any("exited with" in line for line in found.log.lines)  # it was told to
        assert (await found.replica.lost).startswith("the worker exited with status 0")
        await found.replica.stop(1)


async def test_an_unload_that_hangs_or_raises_does_not_keep_the_worker(tmp_path: Path) -> None:
    hangs = """
        import time
        class Model:
            def predict(self, x): ...
            def unload(self): print("hangs"); time.sleep(600)
        """
    raises = """
        class Model:
            def predict(self, x): ...
            def unload(self): raise SystemExit("no")
        """

    async def stop(name: str, source: str, grace: float) -> Started:
        async with started(tmp_path / name, source) as found:
            await found.replica.stop(grace)
            return found

    first, second = await asyncio.gather(stop("hangs", hangs, 1.0), stop("raises", raises, 30.0))
    assert "hangs" in first.log.lines
    assert any("SystemExit: no" in line for line in second.log.lines)
    assert (await second.replica.lost).startswith("the worker exited with status 0")


async def test_a_stop_waits_for_a_call_that_runs(tmp_path: Path) -> None:
    source = """
        import asyncio
        class Model:
            async def predict(self, x):
                print("running")
                await asyncio.sleep(0.2)
                return "done"
        """
    async with started(tmp_path, source) as found:
        call = found.open("predict")
        await found.log.find("running")
        stopping = asyncio.create_task(found.replica.stop(30))
        assert body_of(call, await call.first()) == "done"
        await stopping


async def test_the_end_of_the_gateway_is_the_end_of_its_workers_and_of_their_children(tmp_path: Path) -> None:
    source = """
        import subprocess, sys
        class Model:
            def load(self):
                self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
                print("child", self.child.pid)
            def predict(self, x): ...
        """
    write(tmp_path, {"model/model.py": source})
    gateway = """
        import asyncio, sys
        from pathlib import Path
        from gateway.runners.replica import Launch
        from gateway.runners.process import ProcessReplica
        from gateway.system.reaper import Reaper
        from gateway.spec import ModelSpec

        async def main():
            reaper = Reaper()
            spec = ModelSpec(name="m", target="model.model:Model", root=Path(sys.argv[1]), own_code=True)
            lines = lambda line: print(line, flush=True)
            launch = Launch(spec=spec, index=0, on_log=lines, guard=reaper.add, unguard=reaper.remove)
            replica = ProcessReplica(launch)
            await replica.start()
            print("worker", replica.pid, flush=True)
            await asyncio.sleep(600)

        asyncio.run(main())
        """
    command = [sys.executable, "-c", textwrap.dedent(gateway), str(tmp_path)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    pids: dict[str, int] = {}
    while len(pids) < 2:
        name, _, pid = (await process.stdout.readline()).decode().strip().rpartition(" ")
        if name in ("child", "worker"):
            pids[name] = int(pid)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    await asyncio.gather(*(gone(pid) for pid in pids.values()))


async def test_a_worker_without_a_gateway_does_not_start(tmp_path: Path) -> None:
    environment = {**os.environ, "GW_PARENT_PID": "1", "GW_FD": "0"}
    if os.getpid() == 1:
        pytest.skip("the tests are the first process")
    command = [sys.executable, "-m", "gateway.worker"]
    process = await asyncio.to_thread(subprocess.run, command, env=environment, cwd=tmp_path, capture_output=True)
    assert process.returncode == 1


# ── a model as the gateway hosts it ──────────────────────────────────────────────────────────────────────────────────


async def test_a_crashed_model_is_ready_again_and_serves(tmp_path: Path) -> None:
    write(tmp_path, {"model/model.py": KITCHEN})
    spec = ModelSpec(
        name="m", target="model.model:Model", root=tmp_path, own_code=True, limits=Limits(slots=2), secrets=()
    )
    states: list[str] = []
    changed = asyncio.Event()

    def note(event: Any) -> None:
        states.append(event["state"])
        changed.set()

    def launch(spec: ModelSpec, index: int) -> Launch:
        return Launch(spec=spec, index=index, endpoint_methods=METHODS, on_log=lambda line: None)

    model = HostedModel(spec, Maker(ProcessReplica, launch), note)
    model.start()
    assert await model.settled() == "ready"
    with model.call(Req("die", 1, False, "", "r"), b"\xa4exit") as call, pytest.raises(Crashed):
        await call.first()
    while model.state != "ready" or len(states) < 4:
        changed.clear()
        await changed.wait()
    assert states == ["loading", "ready", "restarting", "ready"]
    assert model.reason == ""
    with model.call(Req("predict", BYTES, False, "", "r"), b"[1]") as call:
        assert (await call.first()).final
    assert call.reply == b"[1]"
    assert model.limiter.in_flight == 0
    await model.stop(10)
    assert model.state == "unloaded"


async def test_a_method_that_ends_without_a_word_cannot_hang_its_client(tmp_path: Path) -> None:
    source = """
        from starlette.responses import StreamingResponse
        class Silent(StreamingResponse):
            async def __call__(self, scope, receive, send): pass
        class Model:
            def predict(self, x): return Silent([])
        """
    async with started(tmp_path, source) as found:
        with pytest.raises(InvalidOutput):
            await found.ask("predict")


async def test_the_end_of_a_worker_waits_for_none_of_its_temporary_files(tmp_path: Path) -> None:
    source = """
        import os, tempfile

        class Model:
            def predict(self, count):
                place = tempfile.gettempdir()
                for number in range(count): os.mkdir(f"{place}/{number}")
                return place
        """
    with held():
        async with started(tmp_path, source) as found:
            place = Path(await found.ask("predict", 3))
        assert place.is_dir()
    assert await asyncio.to_thread(clearing.wait, 30)
    assert not place.exists()
