"""What a worker gives up before its model's code begins, asked of real workers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.replica import LoadError

from .started import Started, started, write

pytestmark = pytest.mark.anyio

CURIOUS = """
    import ctypes, os, pathlib, resource, socket, subprocess, tempfile

    class Model:
        def predict(self, x): return x
        async def look(self, x):
            status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
            return {"mask": os.umask(0o077), "core": resource.getrlimit(resource.RLIMIT_CORE),
                    "no_new_privs": status["NoNewPrivs"].strip(), "capabilities": status["CapEff"].strip(),
                    "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), "session": os.getsid(0) == os.getpid(),
                    "oom": open("/proc/self/oom_score_adj").read().strip(), "pid": os.getpid(),
                    "tmp": tempfile.gettempdir(), "tmp_mode": oct(os.stat(tempfile.gettempdir()).st_mode & 0o777),
                    "parent_dies": self.death_signal()}
        def death_signal(self):
            number = ctypes.c_int()
            ctypes.CDLL(None).prctl(2, ctypes.byref(number))
            return number.value
        def write(self, path):
            pathlib.Path(path).write_text("x")
            return "written"
        def shell(self, line): return subprocess.run(line, shell=True).returncode
        def temporary(self, x):
            with tempfile.NamedTemporaryFile("w") as file: file.write("x")
            return "written"
        def connect(self, address):
            with socket.create_connection(address, timeout=5): return "connected"
        def itself(self, x):
            with socket.create_server(("127.0.0.1", 0)) as server:
                socket.create_connection(server.getsockname(), timeout=5).close()
            return "connected"
        def read(self, path): return pathlib.Path(path).read_text()
        def allocate(self, size): return len(bytearray(size))
    """
METHODS = ("look", "write", "shell", "temporary", "connect", "itself", "read", "allocate")


async def refused(found: Started, method: str, value: Any, error: str) -> None:
    with pytest.raises(GatewayError):
        await found.ask(method, value)
    await found.log.find(error)


async def test_every_worker_is_kept_from_accidents(tmp_path: Path) -> None:
    async with started(tmp_path, CURIOUS, *METHODS) as found:
        seen = await found.ask("look")
        assert seen["mask"] == 0o077
        assert seen["core"] == [0, 0]
        assert seen["no_new_privs"] == "1"
        assert seen["dumpable"] == 0
        assert seen["session"]
        assert seen["oom"] == "500"
        assert seen["tmp_mode"] == "0o700"
        assert seen["parent_dies"] == 9


async def test_a_strict_worker_writes_to_its_data_and_its_temporary_files_only(tmp_path: Path) -> None:
    (tmp_path / "m/data").mkdir(parents=True)
    outside = tmp_path / "outside"
    async with started(tmp_path / "m", CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found:
        assert await found.ask("temporary") == "written"
        assert await found.ask("write", "data/kept") == "written"
        assert await found.ask("write", "/dev/null") == "written"
        assert await found.ask("read", "model/model.py")
        await refused(found, "write", str(outside), "Permission denied")
        await refused(found, "write", "model/model.py", "model/model.py")
        assert await found.ask("shell", f"echo x > {outside}") != 0, "what it starts is bound by the same rules"
        assert await found.ask("shell", f"rm {tmp_path}/m/model/model.py") != 0
    assert not outside.exists()
    assert (tmp_path / "m/model/model.py").read_text() != "x"
    assert (tmp_path / "m/data/kept").read_text() == "x"


@pytest.mark.parametrize("data_dir", ["/", "..", ".", "link"])
async def test_a_model_cannot_widen_its_sandbox_by_the_name_of_its_data(tmp_path: Path, data_dir: str) -> None:
    root = tmp_path / "m"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    spec = {"sandbox": "strict", "data_dir": root / data_dir, "allow_links": True}
    async with started(root, CURIOUS, *METHODS, spec=spec) as found:
        await refused(found, "write", str(tmp_path / "outside"), "Permission denied")
        await refused(found, "write", str(root / "inside"), "Permission denied")


async def test_a_strict_worker_reaches_no_network_but_itself(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        async with started(tmp_path, CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found:
            await refused(found, "connect", address, "ConnectionRefusedError")
            assert await found.ask("itself") == "connected"
            assert await found.ask("shell", "nsenter --net=/proc/1/ns/net true") != 0
    async with started(tmp_path / "free", CURIOUS, *METHODS) as found:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            assert await found.ask("connect", listener.getsockname()) == "connected"


async def test_a_strict_worker_has_no_capabilities_and_still_dies_with_its_parent(tmp_path: Path) -> None:
    async with started(tmp_path, CURIOUS, *METHODS, spec={"sandbox": "strict"}) as found:
        seen = await found.ask("look")
        assert int(seen["capabilities"], 16) == 0
        assert seen["parent_dies"] == 9
        assert seen["dumpable"] == 0


async def test_a_model_over_its_memory_limit_fails_that_call_and_its_worker_goes_on(tmp_path: Path) -> None:
    async with started(tmp_path, CURIOUS, *METHODS, spec={"memory_limit": 512 * 1024**2}) as found:
        before = resident(os.getpid())
        with pytest.raises(GatewayError) as caught:
            await found.ask("allocate", 1024**3)
        assert caught.value.status >= 500
        await found.log.find("MemoryError")
        assert await found.ask("allocate", 1024**2) == 1024**2
        assert resident(os.getpid()) - before < 16 * 1024**2


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


# What a machine may lack, played by a process that does what a worker does first.
POOR = """
import sys
from pathlib import Path
from gateway.worker import sandbox
{change}
try:
    sandbox.confine([Path(".")])
except sandbox.Unconfined as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("sandbox.landlock_version = lambda: 0", "Landlock of version 3, as Linux 6.2 has it, and has none"),
        ("sandbox.landlock_version = lambda: 1", "has version 1"),
        ("def fail(*a): raise PermissionError(1, 'no')\nsandbox._leave_network = fail", "no network namespace here"),
        ("def fail(*a): raise PermissionError(1, 'no')\nsandbox._lay_down_capabilities = fail", "capabilities"),
        ("def fail(*a): raise OSError(7, 'no')\nsandbox._write_only_below = fail", "refused its rules"),
        ("sys.platform = 'darwin'", "it needs Linux"),
    ],
)
def test_a_machine_that_cannot_confine_says_what_it_lacks(change: str, reason: str) -> None:
    code = POOR.format(change=change)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert reason in done.stdout, done.stderr


async def test_without_the_sandbox_that_was_asked_for_the_model_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker comes up with a kernel that has no Landlock: sitecustomize plays it."""
    poor = "import gateway.worker.sandbox as s\ns.landlock_version = lambda: 0\n"
    write(tmp_path / "site", {"sitecustomize.py": poor})
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    root = write(
        tmp_path / "m", {"model/model.py": "open('ran', 'w')\nclass Model:\n    def predict(self, x): return x"}
    )
    found = Started(root, spec={"sandbox": "strict"})
    with pytest.raises(LoadError, match='sandbox = "strict" cannot be had: the kernel needs Landlock') as caught:
        await found.replica.start()
    assert caught.value.fatal
    assert not (root / "ran").exists()


def test_the_settings_reach_the_spec(tmp_path: Path) -> None:
    from gateway.discovery import discover
    from gateway.plugins import Plugins
    from gateway.settings import load_settings

    write(tmp_path, {"models/a/model.py": "class Model: ...", "models/b/model.py": "class Model: ..."})
    (tmp_path / "gateway.toml").write_text(
        '[gateway.worker]\nsandbox = "strict"\n[models.b]\nsandbox = "basic"\nmemory_limit = "1GiB"\n'
    )
    settings = load_settings(tmp_path / "gateway.toml", environ={})
    found = {spec.name: spec for spec in discover([tmp_path / "models"], Plugins.load(), settings).specs}
    assert (found["a"].sandbox, found["a"].memory_limit) == ("strict", None)
    assert (found["b"].sandbox, found["b"].memory_limit) == ("basic", 1024**3)
