"""TLS connections whose handshake is not done: counted, bounded, ended; over both loops, with real sockets."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from gateway.http import tls_handshakes
from gateway.http.refused_connections import Refused
from gateway.http.server import GatewayServer, make_server
from gateway.http.tls_handshakes import Handshakes
from gateway.settings.schema import GatewaySettings, Settings
from gateway.telemetry.histogram import Histogram

PATIENCE = 30.0  # seconds until what should come at once is given up
LONG = 600.0  # a deadline that no test reaches
GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


class App:
    """Answers every request with its scheme and the address of its client."""

    lag, refused = Histogram((1.0,)), Refused()

    @staticmethod
    def begin(scope: Any, cycle: Any) -> bool:
        return False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = f"{scope['scheme']} {scope['client'][0]}".encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Listener(socket.socket):
    """`shortages` more times there is no file for a connection."""

    shortages = 0

    def accept(self) -> Any:
        if self.shortages:
            self.shortages -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


class Secure:
    """A server for TLS in the loop of the test."""

    def __init__(self, place: Path, **settings: Any) -> None:
        authority = trustme.CA()
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)
        pair = place / "pair.pem"
        pair.touch(0o600)
        authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pair)
        self.server: GatewayServer = make_server(App(), Settings(gateway=GatewaySettings(tls_cert=pair, **settings)))
        self.listener = Listener(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        self.clients: list[asyncio.StreamWriter] = []

    @property
    def handshakes(self) -> Handshakes:
        assert self.server._handshakes is not None
        return self.server._handshakes

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """The server as it serves; everything that the loop has to complain about fails the test."""
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        serving = asyncio.create_task(self.server.serve([self.listener]))
        try:
            await self.server.accepting.wait()
            yield serving
        finally:
            for client in self.clients:
                client.transport.abort()
            self.server.should_exit = True
            await asyncio.wait_for(serving, PATIENCE)
        assert complaints == []

    async def connect(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that sends nothing, or with `ssl` one whose handshake is done."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **options)
        self.clients.append(writer)
        return reader, writer

    async def ask(self, client: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None) -> str:
        """What a client with a real handshake is answered; its connection stays."""
        reader, writer = client or await self.connect(ssl=self.trust, server_hostname="localhost")
        writer.write(GET)
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            return (await reader.readexactly(len(b"https 127.0.0.1"))).decode()

    async def one_is_over(self) -> None:
        tasks = list(self.handshakes.pending.values())
        await asyncio.wait(tasks, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)


async def rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the server closes; a reset is an end too."""
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def run(test: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(test)

    return run


Run = Callable[[Coroutine[Any, Any, None]], None]


def test_of_connections_without_a_handshake_no_more_are_held_than_there_may_be_connections(
    run: Run, tmp_path: Path
) -> None:
    async def test() -> None:
        secure = Secure(tmp_path, max_connections=3, head_timeout=LONG)
        async with secure.running():
            silent = [await secure.connect() for _ in range(20)]
            for reader, _ in silent[3:]:
                assert await rest(reader) == b""
            assert len(secure.handshakes.pending) == 3
            assert not any(reader.at_eof() for reader, _ in silent[:3])
            silent[0][1].close()
            await secure.one_is_over()
            assert await secure.ask() == "https 127.0.0.1"

    run(test())


def test_connections_before_and_behind_their_handshake_count_together_and_each_once(run: Run, tmp_path: Path) -> None:
    async def test() -> None:
        secure = Secure(tmp_path, max_connections=3, head_timeout=LONG)
        async with secure.running():
            for _ in range(2):
                await secure.ask()
            reader, writer = await secure.connect()
            beyond, _ = await secure.connect()
            assert await rest(beyond) == b""
            assert not reader.at_eof()
            writer.close()
            await secure.one_is_over()
            await secure.ask()
            assert len(secure.server.server_state.connections) == 3

    run(test())


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01"], ids=["nothing", "a beginning"])
def test_a_handshake_may_take_as_long_as_a_head(run: Run, tmp_path: Path, sent: bytes) -> None:
    async def test() -> None:
        secure = Secure(tmp_path, max_connections=1, head_timeout=1.0)
        async with secure.running():
            loop = asyncio.get_running_loop()
            begun = loop.time()
            reader, writer = await secure.connect()
            writer.write(sent)
            assert await rest(reader) == b""
            assert loop.time() - begun > 0.9
            while secure.handshakes.pending:
                await secure.one_is_over()
            assert await secure.ask() == "https 127.0.0.1"

    run(test())


def test_clients_that_speak_no_tls_or_leave_cost_nothing_and_no_line_of_the_log(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = App.refused.counts["tls_handshake"]

    async def test() -> None:
        secure = Secure(tmp_path, max_connections=2, head_timeout=LONG)
        async with secure.running():
            for data in (GET, b"\x00" * 70_000, b""):
                reader, writer = await secure.connect()
                writer.write(data)
                writer.write_eof()
                assert b"HTTP" not in await rest(reader)
            for _ in range(20):
                _, writer = await secure.connect()
                writer.transport.abort()
            while secure.handshakes.pending:
                await secure.one_is_over()
            assert await secure.ask() == "https 127.0.0.1"

    run(test())
    assert App.refused.counts["tls_handshake"] >= before + 3
    assert [
        record for record in caplog.records if record.levelno > logging.DEBUG and record.name != "uvicorn.error"
    ] == []


def test_when_there_are_no_files_connections_wait_and_are_served_later(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls_handshakes, "RETRY", 0.02)

    async def test() -> None:
        secure = Secure(tmp_path, max_connections=2, head_timeout=LONG)
        secure.listener.shortages = 2
        async with secure.running():
            assert await secure.ask() == "https 127.0.0.1"

    run(test())
    lines = [record.getMessage() for record in caplog.records if record.name == "gateway.http"]
    assert lines == ["cannot accept connections for 0.02 s: Too many open files"] * 2


def test_a_stop_does_not_wait_for_clients_that_are_silent(run: Run, tmp_path: Path) -> None:
    async def test() -> None:
        secure = Secure(tmp_path, max_connections=8, head_timeout=LONG)
        async with secure.running() as serving:
            silent = [await secure.connect() for _ in range(5)]
            secure.server.should_exit = True
            await asyncio.wait_for(asyncio.shield(serving), PATIENCE)
            for reader, _ in silent:
                assert await rest(reader) == b""
            assert not secure.handshakes.pending

    run(test())


def test_who_has_connected_before_a_stop_may_finish_its_handshake_and_is_answered(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls_handshakes, "GOODBYE", PATIENCE)

    async def test() -> None:
        secure = Secure(tmp_path, max_connections=2, head_timeout=LONG)
        async with secure.running():
            waiting = socket.create_connection(("127.0.0.1", secure.port))  # the loop has not seen it yet
            closing = asyncio.create_task(secure.handshakes.close())
            await asyncio.sleep(0)
            assert secure.listener.fileno() == -1
            reader, writer = await asyncio.open_connection(sock=waiting, ssl=secure.trust, server_hostname="localhost")
            secure.clients.append(writer)
            assert await secure.ask((reader, writer)) == "https 127.0.0.1"
            await asyncio.wait_for(closing, PATIENCE)

    run(test())
