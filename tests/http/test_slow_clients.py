"""Who takes nothing of an answer is cut off, who takes it slowly gets all of it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from fakes import VirtualLoop
from served import PATIENCE, Model, Served, certificate, unchecked
from websockets.frames import Frame, Opcode

from gateway.access import keys
from gateway.http.request_cycle import COPIED
from gateway.http.slow_clients import ACKNOWLEDGED, SOME, Stall

SPAN = 30.0
PREDICT = b"POST /models/m/predict HTTP/1.1\r\nHost: localhost\r\ncontent-length: 2\r\n%b\r\n{}"


class Transport(asyncio.Transport):
    def __init__(self, **extra: Any) -> None:
        super().__init__(extra)
        self.waits, self.aborted = 10 * SOME, False

    def get_write_buffer_size(self) -> int:
        return self.waits

    def abort(self) -> None:
        self.aborted = True


async def after(spans: int, takes: int) -> Transport:
    """What has become of a connection whose client takes so much in each span."""
    transport = Transport()
    stall = Stall(transport, asyncio.get_running_loop(), SPAN)
    await asyncio.sleep(0.5 * SPAN)
    for _ in range(spans):
        transport.waits -= takes
        await asyncio.sleep(SPAN)
    stall.cancel()
    return transport


@pytest.mark.parametrize("takes", [0, 1, SOME - 1])
def test_who_takes_less_than_some_of_it_is_cut_off(takes: int) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(after(1, takes)).aborted


def test_who_takes_some_of_it_in_each_span_is_not() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert not runner.run(after(9, SOME)).aborted


class Socket:
    """The kernel's side of a connection: how much the client has acknowledged."""

    acknowledged = 1 << 40

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return ACKNOWLEDGED.pack(self.acknowledged)[:size]


async def encrypted(spans: int, takes: int) -> Transport:
    """What has become of a connection of which all that waits is below its TLS, where the transport does not see it."""
    sock = Socket()
    transport = Transport(sslcontext=unchecked(), socket=sock)
    transport.waits = 0
    stall = Stall(transport, asyncio.get_running_loop(), SPAN)
    await asyncio.sleep(SPAN / 2)
    for _ in range(spans):
        sock.acknowledged += takes
        await asyncio.sleep(SPAN)
    stall.cancel()
    return transport


def test_what_waits_below_tls_may_be_taken_as_slowly_and_no_slower() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert not runner.run(encrypted(99, SOME)).aborted
        assert runner.run(encrypted(1, SOME - 1)).aborted


ANSWER = b"x" * 20_000  # less than a transport takes before it says that it is full


def connected(served: Served, clients: contextlib.ExitStack, encrypted: bool) -> tuple[socket.socket, Any]:
    """A client for which the kernel holds little, and the server's side of its connection."""
    there = served.server.server_state.connections
    before = set(there)
    plain = clients.enter_context(socket.socket())
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(PATIENCE)
    plain.connect(("127.0.0.1", served.port))
    client = clients.enter_context(unchecked().wrap_socket(plain)) if encrypted else plain
    served.wait_until(lambda: bool(there - before))
    [connection] = there - before
    return client, connection


def fill(served: Served, client: socket.socket, connection: Any) -> None:
    """Ask, and read nothing, until something waits here for the client; so little that nothing is held up by it."""
    while not served.do(connection.transport.get_write_buffer_size):
        client.sendall(PREDICT % b"")
        assert served.models["m"].stopped.acquire(timeout=PATIENCE)
    assert not served.do(lambda: connection.flow.write_paused)


LAST = (  # what each of the clients sends, and takes no answer to
    PREDICT % b"connection: close\r\n",
    b"nonsense\r\n\r\n",
    b"GET / HT",
    b"",
    None,  # the end
)


@pytest.mark.parametrize("encrypted", [False, True])
def test_who_takes_nothing_of_a_small_answer_is_cut_off_once_the_connection_is_to_end(
    serve: Callable[..., Served], tmp_path: Path, encrypted: bool
) -> None:
    """A transport that is closed goes on until all of it is taken, which may be never."""
    settings: dict[str, Any] = {"send_timeout": 0.2, "keep_alive": 1, "head_timeout": 0.5}
    if encrypted:
        settings |= certificate(tmp_path)
    served = serve({"m": Model({"predict": lambda body: ANSWER})}, **settings)
    with contextlib.ExitStack() as clients:
        for last in LAST:
            client, connection = connected(served, clients, encrypted)
            fill(served, client, connection)
            if last is not None:
                client.sendall(last)
                continue
            if isinstance(client, ssl.SSLSocket):
                with contextlib.suppress(OSError):
                    client.unwrap()
            client.shutdown(socket.SHUT_WR)
        served.wait_until(lambda: not served.server.server_state.connections)


UPGRADE = (
    b"GET /models/m/v1/websocket HTTP/1.1\r\nHost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def test_who_takes_nothing_of_a_websocket_is_cut_off_once_it_has_closed_it(serve: Callable[..., Served]) -> None:
    filled = threading.Event()

    async def messages(inputs: Any) -> AsyncIterator[tuple[str, bytes]]:
        [connection] = served.server.server_state.connections
        while not connection.transport.get_write_buffer_size():
            yield "send", ANSWER
            await asyncio.sleep(0.001)  # nobody tells when a message has been written
        assert connection.writable.is_set(), "so little that nothing is held up by it"
        filled.set()
        await asyncio.Event().wait()

    served = serve({"m": Model({"websocket": messages})}, send_timeout=0.2)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", served.port))
        client.sendall(UPGRADE)
        assert filled.wait(PATIENCE)
        client.sendall(Frame(Opcode.CLOSE, b"").serialize(mask=True))
        served.wait_until(lambda: not served.server.server_state.connections)


SHUTDOWN = 0.05  # seconds; what a loop gives a TLS connection to end, in place of its 30
LARGE = b"x" * (8 << 20)  # more than the kernel holds for a connection
HELD = 1 << 15  # bytes that the kernel holds for a client, and for the server where a test says so: less than a piece


def secure(tmp_path: Path, loop: asyncio.AbstractEventLoop, **settings: Any) -> Served:
    served = Served({"m": Model({"predict": lambda body: LARGE})}, **certificate(tmp_path), **settings)
    served.loop = loop
    accept = loop.connect_accepted_socket
    hurried = lambda *args, **named: accept(*args, **{"ssl_shutdown_timeout": SHUTDOWN, **named})  # noqa: E731
    loop.connect_accepted_socket = hurried  # type: ignore[method-assign]
    return served


def ask(served: Served, request: bytes) -> ssl.SSLSocket:
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HELD)
    plain.settimeout(PATIENCE)
    plain.connect(("127.0.0.1", served.port))
    client = unchecked().wrap_socket(plain)
    client.sendall(request)
    return client


def take_all(client: ssl.SSLSocket) -> bytes:
    return b"".join(iter(lambda: client.recv(1 << 20), b""))


def take_until_written(served: Served, client: ssl.SSLSocket) -> bytes:
    """Take as much as it needs for the last piece of the answer to be written, and to wait."""
    served.wait_until(lambda: len(served.server.server_state.connections) == 1)
    [connection] = served.server.server_state.connections
    served.wait_until(lambda: connection.cycle is not None)
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HELD)
    taken = b""
    while not served.do(lambda: connection.cycle.response_complete):
        taken += client.recv(1 << 14)
    return taken


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_who_takes_the_last_answer_slowly_over_tls_gets_all_of_it(
    tmp_path: Path, version: bytes, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with (
        secure(tmp_path, new_loop()) as served,
        contextlib.closing(ask(served, PREDICT.replace(b"1.1", version) % b"connection: close\r\n")) as client,
    ):
        taken = take_until_written(served, client)
        served.wait_until(lambda: is_closing(served))
        served.do(asyncio.sleep(2 * SHUTDOWN))  # the loop's own timer, were there one, comes before this one
        assert (taken + take_all(client)).endswith(b"\r\n\r\n" + LARGE)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_an_idle_connection_over_tls_ends_behind_its_answer(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with secure(tmp_path, new_loop(), keep_alive=1) as served, contextlib.closing(ask(served, PREDICT % b"")) as client:
        taken = take_until_written(served, client)
        served.wait_until(lambda: is_closing(served))
        served.do(asyncio.sleep(2 * SHUTDOWN))
        assert (taken + take_all(client)).endswith(b"\r\n\r\n" + LARGE)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_connection_over_tls_says_that_it_is_full_until_its_large_answer_is_taken(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with secure(tmp_path, new_loop()) as served, contextlib.closing(ask(served, PREDICT % b"")) as client:
        served.wait_until(lambda: len(served.server.server_state.connections) == 1)
        [connection] = served.server.server_state.connections
        served.wait_until(lambda: connection.flow.write_paused)
        taken = b""
        while not taken.endswith(b"\r\n\r\n" + LARGE):
            taken += client.recv(1 << 20)
        served.wait_until(lambda: not connection.flow.write_paused)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_who_has_taken_all_and_never_says_goodbye_is_let_go(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """TLS ends when both sides have said so."""
    with (
        secure(tmp_path, new_loop(), send_timeout=0.2) as served,
        contextlib.closing(ask(served, PREDICT % b"connection: close\r\n")) as client,
    ):
        assert take_all(client).endswith(LARGE)
        served.wait_until(lambda: not served.server.server_state.connections)


def test_an_answer_of_which_only_the_end_is_not_taken_counts_for_its_key_too(
    serve: Callable[..., Served], tmp_path: Path
) -> None:
    """All of it was written, so its request has ended; the rest of it waits here for its client."""
    key, text = keys.create("ada", max_inflight=1)
    keys.write(tmp_path / "keys.toml", [key])
    answer = b"x" * COPIED  # the most that is written at once
    served = serve({"m": Model({"predict": lambda body: answer})}, keys_file=tmp_path / "keys.toml")
    permits = served.keys.find(text.encode(), datetime.datetime.now(datetime.UTC))
    assert permits is not None
    with contextlib.ExitStack() as clients:
        client, connection = connected(served, clients, encrypted=False)
        sock = connection.transport.get_extra_info("socket")
        served.do(lambda: sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, HELD))
        client.sendall(PREDICT % f"x-api-key: {text}\r\n".encode())
        served.wait_until(lambda: connection.cycle is not None and connection.cycle.response_complete)
        assert served.do(lambda: connection.flow.write_paused)
        assert served.post("/models/m/predict", x_api_key=text).status == 429
        taken = b""
        while not taken.endswith(b"\r\n\r\n" + answer):
            taken += client.recv(1 << 20)
        served.wait_until(lambda: permits.running == 0)
    assert served.post("/models/m/predict", x_api_key=text).status == 200


def is_closing(served: Served) -> bool:
    connections = served.server.server_state.connections
    return bool(connections) and all(connection.transport.is_closing() for connection in connections)
