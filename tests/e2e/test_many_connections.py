"""More connections than there may be, and more than there are files for: those that are served go on being served."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.testing import Gateway

from .faulty import PATIENCE, open_files, wait_for

MODEL = """
import pathlib, time
GO = pathlib.Path("..", "..", "go").resolve()
class Model:
    def predict(self, inputs):
        yield "first "
        while not GO.exists(): time.sleep(0.005)
        yield "last"
"""
Serve = Callable[..., Gateway]
MANY = 1500


@contextlib.contextmanager
def connections(gateway: Gateway, count: int) -> Iterator[list[socket.socket]]:
    """So many idle connections, as far as the gateway takes them."""
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(count):
            with contextlib.suppress(OSError):
                held.append(stack.enter_context(socket.create_connection((host, int(port)), timeout=1)))
        yield held


def is_live(gateway: Gateway) -> bool:
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=2)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def seconds_of(pid: int) -> float:
    """CPU time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.parametrize("runs_out_of", ["connections", "files"])
def test_a_flood_of_idle_connections_leaves_what_runs_alone(serve: Serve, tmp_path: Path, runs_out_of: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2 * MANY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * MANY), hard))
    bound = 100 if runs_out_of == "connections" else 10 * MANY
    (tmp_path / "gateway.toml").write_text(f"[gateway]\nmax_connections = {bound}\n")
    gateway = serve({"m": {"model.py": MODEL}})
    pid = gateway.process.pid
    stream = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=PATIENCE)
    stream.request("POST", "/v1/models/m:predict", json.dumps({}))
    response = stream.getresponse()
    assert response.read(6) == b"first "
    if runs_out_of == "files":
        files = open_files(pid) + 50
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, files))
    with connections(gateway, MANY):
        written, busy = len(gateway.log), seconds_of(pid)
        began = time.monotonic()
        assert not is_live(gateway)
        wait_for(lambda: time.monotonic() > began + 2, "two seconds have passed")
        assert seconds_of(pid) - busy < 1, "it spins"
        assert len(gateway.log) - written < 20_000
        (tmp_path / "go").touch()
        assert response.read() == b"last"
    wait_for(lambda: is_live(gateway), "it is live again")
    stream.close()
