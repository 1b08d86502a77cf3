"""What the gateway prints never ends it, whoever reads it or does not."""

from __future__ import annotations

import http.client
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .conftest import write_models

LATE = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\n"
ECHO = "class Model:\n    def predict(self, inputs):\n        return inputs\n"
PORT = re.compile(r"Serving on http://127\.0\.0\.1:(\d+)\r?\n")


@contextmanager
def started(directory: Path, stdout: int, stderr: int) -> Iterator[subprocess.Popen[bytes]]:
    """One that has a model which is ready when `go` is there, and a model directory that nobody can read."""
    write_models(directory / "models", {"late": {"model.py": LATE + ECHO}, "odd": {"config.yaml": "a: ["}})
    command = [sys.executable, "-m", "gateway", "serve", "--port", "0"]
    env = {**os.environ, "TERM": "xterm", "GATEWAY_ADMIN_SOCKET": str(directory / "admin.sock")}
    process = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=directory, env=env)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def serves(port: int, directory: Path, process: subprocess.Popen[bytes]) -> bool:
    """Whether its model becomes ready and answers, and a signal ends it with status 0."""
    (directory / "models" / "late" / "go").touch()
    deadline = time.monotonic() + 60
    answered = False
    while time.monotonic() < deadline and process.poll() is None and not answered:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with suppress(OSError):
            connection.request("POST", "/models/late/predict", b"1")
            answered = connection.getresponse().status == 200
        connection.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.5)  # for what it prints once all models are ready may end it
    process.send_signal(signal.SIGTERM)
    return answered and process.wait(30) == 0


def test_a_gateway_whose_reader_leaves_after_the_first_line_serves_on(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with started(tmp_path, writer, writer) as process:
        os.close(writer)
        seen = b""
        while (found := PORT.search(seen.decode())) is None:
            seen += os.read(reader, 1)
        os.close(reader)
        assert serves(int(found[1]), tmp_path, process)


def test_a_full_disk_holds_up_nothing(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with started(tmp_path, full, full) as process:
        os.close(full)
        assert serves(_port_of(process.pid), tmp_path, process)


def test_a_gateway_whose_terminal_is_closed_while_models_load_serves_on(tmp_path: Path) -> None:
    terminal, theirs = pty.openpty()
    with started(tmp_path, theirs, theirs) as process:
        os.close(theirs)
        seen = ""
        while (found := PORT.search(seen)) is None or "loading" not in seen:
            seen += os.read(terminal, 65536).decode()
        os.close(terminal)
        assert serves(int(found[1]), tmp_path, process)


def test_a_reader_that_reads_nothing_holds_up_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 65536)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    with started(tmp_path, writer, subprocess.DEVNULL) as process:
        assert serves(_port_of(process.pid), tmp_path, process)
    os.close(reader)
    os.close(writer)


def _port_of(pid: int) -> int:
    """The port on which a process listens, once it does."""
    for _ in range(3000):
        inodes = set()
        with suppress(OSError):
            inodes = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                return int(fields[1].partition(":")[2], 16)
        threading.Event().wait(0.02)
    raise TimeoutError("it does not listen")
