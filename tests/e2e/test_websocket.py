"""Websockets of models, over the wire, with a real client."""

from __future__ import annotations

import contextlib
import json
import socket as socket_module
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from gateway.testing import Gateway

from .conftest import write_models

ECHO = """
from gateway import HTTPError

class Model:
    async def websocket(self, websocket):
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") == "raise":
                raise ValueError("secret words")
            if message.get("text") == "refuse":
                raise HTTPError(400, "\u00fc" * 100)
            if message.get("text") == "return":
                return
            if message.get("text") == "close":
                await websocket.close(code=4001, reason="enough")
                await websocket.close()
                return
            if message.get("text") == "who":
                await websocket.send_json({"query": websocket.query_params["name"], "path": websocket.url.path})
            elif message.get("bytes") is not None:
                await websocket.send_bytes(message["bytes"])
            else:
                await websocket.send_text(message["text"].upper())
"""

FLOOD = """
import pathlib
class Model:
    async def websocket(self, websocket):
        try:
            while True:
                await websocket.send_bytes(b"x" * 10000)
        finally:
            pathlib.Path("ended").write_text("yes")
"""

PINGING = "runtime: {transport: {kind: websocket, ping_interval_seconds: 0.05, ping_timeout_seconds: 0.1}}\n"
PATIENT = PINGING.replace("0.05", "0.2").replace("0.1", "2")
PLAIN = "class Model:\n    def predict(self, x):\n        return x\n"

HANDSHAKE = (
    b"GET /models/pinging/v1/websocket HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("models")
    one = "runtime: {predict_concurrency: 1, transport: {kind: websocket}}\n"
    models = {
        "echo": {"model/model.py": ECHO, "config.yaml": "runtime: {transport: {kind: websocket}}\n"},
        "large": {"model.py": ECHO},
        "strict": {"model.py": ECHO},
        "flood": {"model.py": FLOOD, "config.yaml": one},
        "plain": {"model.py": PLAIN},
        "pinging": {"model.py": ECHO, "config.yaml": PINGING},
        "patient": {"model.py": ECHO, "config.yaml": PATIENT},
        "old-key": {"model.py": ECHO, "config.yaml": "runtime: {is_websocket_endpoint: true}\n"},
    }
    write_models(root, models)
    (root / "gateway.toml").write_text(
        '[models.large]\nmax_message = "8MiB"\n[models.strict]\ntruss_parity = "strict"\n'
    )
    with Gateway(root, cwd=root) as running:
        yield running.url.replace("http", "ws")


def open_socket(url: str, model: str, query: str = "", request_id: str | None = None) -> ClientConnection:
    headers = {} if request_id is None else {"x-request-id": request_id}
    return connect(f"{url}/models/{model}/v1/websocket{query}", max_size=None, additional_headers=headers)


def closing(socket: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            socket.recv(timeout=60)
    received = caught.value.rcvd
    assert received is not None
    return received.code, received.reason


def test_text_and_bytes_come_back_in_order(url: str) -> None:
    with open_socket(url, "echo") as socket:
        for index in range(200):
            socket.send(f"message {index}")
        assert [socket.recv(timeout=60) for _ in range(200)] == [f"MESSAGE {index}" for index in range(200)]
        socket.send(b"\x00\xff")
        assert socket.recv(timeout=60) == b"\x00\xff"


def test_a_message_of_megabytes_passes_both_ways(url: str) -> None:
    with open_socket(url, "large") as socket:
        large = bytes(range(256)) * 20_000
        socket.send(large)
        assert socket.recv(timeout=30) == large


def test_the_model_sees_query_and_path(url: str) -> None:
    with open_socket(url, "echo", "?name=ada") as socket:
        socket.send("who")
        assert socket.recv(timeout=60) == '{"query":"ada","path":"/models/echo/v1/websocket"}'


def test_a_method_that_returns_closes_normally(url: str) -> None:
    with open_socket(url, "echo") as socket:
        socket.send("return")
        assert closing(socket) == (1000, "")


def test_a_method_that_raises_closes_with_the_way_to_its_log_and_none_of_its_words(url: str) -> None:
    with open_socket(url, "echo", request_id="r7") as socket:
        socket.send("raise")
        assert closing(socket) == (1011, "the model raised an error; `gateway logs echo` shows request r7")


def test_a_close_is_at_most_123_bytes_and_no_half_of_a_character(url: str) -> None:
    with open_socket(url, "large", request_id="r" * 100) as socket:
        socket.send("raise")
        code, reason = closing(socket)
        assert (code, len(reason)) == (1011, 123) and reason.startswith(
            "the model raised an error; `gateway logs large`"
        )
    with open_socket(url, "large") as socket:
        socket.send("refuse")
        assert closing(socket) == (1011, "\u00fc" * 61)


def test_a_strict_model_that_raises_closes_with_trusss_words(url: str) -> None:
    with open_socket(url, "strict") as socket:
        socket.send("raise")
        assert closing(socket) == (1011, "Internal Server Error (in model/chainlet).")


def test_the_models_own_close_is_passed_on_and_a_second_one_ignored(url: str) -> None:
    with open_socket(url, "echo") as socket:
        socket.send("close")
        assert closing(socket) == (4001, "enough")


def test_a_model_without_the_method_is_accepted_then_closed(url: str) -> None:
    with open_socket(url, "plain") as socket:
        assert closing(socket) == (1003, "WebSocket is not implemented on this deployment.")


def test_a_client_that_leaves_ends_a_model_that_only_sends_and_frees_its_slot(url: str) -> None:
    for _ in range(2):  # it has one slot
        with open_socket(url, "flood") as socket:
            assert socket.recv(timeout=60) == b"x" * 10000
            socket.close_timeout = 0.1  # it leaves without having read what was sent


def test_an_unknown_model_is_refused_as_a_status(url: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        open_socket(url, "nobody")
    assert caught.value.response.status_code == 404
    assert b"no model named 'nobody'" in caught.value.response.body


def test_the_shared_address_names_the_per_model_ones_when_several_may_be_meant(url: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        connect(f"{url}/v1/websocket")
    assert caught.value.response.status_code == 404
    assert b"/models/echo/v1/websocket" in caught.value.response.body


def test_a_foreign_origin_is_refused_before_the_handshake(url: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        connect(f"{url}/models/echo/v1/websocket", origin="https://evil.example")  # type: ignore[arg-type]
    assert caught.value.response.status_code == 403


def test_the_sole_websocket_model_answers_the_shared_address(tmp_path: Path) -> None:
    write_models(tmp_path, {"echo": {"model.py": ECHO}, "plain": {"model.py": PLAIN}})
    with Gateway(tmp_path) as running, connect(f"{running.url.replace('http', 'ws')}/v1/websocket") as socket:
        socket.send("hello")
        assert socket.recv(timeout=60) == "HELLO"


@pytest.mark.parametrize("model", ["echo", "old-key"])
def test_connections_to_a_websocket_model_are_not_counted(url: str, model: str) -> None:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(open_socket(url, model)) for _ in range(5)]
        for socket in sockets:
            socket.send("all at once")
        assert [socket.recv(timeout=60) for socket in sockets] == ["ALL AT ONCE"] * 5


def test_a_client_that_answers_no_ping_of_the_models_interval_is_dropped(url: str) -> None:
    host, _, port = url.removeprefix("ws://").partition(":")
    with socket_module.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(HANDSHAKE)
        received = b""
        while part := raw.recv(4096):  # the pings come long before the 20 s of other models
            received += part
    head, _, frames = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert frames[:2] == b"\x89\x04"  # a ping with four bytes
    assert frames[6] == 0x88  # and then the end
    assert b"keepalive ping timeout" in frames


def test_a_client_that_answers_pings_stays(url: str) -> None:
    with open_socket(url, "patient") as socket:
        socket.send("first")
        assert socket.recv(timeout=60) == "FIRST"
        with pytest.raises(TimeoutError):
            socket.recv(timeout=3)  # longer than one who answers none stays
        socket.send("still here")
        assert socket.recv(timeout=60) == "STILL HERE"


def test_predict_of_a_websocket_model_is_trusss_assertion(url: str) -> None:
    address = url.replace("ws", "http", 1)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{address}/v1/models/echo:predict", b"1", timeout=60)
    with caught.value as answer:
        assert (answer.code, answer.headers["x-baseten-error-code"]) == (500, "500")
        words = "Unhandled exception: AssertionError: `predict` must only be called if model has it."
        assert json.load(answer) == {"error": words}


# A load in another process, which nothing but a file tells to go on.
WAIT = "import pathlib, time\nwhile not pathlib.Path('../go').exists():\n    time.sleep(0.01)\n"


def test_a_handshake_while_the_model_loads_is_refused_as_503(tmp_path: Path) -> None:
    write_models(tmp_path, {"late": {"model.py": WAIT + ECHO}})
    with Gateway(tmp_path, until="accepting") as running:
        address = running.url.replace("http", "ws")
        with pytest.raises(InvalidStatus) as caught:
            open_socket(address, "late")
        assert caught.value.response.status_code == 503
        (tmp_path / "go").touch()
        running.wait_for("model 'late' is ready")
        with open_socket(address, "late") as socket:
            socket.send("now")
            assert socket.recv(timeout=60) == "NOW"


@pytest.fixture
def lazy(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway with a model that loads on demand, once `go` is there, and takes one connection."""
    write_models(tmp_path, {"late": {"model.py": WAIT + ECHO}})
    (tmp_path / "gateway.toml").write_text('[models.late]\nload = "lazy"\nslots = 1\nmax_queue = 0\n')
    with Gateway(tmp_path, cwd=tmp_path) as running:
        yield running


def queued(gateway: Gateway, number: int) -> None:
    """Return when so many wait for the model."""
    line = f'gateway_requests_queued{{model="late"}} {number}.0'
    while line not in urllib.request.urlopen(f"{gateway.url}/metrics", timeout=60).read().decode():
        time.sleep(0.02)  # nothing tells a client that another one waits


def test_the_first_connection_to_a_lazy_model_waits_for_its_load(lazy: Gateway, tmp_path: Path) -> None:
    with ThreadPoolExecutor() as threads:
        opening = threads.submit(open_socket, lazy.url.replace("http", "ws"), "late")
        queued(lazy, 1)
        (tmp_path / "go").touch()
        with opening.result(timeout=30) as socket:
            socket.send("now")
            assert socket.recv(timeout=60) == "NOW"


def test_a_client_that_leaves_before_its_handshake_is_done_gives_its_place_back(lazy: Gateway, tmp_path: Path) -> None:
    place = ("127.0.0.1", int(lazy.url.rpartition(":")[2]))
    with socket_module.create_connection(place, timeout=60) as raw:
        raw.sendall(HANDSHAKE.replace(b"pinging", b"late"))
        queued(lazy, 1)
    queued(lazy, 0)
    (tmp_path / "go").touch()
    lazy.wait_for("model 'late' is ready")
    with open_socket(lazy.url.replace("http", "ws"), "late") as held:
        with pytest.raises(InvalidStatus) as caught:
            open_socket(lazy.url.replace("http", "ws"), "late")
        assert caught.value.response.status_code == 429
        held.send("held")
        assert held.recv(timeout=60) == "HELD"


def test_a_client_that_leaves_while_it_waits_for_a_slot_gives_its_place_back(tmp_path: Path) -> None:
    write_models(tmp_path, {"late": {"model.py": ECHO}})
    (tmp_path / "gateway.toml").write_text("[models.late]\nslots = 1\n")
    with Gateway(tmp_path, cwd=tmp_path) as running, open_socket(running.url.replace("http", "ws"), "late"):
        place = ("127.0.0.1", int(running.url.rpartition(":")[2]))
        with socket_module.create_connection(place, timeout=60) as raw:
            raw.sendall(HANDSHAKE.replace(b"pinging", b"late"))
            queued(running, 1)
        queued(running, 0)
