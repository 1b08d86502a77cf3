"""A websocket that was refused, ended or cut off says why: in its line of the access log, and in the metrics."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from lines import Lines
from prometheus_client.parser import text_string_to_metric_families as parse_text
from served import PATIENCE, Model, Served
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from gateway.access import keys
from gateway.admission.messages import Arriving
from gateway.http import turns
from gateway.http.routes.websocket import WINDOW
from gateway.http.websocket_protocol import SLICE, WebSocketProtocol
from gateway.runners.call import Call

Serve = Callable[..., Served]
MORE = WINDOW + 20  # messages than a model holds that takes none
FAST_PINGS = {"runtime": {"transport": {"ping_interval_seconds": 0.05, "ping_timeout_seconds": 0.1}}}
HANDSHAKE = (
    b"GET /models/m/v1/websocket HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
)


async def talk(inputs: Any) -> Any:
    yield "send", "x"
    await asyncio.Event().wait()


async def flood(inputs: Any) -> Any:
    while True:
        yield "send", b"x" * 100_000


def model(**options: Any) -> Model:
    return Model({"websocket": talk}, **options)


@contextlib.contextmanager
def opened(served: Served, text: str = "", **options: Any) -> Iterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {text}"} if text else {}
    url = f"ws://127.0.0.1:{served.port}/models/m/v1/websocket"
    with connect(url, additional_headers=headers, **options) as connection:
        assert connection.recv(timeout=PATIENCE) == "x"
        yield connection


def closed(connection: ClientConnection) -> int:
    with pytest.raises(ConnectionClosed) as caught:
        connection.recv(timeout=PATIENCE)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


def broken(served: Served, **headers: str) -> dict[str, float]:
    """How many ended too early, by the reason."""
    families = parse_text(served.get("/metrics", **headers).body.decode())
    samples = [sample for family in families for sample in family.samples]
    return {s.labels["reason"]: s.value for s in samples if s.name == "gateway_streams_broken_total"}


LARGE = b"x" * (1 << 25)  # more than the buffers of both systems hold


async def large_message(inputs: Any) -> Any:
    yield "send", "x"
    yield "send", LARGE
    yield "send", "second"


async def many_messages(inputs: Any) -> Any:
    yield "send", "x"
    for _ in range(64):
        yield "send", LARGE[: 1 << 19]


async def large_message_and_close(inputs: Any) -> Any:
    yield "send", "x"
    yield "send", LARGE
    yield "close", (1000, "all was said")


@pytest.mark.parametrize("script", [large_message, many_messages, large_message_and_close])
def test_a_websocket_whose_model_has_said_all_ends_with_its_key(
    serve: Serve, tmp_path: Path, script: Callable[[Any], Any]
) -> None:
    file = tmp_path / "keys.toml"
    key, text = keys.create("ada")
    keys.write(file, [key])
    model = Model({"websocket": script})
    served = serve({"m": model}, keys_file=file)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 15)
        sock.connect(("127.0.0.1", served.port))
        with connect(
            f"ws://127.0.0.1:{served.port}/models/m/v1/websocket",
            sock=sock,
            additional_headers={"Authorization": f"Bearer {text}"},
            max_size=None,
            max_queue=1,
        ) as connection:
            assert connection.recv(timeout=PATIENCE) == "x"
            if script is not many_messages:  # its messages wait for room
                assert model.stopped.acquire(timeout=PATIENCE)
            keys.write(file, [])
            served.do(served.keys.reload())
            taken = 0
            with pytest.raises(ConnectionClosed) as caught:
                for part in iter(lambda: connection.recv(timeout=PATIENCE), None):
                    taken += len(part)
            assert caught.value.rcvd is not None and caught.value.rcvd.code == 1008
            assert "revoked" in caught.value.rcvd.reason and taken < len(LARGE) // 2


@pytest.mark.parametrize("message", ["ä" * 1_500_001, "€" * 2_000_000, b"x" * (1 << 20), b"x" * ((1 << 20) + 1), ""])
def test_a_large_message_of_a_model_arrives_as_it_is(serve: Serve, message: str | bytes) -> None:
    async def script(inputs: Any) -> Any:
        yield "send", "x"
        yield "send", message
        yield "send", "after it"

    served = serve({"m": Model({"websocket": script})})
    with opened(served, max_size=None) as connection:
        assert connection.recv(timeout=PATIENCE) == message
        assert connection.recv(timeout=PATIENCE) == "after it"
        assert closed(connection) == 1000


def test_a_key_that_made_its_calls_and_one_that_was_revoked_are_told_apart(
    serve: Serve, lines: Lines, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    (few, few_text), (gone, gone_text) = keys.create("few", rpm=1), keys.create("gone")
    ops, ops_text = keys.create("ops", scopes=("metrics",))
    keys.write(file, [few, gone, ops])
    served = serve({"m": model()}, keys_file=file, access_log=True)
    with opened(served, few_text) as connection:
        connection.send("one too many")
        assert closed(connection) == 1013
    with opened(served, gone_text) as connection:
        keys.write(file, [few, ops])
        served.do(served.keys.reload())
        assert closed(connection) == 1008
    events = lines.events(2)
    assert [(event["status"], event["error"]) for event in events] == [
        (101, "rate_limit_exceeded"),
        (101, "invalid_api_key"),
    ]
    assert broken(served, x_api_key=ops_text) == {"rate_limit_exceeded": 1, "invalid_api_key": 1}


def test_a_model_without_the_method_is_an_error_in_the_log(serve: Serve, lines: Lines) -> None:
    served = serve({"m": Model({"predict": lambda body: body})}, access_log=True)
    with connect(f"ws://127.0.0.1:{served.port}/models/m/v1/websocket") as connection:
        assert closed(connection) == 1003
    assert served.app._metrics._rejections == {("m", "route_not_supported", ""): 1}
    (event,) = lines.events(1)
    assert event["error"] == "route_not_supported"


def too_large(connection: ClientConnection) -> None:
    connection.send("x" * 2000)


def many_pings(connection: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        for _ in range(200):
            connection.ping()


@pytest.mark.parametrize(
    ("sends", "code", "error"), [(too_large, 1009, "request_too_large"), (many_pings, 1008, "too_many_pings")]
)
def test_a_client_that_goes_too_far_is_an_error_in_the_log(
    serve: Serve, lines: Lines, sends: Callable[[ClientConnection], None], code: int, error: str
) -> None:
    served = serve({"m": model(limits={"max_message": 1000})}, access_log=True)
    with opened(served) as connection:
        sends(connection)
        assert closed(connection) == code
        (event,) = lines.events(1)
    assert (event["status"], event["error"]) == (101, error)
    assert broken(served) == {error: 1}


def test_a_client_that_answers_no_ping_is_an_error_in_the_log(serve: Serve, lines: Lines) -> None:
    served = serve({"m": model(config=FAST_PINGS)}, access_log=True)
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as silent:
        silent.sendall(HANDSHAKE)
        while silent.recv(4096):
            pass
    (event,) = lines.events(1)
    assert (event["status"], event["error"]) == (101, "ping_timeout")


def test_a_client_that_takes_nothing_is_an_error_in_the_log(serve: Serve, lines: Lines) -> None:
    served = serve({"m": Model({"websocket": flood})}, access_log=True, send_timeout=0.2)
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as silent:
        silent.sendall(HANDSHAKE)
        (event,) = lines.events(1)
    assert (event["status"], event["error"], event["client_gone"]) == (101, "send_timeout", False)


def test_callers_without_a_key_make_no_errors_of_the_gateways_log(
    serve: Serve, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve({"m": model()}, access_log=True, api_key="k" * 20)
    url = f"ws://127.0.0.1:{served.port}/models/m/v1/websocket"
    with pytest.raises(InvalidStatus, match="401"), connect(url):
        pass
    (event,) = lines.events(1)
    assert (event["status"], event["error"]) == (401, "invalid_api_key")
    served.wait_until(lambda: not served.server.server_state.tasks)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_client_that_leaves_before_its_handshake_is_done_makes_no_error_of_the_gateways_log(
    serve: Serve, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    loading = model(loads=[asyncio.Event()], limits={"wait_for_ready": PATIENCE})
    served = serve({"m": loading}, access_log=True)
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as early:
        early.sendall(HANDSHAKE)
        served.wait_until(lambda: served.hub.catalog.models["m"].queued == 1)
    (event,) = lines.events(1)
    assert event["status"] == 499
    served.wait_until(lambda: not served.server.server_state.tasks)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_stop_while_a_client_says_goodbye_harms_nobody(serve: Serve) -> None:
    """It has sent its close frame, and takes nothing: the library refuses to send ours then."""
    served = serve({"m": model()})
    with opened(served):
        (protocol,) = served.server.server_state.connections
        protocol.conn.receive_data(b"\x88\x80\0\0\0\0")
        assert protocol.conn.close_rcvd is not None and not protocol.close_sent
        served.do(protocol.shutdown)
        assert protocol.transport.is_closing()


def test_a_text_that_is_none_is_its_clients_error(serve: Serve, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    served = serve({"m": model()}, access_log=True)
    with opened(served) as connection:
        connection.send(b"\xff", text=True)
        assert closed(connection) == 1007
        (event,) = lines.events(1)
    assert event["error"] == "invalid_request"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


BROKEN = {
    "reserved bits": b"\xf1\x80\0\0\0\0",
    "a text that is none": b"\x81\x81\0\0\0\0\xff",
    "no mask": b"\x81\x01a",
    "too large": b"\x81\xff\0\0\0\0\x7f\xff\xff\xff\0\0\0\0",
    "too many pings": b"\x89\x80\0\0\0\0" * 150,
    "an unknown close code": b"\x88\x82\0\0\0\0\0\1",
}


async def chatter(inputs: Any) -> Any:
    while True:
        yield "send", "x"


@pytest.mark.parametrize("frames", BROKEN.values(), ids=BROKEN)
def test_broken_frames_while_a_model_sends_make_no_error_of_the_gateways_log(
    serve: Serve, lines: Lines, caplog: pytest.LogCaptureFixture, frames: bytes
) -> None:
    served = serve({"m": Model({"websocket": chatter})}, access_log=True)
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as client:
        client.sendall(HANDSHAKE)
        assert client.recv(1000).startswith(b"HTTP/1.1 101 ")
        client.sendall(frames)
        while client.recv(65536):
            pass
    (event,) = lines.events(1)
    assert event["status"] == 101 and event["error"] in ("invalid_request", "request_too_large", "too_many_pings")
    served.wait_until(lambda: not served.server.server_state.tasks)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_client_that_vanishes_is_told_from_one_that_closes(serve: Serve, lines: Lines) -> None:
    served = serve({"m": model()}, access_log=True)
    with opened(served):
        pass
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as client:
        client.sendall(HANDSHAKE)
        assert client.recv(1000).startswith(b"HTTP/1.1 101 ")
    closed_well, vanished = lines.events(2)
    assert [event["client_gone"] for event in (closed_well, vanished)] == [False, True]
    assert (vanished["status"], vanished["error"]) == (101, None)
    samples = [s for family in parse_text(served.get("/metrics").body.decode()) for s in family.samples]
    left = [s.value for s in samples if s.name == "gateway_cancellations_total" and s.labels["reason"] == "client_left"]
    assert left == [1] and broken(served) == {}


# ── clients that leave while nothing is read ─────────────────────────────────────────────────────────────────────────


def left(served: Served, how: str) -> Call:
    """The call of a client that has sent more than its model takes, and has gone."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as client:
        client.sendall(HANDSHAKE)
        while not client.recv(1000).endswith(b"x"):
            pass
        client.sendall(Frame(Opcode.TEXT, b"hello").serialize(mask=True) * MORE)
        (call,) = served.models["m"].calls
        served.wait_until(lambda: call.unread == WINDOW)
        if how == "closes":
            client.sendall(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
        elif how == "is reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return call


@pytest.mark.parametrize("how", ["closes", "vanishes", "is reset"])
def test_a_client_that_leaves_while_its_model_takes_nothing_is_noticed(serve: Serve, how: str) -> None:
    served = serve({"m": model(limits={"slots": 1, "gap_timeout": 0.2})})
    left(served, how)
    assert served.models["m"].stopped.acquire(timeout=PATIENCE), "it holds its slot still"
    with opened(served):
        pass


def test_a_client_that_leaves_frees_its_slot_whatever_else_fails(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    served = serve({"m": model(limits={"slots": 1})})
    with monkeypatch.context() as patched:
        patched.setattr(Arriving, "close", lambda arriving: next(iter(())))
        with opened(served):
            pass
        assert served.models["m"].stopped.acquire(timeout=PATIENCE), "it holds its slot still"
        served.wait_until(lambda: not served.server.server_state.connections)
    with opened(served):
        pass


def test_a_client_that_cannot_be_told_that_it_is_given_up_is_cut_off(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it holds counts no more, so it may hold nothing."""
    served = serve({"m": model()})
    with opened(served) as connection:
        (protocol,) = served.server.server_state.connections
        monkeypatch.setattr(protocol.conn, "fail", lambda code, reason: next(iter(())))
        served.do(partial(protocol._arriving.drop, "there is no room"))
        with pytest.raises(ConnectionClosed) as caught:
            connection.recv(timeout=PATIENCE)
    assert caught.value.rcvd is None, "without a close frame"


def test_what_a_client_sent_before_it_left_is_given_to_a_model_that_takes_it(serve: Serve) -> None:
    served = serve({"m": model(limits={"gap_timeout": 60})})
    call, taken = left(served, "closes"), 0

    def takes_all() -> bool:
        nonlocal taken
        taken += call.unread
        call.on_taken(call.unread, call.unread_size)
        return call.ended

    served.wait_until(takes_all)
    assert taken >= MORE


def test_whether_a_client_is_still_there_is_asked_while_it_is_silent(serve: Serve) -> None:
    served = serve({"m": model()})
    with opened(served):
        (connection,) = served.server.server_state.connections
        sock = connection.transport.get_extra_info("socket")
        kept = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert kept == 1 and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60


class Ticking:
    """The running loop, with a clock on which each look takes a millisecond."""

    def __init__(self) -> None:
        self.call_soon, self._now = asyncio.get_running_loop().call_soon, itertools.count()

    def time(self) -> float:
        return next(self._now) / 1000


class Bare(WebSocketProtocol):
    """What was read from an open connection whose application takes everything."""

    handshake_initiated = handshake_complete = read_paused = True

    def __init__(self, loop: Any, line: turns.Turns) -> None:
        self.loop, self.turns, self.transport, self.taken = loop, line, mock.Mock(), 0

    def _may_read(self) -> bool:
        return True


def test_tiny_fragments_of_many_connections_are_parsed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(self: Bare, piece: bytes) -> None:
        self.taken += 1

    monkeypatch.setattr(WebSocketsSansIOProtocol, "data_received", parse)
    monkeypatch.setattr(turns, "BUDGET", 0.0)

    async def test() -> None:
        loop, line = Ticking(), turns.Turns()
        connections = [Bare(loop, line) for _ in range(20)]
        for each in connections:
            each.data_received(bytes(SLICE * 10))
        taken = [[each.taken for each in connections]]
        assert sum(taken[0]) <= 2, "once one of them has to wait, the others do so behind it"
        while sum(taken[-1]) < 200:
            await asyncio.sleep(0)
            taken.append([each.taken for each in connections])
        assert max(sum(after) - sum(before) for before, after in itertools.pairwise(taken)) <= 2
        halfway = taken[len(taken) // 2]
        assert max(halfway) - min(halfway) <= 4, "they have the same share"
        assert all(not each._unparsed and not each.read_paused for each in connections)

    asyncio.run(test())
