"""T61, T186: what one client may make the gateway hold over websockets, and how long it may stay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket as socket_module
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import predict
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from gateway.access import keys
from gateway.admission.messages import Arriving
from gateway.admission.shares import Shares
from gateway.errors import Unauthorized
from gateway.http.exchange import Exchange
from gateway.http.routes.websocket import _Bridge
from gateway.runners.call import Call
from gateway.spec import Limits
from gateway.testing import Gateway

MIB = 1 << 20
MODEL = """
import asyncio
class Model:
    async def websocket(self, websocket):
        await websocket.send_text("open")
        await self.first()
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            while message.get("text") == "flood":
                await websocket.send_bytes(bytes(100_000))
            await websocket.send_text(str(len(message.get("text") or message.get("bytes"))))
    async def first(self):
        pass
"""
IDLE = MODEL.replace("pass", "await asyncio.Event().wait()")
SETTINGS = """
[gateway]
send_timeout = 2
drain_timeout = 0
"""


class Place:
    """A gateway with a model that echoes sizes, and one that takes nothing."""

    def __init__(self, root: Path, settings: str = SETTINGS) -> None:
        self.root = root
        made = {name: keys.create(name) for name in ("alice", "gone", "narrowed", "demoted")}
        made["few"] = keys.create("few", rpm=6)
        self.texts = {name: text for name, (_, text) in made.items()}
        keys.write(root / "keys.toml", [key for key, _ in made.values()])
        (root / "gateway.toml").write_text(settings)
        for name, source in (("echo", MODEL), ("idle", IDLE)):
            (root / "models" / name).mkdir(parents=True)
            (root / "models" / name / "model.py").write_text(source)
            (root / "models" / name / "config.yaml").write_text("runtime: {transport: {kind: websocket}}\n")
        self.gateway = Gateway("models", cwd=root)

    def open(self, who: str = "alice", **options: Any) -> Connection:
        """A client, after the first message."""
        return Connection(self, who, options)

    def memory(self) -> int:
        """Resident bytes of the gateway and of its models."""
        left, pages = [self.gateway.process.pid], 0
        while left:
            pid = left.pop()
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                left += map(int, children.read_text().split())
        return pages * os.sysconf("SC_PAGE_SIZE")


class Connection:
    def __init__(self, place: Place, who: str, options: dict[str, Any]) -> None:
        url = f"{place.gateway.url.replace('http', 'ws')}/models/echo/v1/websocket"
        head = {"Authorization": f"Bearer {place.texts[who]}"}
        self._connect = connect(url, additional_headers=head, max_size=None, **options)

    def __enter__(self) -> ClientConnection:
        found = self._connect.__enter__()
        assert found.recv(timeout=60) == "open"
        return found

    def __exit__(self, *error: Any) -> None:
        self._connect.__exit__(*error)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    found = Place(tmp_path_factory.mktemp("place"))
    with found.gateway:
        yield found


def closing(socket: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            socket.recv(timeout=60)
    received = caught.value.rcvd
    assert received is not None
    return received.code, received.reason


def push(sock: socket_module.socket, data: bytes, seconds: float = 0.3) -> int:
    """Send as much of it as the other side reads; how much that was."""
    sock.settimeout(seconds)
    sent = 0
    with contextlib.suppress(TimeoutError, ConnectionError):
        while sent < len(data):
            sent += sock.send(data[sent : sent + 65536])
    return sent


def frame(data: bytes, opcode: Opcode = Opcode.BINARY, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def raw(place: Place, model: str = "echo", receive: int = 0) -> socket_module.socket:
    """A connection whose frames the test makes itself."""
    host, _, port = place.gateway.url.removeprefix("http://").partition(":")
    sock = socket_module.socket()
    if receive:
        sock.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_RCVBUF, receive)
    sock.settimeout(20)
    sock.connect((host, int(port)))
    sock.sendall(
        f"GET /models/{model}/v1/websocket HTTP/1.1\r\nhost: {host}\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        f"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
        f"x-api-key: {place.texts['alice']}\r\n\r\n".encode()
    )
    received = b""
    while b"open" not in received:
        received += sock.recv(4096)
    return sock


def test_nothing_is_compressed_and_a_message_too_large_is_told(place: Place) -> None:
    with place.open() as socket:
        assert socket.response is not None and "sec-websocket-extensions" not in socket.response.headers
        with contextlib.suppress(ConnectionClosed):
            socket.send(b"x" * (MIB + 1))
        code, reason = closing(socket)
        assert code == 1009 and str(MIB) in reason


def test_what_clients_send_that_no_model_takes_stays_with_them(place: Place) -> None:
    """Large messages, empty ones, small ones."""
    before = place.memory()
    with contextlib.ExitStack() as stack:
        for data in (
            frame(b"x" * (MIB // 2)) * 40,
            frame(b"") * 3_000_000,
            frame(b"ab") * 2_500_000,
        ):
            for _ in range(3):
                sent = push(stack.enter_context(raw(place, "idle")), data)
                assert sent < len(data), "the gateway read all of it"
        assert place.memory() - before < 48 * MIB
        with place.open() as socket:  # and the others are served
            socket.send("x" * 100_000)
            assert socket.recv(timeout=60) == "100000"


def test_a_message_in_endless_pieces_is_refused(place: Place) -> None:
    with raw(place) as sock:
        push(sock, frame(b"x", fin=False) + frame(b"", Opcode.CONT, fin=False) * 5000, seconds=10.0)
        received = b""
        with contextlib.suppress(ConnectionError):
            while part := sock.recv(4096):
                received += part
        assert struct.pack("!H", 1009) + b"too many pieces" in received


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
def test_a_client_that_pings_without_end_is_turned_away(place: Place, opcode: Opcode) -> None:
    with raw(place) as sock:
        sock.sendall(frame(b"", opcode) * 50 + frame(b"hello"))
        received = b""
        while b"\x81\x015" not in received:  # the answer to it: some pings are nobody's trouble
            received += sock.recv(4096)
        push(sock, frame(b"", opcode) * 5000, seconds=10.0)
        with contextlib.suppress(ConnectionError):
            while part := sock.recv(4096):
                received += part
        assert struct.pack("!H", 1008) + b"too many pings" in received


def test_a_client_that_never_reads_is_cut_off(place: Place) -> None:
    with raw(place, receive=4096) as sock:
        sock.sendall(frame(b"flood", Opcode.TEXT))
        with pytest.raises(ConnectionError):  # and no time-out
            while True:
                sock.sendall(frame(b"more"))


def test_messages_come_whole_and_in_order_however_they_are_cut(place: Place) -> None:
    sizes = [0, 1, 4095, 4096, 4097, 70_000, 3, 200_000, 0, 125, 126, 65_535, 65_536]
    data = b"".join(frame(b"x" * size) for size in sizes)
    with raw(place) as sock:
        for start in range(0, len(data), 3001):
            sock.sendall(data[start : start + 3001])
        expected = b"".join(Frame(Opcode.TEXT, str(size).encode()).serialize(mask=False) for size in sizes)
        received = b""
        while len(received) < len(expected):
            received += sock.recv(65536)
        assert received == expected


def test_each_message_counts_for_the_rate_of_its_key(place: Place) -> None:
    with place.open("few") as socket:  # which is one of the six
        for _ in range(5):
            socket.send("hello")
            assert socket.recv(timeout=60) == "5"
        socket.send("hello")
        code, reason = closing(socket)
        assert code == 1013 and "6 calls a minute; try again in" in reason
    with place.open("alice") as socket:
        for _ in range(20):
            socket.send("hello")
            assert socket.recv(timeout=60) == "5"


def test_a_websocket_ends_when_its_key_is_revoked(place: Place) -> None:
    with place.open("gone") as socket, place.open("alice") as other:
        file = place.root / "keys.toml"
        keys.write(file, keys.without(keys.read(file), "gone"))
        place.gateway.process.send_signal(1)  # SIGHUP
        code, reason = closing(socket)
        assert code == 1008 and "revoked" in reason
        other.send("hello")
        assert other.recv(timeout=60) == "5"


@pytest.mark.parametrize(
    ("who", "left", "told"),
    [
        ("narrowed", {"models": ("idle",)}, "may not use model 'echo' any more"),
        ("demoted", {"scopes": ("metrics", "admin")}, "does not have the scope 'infer' any more"),
    ],
)
def test_a_websocket_ends_when_its_key_loses_the_model_or_the_scope(
    place: Place, who: str, left: dict[str, Any], told: str
) -> None:
    with place.open(who) as socket, place.open("alice") as other:
        file = place.root / "keys.toml"
        keys.write(file, [replace(key, **left) if key.name == who else key for key in keys.read(file)])
        place.gateway.process.send_signal(1)  # SIGHUP
        code, reason = closing(socket)
        assert code == 1008 and told in reason
        other.send("hello")
        assert other.recv(timeout=60) == "5"


# ── the budget of all ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
async def test_a_message_that_finds_no_room_is_told_after_a_while() -> None:
    """And leaves what others wait for to them."""
    shares = Shares(max_bytes=0)
    shares.messages.add(100)
    end: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = Arriving(shares.messages, 0.05, lambda: None, end.set_result)
    other = Arriving(shares.messages, 1000.0, lambda: None, end.set_result)
    for each in (waiting, other):
        each.read(10)
        assert each.waits
    assert await end == "models have too many messages to take; try again in 10 s"
    assert other.waits and not waiting.waits
    other.close()
    assert shares.messages.size == shares.bytes == 100


@pytest.mark.anyio
@pytest.mark.parametrize("rest", [[], [("send", "second")], [("close", [1000, "all was said"])]])
async def test_what_a_model_has_said_before_its_key_was_lost_is_not_told_after_it(rest: list[Any]) -> None:
    exchange = Exchange({"method": "GET", "path": "", "headers": []}, None, None)
    call = Call(predict(), b"", Limits(), asyncio.get_running_loop())
    call.items, call.ended = [("send", "first"), *rest], True
    sent = []

    async def send(message: Any) -> None:  # its client takes it slowly
        sent.append(message["text"])
        exchange.end(Unauthorized("it was revoked"))

    exchange.watch(call)
    bridge = _Bridge(call, asyncio.Queue[Any]().get, send, exchange, Shares(max_bytes=0).messages, 1.0)
    assert await bridge.run() == (1008, "it was revoked")
    assert sent == ["first"]


def test_what_comes_before_a_connection_is_accepted_stays_with_its_client(tmp_path: Path) -> None:
    (tmp_path / "models" / "late").mkdir(parents=True)
    loads = "    def load(self):\n        import time\n        time.sleep(600)\n"
    (tmp_path / "models" / "late" / "model.py").write_text(MODEL + loads)
    (tmp_path / "gateway.toml").write_text('[gateway]\ndrain_timeout = 0\n[models.late]\nload = "lazy"\n')
    head = (
        b"GET /models/late/v1/websocket HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
    )
    with Gateway("models", cwd=tmp_path) as gateway:
        place = ("127.0.0.1", int(gateway.url.rpartition(":")[2]))
        with socket_module.create_connection(place, timeout=1) as early:
            early.sendall(head)
            sent = 0
            with contextlib.suppress(TimeoutError):  # the system itself takes a few MiB, and then no more
                while sent < 32 * MIB:
                    sent += early.send(bytes(MIB))
            assert sent < 32 * MIB


NARROW = """
[gateway]
drain_timeout = 0
max_queued_bytes = "6MiB"
[models.idle]
queue_timeout = 2
gap_timeout = 0.5
cancel_grace = 5
"""


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway that holds 3 MiB of messages."""
    found = Place(tmp_path_factory.mktemp("narrow"), NARROW)
    with found.gateway:
        yield found


@pytest.mark.parametrize("pieces", [1, 16])
def test_unfinished_messages_are_held_up_to_a_limit_however_many_there_are(narrow: Place, pieces: int) -> None:
    """A byte is missing of each. The largest is dropped and its connection closed, the others go on."""
    size = MIB // pieces
    parts = [frame(b"x" * size, Opcode.CONT if number else Opcode.BINARY, False) for number in range(pieces - 1)]
    last = frame(b"x" * size, Opcode.CONT if pieces > 1 else Opcode.BINARY)
    before, told = narrow.memory(), struct.pack("!H", 1013) + b"too many unfinished messages; try again in 10 s"
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(raw(narrow)) for _ in range(40)]
        for sock in clients:
            with contextlib.suppress(ConnectionError):
                sock.sendall(b"".join(parts) + last[:-1])
        left = set(clients)
        while len(left) > 2:  # so many, and no more, are held
            ready = select.select(left, [], [], 30)[0]
            assert ready
            for sock in ready:
                assert told in sock.recv(4096)
                left.remove(sock)
        assert narrow.memory() - before < 20 * MIB
        answered = 0
        for sock in left:
            sock.sendall(last[-1:])
            received = sock.recv(4096)
            assert told in received or received.endswith(str(MIB).encode())
            answered += told not in received
        assert answered
        with narrow.open() as socket:  # and who sends whole messages is served
            socket.send("x" * 100_000)
            assert socket.recv(timeout=60) == "100000"


def test_a_client_is_not_read_while_models_take_nothing_and_told_after_a_while(narrow: Place) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(raw(narrow, "idle")) for _ in range(20)]
        for sock in clients:
            push(sock, frame(b"x" * (MIB // 2)) * 3, seconds=0.1)
        told = 0
        for sock in clients[4:]:
            sock.settimeout(60)
            with contextlib.suppress(ConnectionError):
                told += struct.pack("!H", 1013) + b"models have too many messages to take" in sock.recv(4096)
        assert told
    with narrow.open() as socket:  # their room is free again
        socket.send("x" * 100_000)
        assert socket.recv(timeout=60) == "100000"


# ── code that does not stop ──────────────────────────────────────────────────────────────────────────────────────────

STUBBORN = """
import asyncio
class Model:
    async def websocket(self, websocket):
        await websocket.send_text("open")
        while True:
            try:
                await asyncio.sleep(3600)
            except BaseException:
                pass
"""
QUIET = STUBBORN.replace("except BaseException", "except ZeroDivisionError")
CLOSES = STUBBORN.replace("        while", "        await websocket.close()\n        while")
BUSY = STUBBORN.replace("        while", "        await websocket.receive()\n        while")
SOON = """
[gateway]
drain_timeout = 0
keys_file = "keys.toml"
[models."*"]
gap_timeout = 0.2
cancel_grace = 0.2
"""
HOLDING = {"stubborn": STUBBORN, "quiet": QUIET, "closes": CLOSES, "busy": BUSY}


@pytest.fixture(scope="module")
def of_one_call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, dict[str, str]]]:
    """A gateway with models that hold on to their connections, and the head of a caller who has one call at a time."""
    root = tmp_path_factory.mktemp("holding")
    key, text = keys.create("one", max_inflight=1)
    keys.write(root / "keys.toml", [key])
    (root / "gateway.toml").write_text(SOON)
    predicts = "class Model:\n    def predict(self, x):\n        return x\n"
    for name, code in {**HOLDING, "other": predicts}.items():
        (root / "models" / name).mkdir(parents=True)
        (root / "models" / name / "model.py").write_text(code)
    with Gateway("models", cwd=root) as gateway:
        yield gateway, {"Authorization": f"Bearer {text}"}


@pytest.mark.parametrize("name", HOLDING)
def test_a_websocket_whose_code_does_not_stop_does_not_keep_its_caller_from_other_models(
    of_one_call: tuple[Gateway, dict[str, str]], name: str
) -> None:
    gateway, head = of_one_call
    url = f"{gateway.url.replace('http', 'ws')}/models/{name}/v1/websocket"
    with connect(url, additional_headers=head) as socket:
        assert socket.recv(timeout=60) == "open"
        with contextlib.suppress(ConnectionClosed):  # one of them has closed it
            socket.send("hello")
    request = urllib.request.Request(f"{gateway.url}/v1/models/other:predict", b"{}", head)
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.status == 200
                break
        except urllib.error.HTTPError as error:
            assert error.code == 429 and time.monotonic() < end
            time.sleep(0.1)  # nothing else tells a caller that a call of its own has ended
