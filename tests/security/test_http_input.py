"""T1 to T7: what HTTP itself can be made to do. Most is in tests/http; here is what takes a grammar or a process."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import select
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Model, Served

ECHO = "class Model:\n    def predict(self, inputs):\n        return inputs\n"

# ── T5: smuggling ────────────────────────────────────────────────────────────────────────────────────────────────────

NAMES = st.sampled_from(["Content-Length", "content-length", "Content-Length ", " Content-Length", "Content_Length"])
LENGTHS = st.sampled_from(["5", "05", "+5", " 5", "5 ", "5,5", "5, 5", "0x5", "6", "4", "0", "", "-1", "5\t", "５"])
CODINGS = st.sampled_from(
    [
        "chunked",
        "Chunked",
        " chunked",
        "chunked ",
        "\tchunked",
        "chunked, chunked",
        "identity",
        "gzip, chunked",
        "x",
        "",
    ]
)
ENDS = st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n "])
HEADERS = st.one_of(
    st.tuples(NAMES, LENGTHS),
    st.tuples(st.sampled_from(["Transfer-Encoding", "transfer-encoding", "Transfer-Encoding "]), CODINGS),
    st.just(("X-Ignore", "X: y")),
)
BODIES = st.sampled_from(
    [
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;x=y\r\nhello\r\n0\r\nContent-Length: 1\r\n\r\n",
        b"0\r\n\r\n",
        b"5\nhello\n0\n\n",
    ]
)
HIDDEN = b"POST /models/m/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\nX: hidden\r\n\r\nHIDDEN!"


def strict(heads: list[tuple[str, str, str]], data: bytes) -> bytes | None:
    """The only body that everybody agrees on; None when two readers could differ."""
    if any(end != "\r\n" or name != name.strip() for name, _, end in heads):
        return None
    lengths = [value.strip(" \t") for name, value, _ in heads if name.lower() == "content-length"]
    codings = [value.strip(" \t").lower() for name, value, _ in heads if name.lower() == "transfer-encoding"]
    if codings:
        if lengths or codings != ["chunked"]:
            return None
        found = re.match(rb"5(?:;[^\r\n]*)?\r\n(hello)\r\n0\r\n(?:[^\r\n]+\r\n)*\r\n|0\r\n\r\n", data)
        return (found[1] or b"") if found else None
    if len(lengths) != 1 or not re.fullmatch("[0-9]+", lengths[0], re.ASCII):
        return None if lengths else b""
    return data[: int(lengths[0])] if int(lengths[0]) <= len(data) else None


@pytest.fixture(scope="module")
def seen() -> list[bytes]:
    return []


@pytest.fixture(scope="module")
def one(seen: list[bytes]) -> Any:
    def predict(body: bytes) -> bytes:
        seen.append(bytes(body))
        return b'"ok"'

    with Served({"m": Model({"predict": predict})}, head_timeout=1.0, body_idle_timeout=1.0, keep_alive=1.0) as served:
        yield served


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.lists(st.tuples(HEADERS, ENDS), min_size=1, max_size=3), BODIES)
def test_of_an_ambiguous_request_the_model_sees_the_one_body_or_nothing(
    one: Served, seen: list[bytes], headers: list[tuple[tuple[str, str], str]], body: bytes
) -> None:
    heads = [(name, value, end) for (name, value), end in headers]
    lines = "".join(f"{name}: {value}{end}" for name, value, end in heads)
    head = f"POST /models/m/predict HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n"
    seen.clear()
    with socket.create_connection(("127.0.0.1", one.port), timeout=60) as sock:
        sock.sendall(head.encode() + body + HIDDEN)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while part := read(sock):
            answer += part
    agreed = strict(heads, body + HIDDEN)
    assert len(seen) <= 1, "a second request was found in the first one's body"
    if seen:
        assert agreed is not None and seen == [agreed], heads
    if agreed is None:
        assert not answer.startswith(b"HTTP/1.1 200"), heads


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize(
    "codings",
    [
        ["gzip", "chunked"],
        ["identity", "chunked"],
        ["gzip, chunked"],
        ["gzip", "identity", "chunked"],
        ["chunked", "identity"],
        ["chunked", "chunked"],
        ["chunked, chunked"],
        ["chunked;q=1"],
        [""],
    ],
)
def test_a_transfer_encoding_is_chunked_once_or_refused(
    one: Served, seen: list[bytes], codings: list[str], version: str
) -> None:
    assert sent_in_chunks(one, seen, codings, version).startswith(b"HTTP/1.1 400") and not seen


def test_http_1_0_has_no_transfer_encoding(one: Served, seen: list[bytes]) -> None:
    assert sent_in_chunks(one, seen, ["chunked"], "1.0").startswith(b"HTTP/1.1 400") and not seen
    assert sent_in_chunks(one, seen, ["Chunked"], "1.1").startswith(b"HTTP/1.1 200") and seen[0] == b"hello"


@pytest.mark.parametrize("version", ["0.9", "2.0"])
def test_a_version_that_frames_bodies_in_another_way_is_refused(one: Served, seen: list[bytes], version: str) -> None:
    answer = sent_in_chunks(one, seen, ["chunked"], version)
    assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1") == 1 and not seen
    head = (
        f"POST /models/m/predict HTTP/{version}\r\nHost: localhost\r\nConnection: keep-alive\r\nContent-Length: 2\r\n"
    )
    assert one.send(head.encode() + b"\r\n{}").startswith(b"HTTP/1.1 400") and not seen


@pytest.mark.parametrize("version", ["0.9", "1.0", "2.0"])
def test_a_websocket_begins_in_http_1_1(one: Served, version: str) -> None:
    head = (
        f"GET /models/m/v1/websocket HTTP/{version}\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    )
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    assert one.send(f"{head}{key}".encode()).startswith(b"HTTP/1.1 400")


def sent_in_chunks(one: Served, seen: list[bytes], codings: list[str], version: str) -> bytes:
    """What is answered to a body in chunks and to the request behind it, which a reader may take for a part of it."""
    lines = "".join(f"Transfer-Encoding: {coding}\r\n" for coding in codings)
    head = f"POST /models/m/predict HTTP/{version}\r\nHost: localhost\r\nConnection: keep-alive\r\n{lines}\r\n"
    seen.clear()
    answer = b""
    with socket.create_connection(("127.0.0.1", one.port), timeout=60) as sock:
        sock.sendall(head.encode() + b"5\r\nhello\r\n0\r\n\r\n" + HIDDEN)
        sock.shutdown(socket.SHUT_WR)
        while part := read(sock):
            answer += part
    return answer


def read(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except ConnectionResetError:  # it closed without having read what was sent on
        return b""


# ── T1, T2: memory ───────────────────────────────────────────────────────────────────────────────────────────────────


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def test_requests_around_every_limit_leave_the_memory_as_it_was(start: Callable[..., Any]) -> None:
    gateway = start({"m": ECHO}, '[models.m]\nmax_body = "64KiB"\n')
    port = int(gateway.url.rpartition(":")[2])

    def sweep() -> set[int]:
        statuses = set()
        for step in (-1, 0, 1):
            statuses.add(send(port, f"GET /{'u' * (8192 - 1 + step)} HTTP/1.1\r\n"))
            statuses.add(send(port, f"GET /livez HTTP/1.1\r\nX: {'h' * (65536 - 60 + step * 100)}\r\n"))
            statuses.add(send(port, "GET /livez HTTP/1.1\r\n" + "X: y\r\n" * (98 + step)))
            statuses.add(send(port, "POST /models/m/predict HTTP/1.1\r\n", f'"{"b" * (65536 - 2 + step)}"'))
        return statuses

    assert sweep() == {200, 404, 413, 414, 431}
    before = resident(gateway.process.pid)
    for _ in range(20):
        sweep()
    assert resident(gateway.process.pid) - before < 16 * 1024**2


def send(port: int, head: str, body: str = "") -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as sock:
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        sock.sendall(f"{head}Host: localhost\r\nConnection: close\r\n{length}\r\n{body}".encode())
        answer = b""
        while part := read(sock):
            answer += part
    return int(answer.split(b" ", 2)[1])


# ── T7: descriptors ──────────────────────────────────────────────────────────────────────────────────────────────────

STREAM = """
import asyncio
class Model:
    async def predict(self, inputs):
        for number in range(10_000):  # longer than all of this takes
            yield b"x"
            await asyncio.sleep(0.02)
"""


def test_a_flood_of_connections_leaves_streams_and_health_alone(tmp_path: Path) -> None:
    (tmp_path / "models/m").mkdir(parents=True)
    (tmp_path / "models/m/model.py").write_text(STREAM)
    command = f"ulimit -n 128; exec {sys.executable} -m gateway serve --port 0"
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(["bash", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        for line in process.stdout:
            if " ready " in line:
                break
        stream = socket.create_connection(("127.0.0.1", port), timeout=60)
        stream.sendall(b"POST /models/m/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}")
        assert stream.recv(65536).startswith(b"HTTP/1.1 200")
        held, refused = [], 0
        for _ in range(200):
            sock = socket.create_connection(("127.0.0.1", port), timeout=60)
            held.append(sock)
        unheard = set(held)
        while refused < 200 - 128 // 4:
            told = select.select(unheard, [], [], 30)[0]
            assert told, f"{refused} were refused, and no more are"
            for sock in told:
                unheard.remove(sock)
                with contextlib.suppress(ConnectionResetError):
                    refused += sock.recv(64).startswith(b"HTTP/1.1 503")
        assert stream.recv(65536), "the stream that was there goes on"
        for sock in held:
            sock.close()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=60) as answer:
            assert json.load(answer)["status"] == "ok"
        assert stream.recv(65536)
        stream.close()  # or the gateway would wait for the end of it
    finally:
        process.terminate()
        process.wait(30)
        log.close()
    assert (tmp_path / "log").stat().st_size < 2 * 1024**2
