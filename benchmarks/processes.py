"""The processes under test: the real gateway over model directories, the floor, and what they cost."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 120.0  # seconds until a server answers; models of several hundred megabytes load within it


def cpu_seconds(*pids: int) -> float:
    """CPU time of all threads so far, by the scheduler's own clock: exact to the microsecond, unlike `times`."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
                total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_mb(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(path.name))
    found = list(children.get(pid, ()))
    for child in found:
        found += children.get(child, ())
    return found


def workers_of(pid: int) -> list[int]:
    """The worker processes of a gateway."""
    commands = {child: Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0") for child in descendants(pid)}
    return [child for child, command in commands.items() if b"gateway.worker" in command]


def cpu_of_all(pid: int) -> float:
    """CPU time of a process and its descendants, in hundredths of a second; threads that have ended count too."""
    ticks = 0
    for each in (pid, *descendants(pid)):
        with contextlib.suppress(OSError):
            ticks += sum(map(int, Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Server:
    port: int
    pid: int


@contextlib.contextmanager
def gateway(
    models: Mapping[str, str] | Path, settings: str = "", *options: str, env: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """`gateway serve` over a directory of models, or over models given as {"name/file": text}, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        place = Path(name)
        if not isinstance(models, Path):
            for file, text in models.items():
                path = place / "models" / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            models = place / "models"
        with server_over(place, free_port(), settings, *options, models=models, env=env) as found:
            yield found


@contextlib.contextmanager
def server_over(
    place: Path,
    port: int,
    settings: str = "",
    *options: str,
    models: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """`gateway serve` on a port, in a directory that may have its models in models/."""
    (place / "gateway.toml").write_text(settings)
    command = [sys.executable, "-m", "gateway", "serve", "--port", str(port)]
    command += ["--models", str(models or place / "models"), *options]
    with server(command, port, "/readyz", cwd=place, env=env) as found:
        yield found


@contextlib.contextmanager
def floor(app: Literal["echo", "answer", "drip", "hangup"]) -> Iterator[Server]:
    """A bare ASGI app under uvicorn as the gateway configures it."""
    port = free_port()
    with server([sys.executable, "-m", "benchmarks.floor", app, str(port)], port, "/", cwd=ROOT) as found:
        yield found


@contextlib.contextmanager
def server(
    command: Sequence[str],
    port: int,
    ready: str,
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    leaves_others: bool = False,
) -> Iterator[Server]:
    """A server of its own, from the moment that `ready` answers with 200.

    One that `leaves_others` behind when it ends has a process group, which is ended after it.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**environment, **(env or {})},
            stdout=output,
            stderr=output,
            start_new_session=leaves_others,
        )
        try:
            until = time.monotonic() + START_TIMEOUT
            while not _answers(port, ready):
                if process.poll() is not None or time.monotonic() > until:
                    output.seek(0)
                    tail = output.read().decode(errors="replace")[-2000:]
                    raise RuntimeError(f"{' '.join(command)} did not get ready:\n{tail}")
                time.sleep(0.01)
            yield Server(port, process.pid)
        finally:
            end(process)
            if leaves_others:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port
