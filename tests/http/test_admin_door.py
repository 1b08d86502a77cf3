"""Who connects to the admin socket, looked at before there is a connection; with real sockets, and operators played."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.http import operators
from gateway.http.operators import LAST, Operators
from gateway.http.refused_connections import Refused
from gateway.settings.bind import bind_admin

pytestmark = pytest.mark.anyio
PATIENCE = 30.0  # seconds until what should come at once is given up


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"use_uvloop": True}


class Greeting(asyncio.Protocol):
    """What an operator gets."""

    def connection_made(self, transport: Any) -> None:
        transport.write(b"hello")
        transport.close()


class Connection(socket.socket):
    closed: list[threading.Thread]

    def close(self) -> None:
        self.closed.append(threading.current_thread())
        super().close()


class Listener(socket.socket):
    """Notes on which thread each of its connections is closed."""

    def __init__(self, bound: socket.socket, closed: list[threading.Thread]) -> None:
        super().__init__(fileno=bound.detach())
        self._noted = closed

    def accept(self) -> Any:
        connection, address = super().accept()
        found = Connection(fileno=connection.detach())
        found.closed = self._noted
        return found, address


class Door:
    """An admin socket, behind which `is_operator` says who is one."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = place / "admin" / "sock"
        self.closed: list[threading.Thread] = []
        self.listener = Listener(bind_admin(self.path), self.closed)
        self.is_operator, self.refused, self.connections = False, Refused(), 0
        self.looked_at: list[threading.Thread] = []
        monkeypatch.setattr(operators, "may_operate", self._may_operate)

    def _may_operate(self, fd: int) -> bool:
        self.looked_at.append(threading.current_thread())
        return self.is_operator

    def protocol(self) -> asyncio.Protocol:
        self.connections += 1
        return Greeting()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.path))

    async def ask(self) -> bytes:
        """All that comes for who says nothing."""
        reader, writer = await self.connect()
        try:
            async with asyncio.timeout(PATIENCE):
                return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def opened(place: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    door = Door(place, monkeypatch)
    accepting = Operators(door.listener, door.protocol, door.refused)
    try:
        yield door
    finally:
        await accepting.close()


async def test_who_is_refused_never_becomes_a_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path, monkeypatch) as door:
        for _ in range(3 * LAST):
            assert (await door.ask()).startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert (door.connections, door.refused.counts["not_operator"]) == (0, 3 * LAST)
        door.is_operator = True
        assert await door.ask() == b"hello"
        assert door.connections == 1


async def test_of_those_that_are_refused_few_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So long that who is still sending learns why, and no longer, whatever they do."""
    async with opened(tmp_path, monkeypatch) as door:
        first_reader, first = await door.connect()
        first.write(b"POST /admin/models/m/unload HTTP/1.1\r\n")
        assert b"403" in await first_reader.readline()
        first.write(b"Host: x\r\nContent-Length: 0\r\n\r\n")
        await first.drain()
        assert b"permission_denied" in await first_reader.read()
        held = [await door.connect() for _ in range(LAST)]
        async with asyncio.timeout(PATIENCE):
            while not first.is_closing():  # a socket whose other end is closed takes nothing
                first.write(b"x")
                await asyncio.sleep(0.001)
        for _, writer in [*held]:
            writer.close()


async def test_neither_the_look_nor_the_closing_holds_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may take long: of ancestors without end, of what a peer has handed over."""
    async with opened(tmp_path, monkeypatch) as door:
        for _ in range(LAST + 1):
            await door.ask()
    assert len(door.closed) == LAST + 1
    assert threading.main_thread() not in {*door.closed, *door.looked_at}


async def test_an_operator_is_let_in_when_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model may take all that there may be; who ends it then is an operator."""

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with opened(tmp_path, monkeypatch) as door:
        door.is_operator = True
        monkeypatch.setattr(threading.Thread, "start", start)
        assert await door.ask() == b"hello"
        monkeypatch.undo()


async def test_a_shortage_of_files_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def may_operate(fd: int) -> bool:
        monkeypatch.setattr(operators, "may_operate", lambda fd: True)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(operators, "RETRY", 0.01)
    async with opened(tmp_path, monkeypatch) as door:
        monkeypatch.setattr(operators, "may_operate", may_operate)
        _, waits = await door.connect()
        assert await door.ask() == b"hello"
        waits.close()
