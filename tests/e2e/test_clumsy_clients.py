"""Clients that speak HTTP oddly, against the real server, over raw sockets."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.testing import Gateway

from .conftest import write_models

ECHO = "class Model:\n    def predict(self, x):\n        return x\n"
SLOW = """
import asyncio, pathlib
class Model:
    async def predict(self, x):
        pathlib.Path("began-" + x).touch()
        try:
            await asyncio.Event().wait() if x != "short" else await asyncio.sleep(0.2)
        finally:
            pathlib.Path("ended-" + x).touch()
        return x
"""
FLOOD = """
import pathlib
class Model:
    def predict(self, x):
        try:
            while True:
                yield b"x" * 100_000
        finally:
            pathlib.Path("ended").touch()
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clumsy")


@pytest.fixture(scope="module")
def gateway(root: Path) -> Iterator[Gateway]:
    many = "runtime: {predict_concurrency: 8}\n"
    write_models(
        root / "models",
        {"echo": {"model.py": ECHO}, "slow": {"model.py": SLOW, "config.yaml": many}, "flood": {"model.py": FLOOD}},
    )
    with Gateway(root / "models") as running:
        yield running


@pytest.fixture
def client(gateway: Gateway) -> Iterator[socket.socket]:
    host, _, port = gateway.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        yield connection


def predict(model: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST /models/{model}/predict HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def until_closed(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


def appears(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.01)  # another process makes it


H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAA")


def test_a_wish_for_http2_is_ignored_and_its_body_is_the_body(client: socket.socket) -> None:
    client.sendall(predict("echo", b'{"a": 1}', *H2C))
    assert client.recv(65536).endswith(b'{"a": 1}')
    client.sendall(predict("echo", b"2", "Connection: close"))
    assert until_closed(client).endswith(b"2")


def test_a_body_behind_an_upgrade_is_never_run_as_a_request(client: socket.socket) -> None:
    body = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = predict("echo", body, *H2C, "Connection: close")[: -len(body)]
    client.sendall(head)
    client.sendall(body)
    answer = until_closed(client)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400")  # the model gets the body, which is no JSON


def test_garbage_behind_a_request_is_refused_behind_its_answer(client: socket.socket, root: Path) -> None:
    client.sendall(predict("slow", b'"short"') + b"GARBAGE\r\n\r\n")
    answer, refusal = until_closed(client).split(b"HTTP/1.1 400 ")
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b'"short"')
    assert b"x-request-id: " in refusal and json.loads(refusal.partition(b"\r\n\r\n")[2])["error"]["code"]


def test_a_client_that_pipelines_and_leaves_is_gone_for_its_running_request(
    client: socket.socket, root: Path, gateway: Gateway
) -> None:
    client.sendall(predict("slow", b'"piped"') + b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    appears(root / "models/slow/began-piped")
    client.close()
    appears(root / "models/slow/ended-piped")
    assert "Traceback" not in gateway.log


def test_a_body_over_the_limit_gets_its_413_though_the_client_sends_on(client: socket.socket) -> None:
    size = 33 * 1024 * 1024
    client.sendall(f"POST /models/echo/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode())
    block = b"x" * 65536
    for _ in range(size // len(block)):
        client.sendall(block)
    assert until_closed(client).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 400) for host in ("[::1]evil.com", "localhost:evil.com", "[")),
        *((host, 421) for host in ("evil.com", "127.0.0.1.evil.com")),
    ],
)
def test_only_a_loopback_name_and_a_port_are_a_host_here(client: socket.socket, host: str, status: int) -> None:
    client.sendall(f"GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert until_closed(client).startswith(b"HTTP/1.1 %d" % status)


def test_a_transfer_coding_that_nobody_decodes_is_refused(client: socket.socket) -> None:
    client.sendall(b"POST /models/echo/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")
    client.sendall(b"1\r\n1\r\n0\r\n\r\n")
    assert until_closed(client).startswith(b"HTTP/1.1 400")


def test_a_reader_that_never_reads_is_cut_off_and_its_model_freed(
    serve: Callable[..., Gateway], tmp_path: Path
) -> None:
    (tmp_path / "gateway.toml").write_text("[gateway]\nsend_timeout = 1\n")
    running = serve({"flood": {"model.py": FLOOD}})
    host, _, port = running.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(predict("flood", b"1"))
        appears(tmp_path / "models/flood/ended")
