"""One connection, with a transport that is played: what the protocol refuses, when it closes, whom it tells."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import uvicorn
from fakes import VirtualLoop
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from gateway.errors import BadRequest, TooLarge
from gateway.http import protocol, turns
from gateway.http.body import BodyReader
from gateway.http.collected_body import FRAMING, MAX_READS
from gateway.http.connection_endings import PARTING
from gateway.http.protocol import GuardedProtocol
from gateway.http.read_ahead import AHEAD, MAX_PIPELINED, SLICE
from gateway.http.request_cycle import cycle_of, write_whole
from gateway.http.request_heads import MAX_HEAD, MAX_HEADERS, MAX_URL
from gateway.runners.pending import ClientLeft

HEAD_TIMEOUT, KEEP_ALIVE = 10.0, 75
GET = b"GET /x HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST_ONE = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx"
POST_CHUNKED = b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"


class Transport(asyncio.Transport):
    """Takes what is written; closes when told, and then tells its protocol."""

    def __init__(self) -> None:
        super().__init__()
        self.out = b""
        self.closed = self.aborted = False
        self.waiting = 0  # bytes that the client has not taken
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        assert not self.closed, "written to a closed connection"
        self.out += bytes(data)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 80)}.get(name, default)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Connection:
    """A protocol over such a transport, and an app that records what reaches it and answers when `gate` is open."""

    def __init__(self, base: type[HttpToolsProtocol] = GuardedProtocol, **options: Any) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        self.gate = asyncio.Event()
        self.gate.set()
        options = {"head_timeout": HEAD_TIMEOUT, **options}
        self.state = ServerState()
        config = uvicorn.Config(
            self.app,
            interface="asgi3",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        kind: Any = type("Protocol", (base,), options)
        self.transport = Transport()
        self.protocol = self.transport.protocol = kind(config, self.state, {}, asyncio.get_running_loop())
        self.protocol.connection_made(self.transport)

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        body, more = b"", scope["path"] != "/early"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(body)
        await self.gate.wait()
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body})

    async def receive(self, data: bytes, size: int = 0) -> None:
        """Have the bytes arrive, `size` at a time."""
        for start in range(0, len(data), size or len(data) or 1):
            if self.transport.closed:
                return
            self.protocol.data_received(data[start : start + size] if size else data)
        await settle()

    @property
    def statuses(self) -> list[int]:
        """Of the answers so far; bodies of the tests never hold a status line."""
        return [int(part[:3]) for part in self.transport.out.split(b"HTTP/1.1 ")[1:]]

    def timers(self) -> list[Any]:
        """Those of this connection that are still to come."""
        loop: Any = asyncio.get_running_loop()
        return [
            t for t in loop._scheduled if not t.cancelled() and getattr(t._callback, "__self__", None) is self.protocol
        ]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def played(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an async test on a loop whose clock jumps."""

    def run(**arguments: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(**arguments))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def refused(connection: Connection, status: int, code: str) -> None:
    head, _, body = connection.transport.out.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in head and connection.transport.closed
    error = json.loads(body)["error"]
    assert (error["code"], set(error)) == (code, {"message", "type", "param", "code"})


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def head_of(size: int) -> bytes:
    """A request whose header fields are `size` bytes, as they are counted."""
    fields = b"host: localhost\r\n"
    left = size - len(fields)
    while left > 0:
        piece = min(left, 8000)
        piece = left if left - piece < 20 and left < 16000 else piece
        fields += b"x: " + b"y" * (piece - 5) + b"\r\n"
        left -= piece
    assert len(fields) == size
    return b"GET /x HTTP/1.1\r\n" + fields + b"\r\n"


@pytest.mark.parametrize(
    ("extra", "read", "good"),
    # In pieces the request line counts as well, and a piece too many is noticed with the next.
    [(-1, 0, True), (0, 0, True), (1, 0, False), (-100, 1000, True), (1000, 1000, False)],
)
def test_a_head_may_be_64_kib(extra: int, read: int, good: bool) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        await connection.receive(head_of(MAX_HEAD + extra), read)
        if good:
            assert connection.statuses == [200]
        else:
            refused(connection, 431, "request_too_large")
            assert not connection.scopes

    test()


@pytest.mark.parametrize(("extra", "good"), [(0, True), (1, False)])
def test_so_may_one_that_begins_behind_another_request(extra: int, good: bool) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        first, second = head_of(100), head_of(MAX_HEAD + extra)
        most = SLICE - len(first)
        await connection.receive(first + second[:most])
        for start in range(most, len(second), SLICE):
            await connection.receive(second[start : start + SLICE])
        if good:
            assert connection.statuses == [200, 200]
        else:
            assert connection.statuses == [200, 431]

    test()


@pytest.mark.parametrize("read", [0, 7])
@pytest.mark.parametrize(("count", "good"), [(MAX_HEADERS - 1, True), (MAX_HEADERS, True), (MAX_HEADERS + 1, False)])
def test_a_head_may_have_a_hundred_headers(count: int, good: bool, read: int) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        fields = b"host: localhost\r\n" + b"x: y\r\n" * (count - 1)
        await connection.receive(b"GET /x HTTP/1.1\r\n" + fields + b"\r\n", read)
        if good:
            assert connection.statuses == [200] and len(connection.scopes[0]["headers"]) == count
        else:
            refused(connection, 431, "request_too_large")

    test()


@pytest.mark.parametrize("read", [0, 100])
@pytest.mark.parametrize(("length", "good"), [(MAX_URL - 1, True), (MAX_URL, True), (MAX_URL + 1, False)])
def test_a_url_may_be_8_kib(length: int, good: bool, read: int) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        await connection.receive(b"GET /" + b"x" * (length - 1) + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", read)
        if good:
            assert connection.statuses == [200]
        else:
            refused(connection, 414, "request_too_large")

    test()


@played
async def test_an_endless_head_is_refused_when_it_is_too_long_not_when_it_ends() -> None:
    connection = Connection()
    await connection.receive(b"GET /x HTTP/1.1\r\n")
    for _ in range(100):
        await connection.receive(b"x: " + b"y" * 1000 + b"\r\n")
    refused(connection, 431, "request_too_large")


@played
async def test_one_header_that_never_ends_is_refused_when_it_is_too_long() -> None:
    connection = Connection()
    await connection.receive(b"GET /x HTTP/1.1\r\nx: ")
    for _ in range(MAX_HEAD // 1000 + 1):
        await connection.receive(b"y" * 1000)
    refused(connection, 431, "request_too_large")


@played
async def test_limits_are_of_each_request_not_of_the_connection() -> None:
    connection = Connection()
    for _ in range(3):
        await connection.receive(head_of(MAX_HEAD - 100))
    assert connection.statuses == [200, 200, 200]


@played
async def test_a_large_body_is_no_head() -> None:
    connection = Connection()
    body = b"x" * (3 * MAX_HEAD)
    head = b"POST /x HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    await connection.receive(head + body, 10_000)
    assert connection.bodies == [body] and connection.statuses == [200]


@played
async def test_connections_beyond_the_bound_are_turned_away() -> None:
    connection = Connection(max_connections=1)
    other = Transport()
    other.protocol = type(connection.protocol)(connection.protocol.config, connection.state, {})
    other.protocol.connection_made(other)
    assert other.out.startswith(b"HTTP/1.1 503 ") and other.closed
    await settle()
    await connection.receive(GET)
    assert connection.statuses == [200]
    third = Transport()
    connection.transport.close()
    await settle()
    third.protocol = type(connection.protocol)(connection.protocol.config, connection.state, {})
    third.protocol.connection_made(third)
    assert not third.closed


# ── what is not HTTP ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /x HTTP/9.9\r\nhost: x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 5x\r\n\r\nhello",
        b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: " + b"9" * 30 + b"\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost : x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nho st: x\r\n\r\n",
        b"POST /x HTTP/1.1\r\nhost: x\r\nx: a\x00b\r\n\r\n",
    ],
)
@pytest.mark.parametrize("read", [0, 1])
def test_what_is_not_http_is_400_and_closed_and_never_reaches_the_app(data: bytes, read: int) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        await connection.receive(data, read)
        refused(connection, 400, "invalid_request")
        assert not connection.bodies

    test()


@played
async def test_a_bad_chunk_size_ends_the_connection_and_the_body_is_never_taken_for_whole() -> None:
    connection = Connection()
    await connection.receive(b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n")
    assert connection.transport.closed and not connection.bodies
    assert connection.statuses in ([400], [])


@played
async def test_nothing_is_written_into_an_answer_that_has_begun() -> None:
    connection = Connection()

    async def half(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"half ", "more_body": True})
        await connection.gate.wait()
        await send({"type": "http.response.body", "body": b"whole"})

    connection.gate.clear()
    connection.protocol.app = half
    await connection.receive(GET)
    before = connection.transport.out
    await connection.receive(b"this is no request\r\n\r\n")
    assert connection.transport.out == before and not connection.transport.closed
    connection.gate.set()
    await settle()
    answer, refusal = connection.transport.out.split(b"HTTP/1.1 400 ")
    assert answer.endswith(b"half whole") and b"connection: close" in refusal
    assert connection.transport.closed


@played
async def test_trailers_never_become_headers() -> None:
    connection = Connection()
    connection.gate.clear()
    await connection.receive(b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await connection.receive(b"0\r\nauthorization: Bearer stolen\r\nx-evil: 1\r\n\r\n")
    connection.gate.set()
    await settle()
    assert connection.bodies == [b"hello"] and connection.statuses == [200]
    assert [name for name, _ in connection.scopes[0]["headers"]] == [b"host", b"transfer-encoding"]


@pytest.mark.parametrize("read", [1024, 65536])
@pytest.mark.parametrize(
    "endless",
    [
        b"0\r\nX: " + b"a" * 131072,
        b"0\r\n" + b"A: b\r\n" * 22000,
        b"5;" + b"x" * 131072,
        b"5\r\nhello\r\n0\r\n" + b"X" * 131072,
    ],
    ids=["trailer", "trailers", "extension", "name"],
)
@pytest.mark.parametrize("answered", [False, True])
def test_what_stands_between_and_behind_the_pieces_of_a_body_may_have_64_kib(
    endless: bytes, read: int, answered: bool
) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        path = b"/early" if answered else b"/x"
        await connection.receive(b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % path)
        assert connection.statuses == [200] * answered
        await connection.receive(endless, read)
        assert connection.transport.closed and not connection.bodies[answered:]
        assert connection.statuses == ([200] if answered else [431])

    test()


@played
async def test_a_long_body_in_many_chunks_is_no_head() -> None:
    connection = Connection()
    await connection.receive(b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    chunk = b"x" * 100
    await connection.receive(b"64;an=extension\r\n%b\r\n" % chunk * 20000 + b"0\r\n\r\n", 50000)
    assert connection.statuses == [200] and connection.bodies == [chunk * 20000]


CRUMB = b"1\r\nx\r\n"


@pytest.mark.parametrize("path", [b"/early", b"/x"])
@pytest.mark.parametrize("read", [SLICE, 50000, 256 << 10])
def test_a_body_of_crumbs_is_refused_though_it_comes_in_large_reads(read: int, path: bytes) -> None:
    """Also where it was answered already, and nobody reads it: that needs no key."""

    @played
    async def test() -> None:
        connection = Connection()
        await connection.receive(b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % path)
        for _ in range((512 << 10) // read):
            await connection.receive(CRUMB * (read // len(CRUMB)))
            for _ in range(read // SLICE):
                await settle()
        assert connection.transport.closed and connection.statuses == ([200] if path == b"/early" else [400])
        assert connection.protocol._body < 2 * FRAMING // len(CRUMB)

    test()


def test_a_short_body_may_be_in_any_chunks() -> None:
    @played
    async def test() -> None:
        connection = Reading()
        await connection.receive(b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        await connection.receive(CRUMB * 20000 + b"0\r\n\r\n" + GET, 60000)
        for _ in range(50):
            await settle()
        assert connection.statuses == [200, 200] and connection.bodies == [b"x" * 20000, b""]

    test()


@pytest.mark.parametrize("many", [1, 20])
def test_reads_of_crumbs_are_parsed_in_many_turns_of_the_loop(many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many connections send them: the first part of a read at once, and then one part in each turn."""
    monkeypatch.setattr(turns, "BUDGET", 0.0)
    size, slice_ = 10000, SLICE // len(CRUMB) + 1

    @played
    async def test() -> None:
        line = turns.Turns()
        connections = [Connection(turns=line) for _ in range(many)]
        for each in connections:
            await each.receive(b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for each in connections:
            each.protocol.data_received(CRUMB * size)
        parsed = [[each.protocol._body for each in connections]]
        while sum(parsed[-1]) < many * size:
            await asyncio.sleep(0)
            parsed.append([each.protocol._body for each in connections])
        assert max(parsed[0]) <= slice_
        assert max(sum(after) - sum(before) for before, after in itertools.pairwise(parsed)) <= slice_
        halfway = parsed[len(parsed) // 2]
        assert max(halfway) - min(halfway) <= slice_, "they have the same share"

    test()


@pytest.mark.parametrize("read", [0, 5000])
@pytest.mark.parametrize("one", [GET, POST_ONE, b"\r\n" + GET, POST_CHUNKED])
def test_of_requests_that_come_without_end_few_are_read_ahead(one: bytes, read: int) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        connection.gate.clear()
        await connection.receive(one * 3000, read)
        assert len(connection.protocol.pipeline) <= MAX_PIPELINED + SLICE // len(one)
        connection.gate.set()
        for _ in range(3000):
            if len(connection.bodies) == 3000:
                break
            await settle()
        assert connection.statuses == [200] * 3000, "all of them are answered, one after the other"

    test()


class OneByOne:
    """A gate that lets one answer out for each `go`."""

    def __init__(self) -> None:
        self._left = asyncio.Semaphore(0)
        self.wait, self.go = self._left.acquire, self._left.release


async def fed(connection: Connection, data: bytes, size: int) -> int:
    """Have the client send while the connection reads, `size` bytes after each answer. Return how many it took."""
    gate: Any = OneByOne()
    connection.gate = gate
    taken = 0
    connection.protocol.data_received(GET)
    for _ in range(200):
        await settle()
        while not connection.protocol.flow.read_paused and taken < len(data):
            connection.protocol.data_received(data[taken : taken + size])
            taken += size
        gate.go()
    return taken


@pytest.mark.parametrize("one", [GET, POST_ONE])
def test_who_sends_a_little_after_each_answer_is_not_read_ahead_any_further(one: bytes) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        await fed(connection, one * 20000, SLICE)
        assert len(connection.protocol.pipeline) <= MAX_PIPELINED + SLICE // len(one)

    test()


LARGE_HEAD = b"GET /x HTTP/1.1\r\nhost: localhost\r\n" + b"x: %b\r\n" % (b"y" * 8000) * 7 + b"\r\n"
LARGE_BODY = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n" + b"x" * 60000


@pytest.mark.parametrize("size", [SLICE, 60000, 256 << 10])
@pytest.mark.parametrize("one", [LARGE_HEAD, LARGE_BODY])
def test_what_is_read_ahead_of_a_connection_is_bounded_in_bytes(one: bytes, size: int) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        connection.gate.clear()
        await connection.receive(GET)
        sent = one * 40
        for start in range(0, len(sent), size):
            if connection.protocol.flow.read_paused:
                break
            await connection.receive(sent[start : start + size])
        waiting = [cycle for cycle, _ in connection.protocol.pipeline]
        heads = sum(len(name) + len(value) for cycle in waiting for name, value in cycle.scope["headers"])
        held = heads + sum(len(cycle.body) for cycle in waiting)
        assert 0 < held <= AHEAD + len(one) and connection.protocol.flow.read_paused
        connection.gate.set()
        rest = sent[start:] if start + size < len(sent) else b""
        for start in range(0, len(rest), size):
            await connection.receive(rest[start : start + size])
        for _ in range(100):
            await settle()
        assert connection.statuses == [200] * 41, "all of them are answered, one after the other"

    test()


@played
async def test_a_length_with_zeros_before_it_is_read_however_many_they_are() -> None:
    connection = Connection()
    await connection.receive(POST_ONE.replace(b"1\r\n\r\nx", b"0" * 5000 + b"1\r\n\r\nx") + GET)
    assert connection.bodies == [b"x", b""]


@given(st.integers(1, 150), st.integers(1, 150))
def test_a_websocket_begins_however_its_head_is_cut(first: int, second: int) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        upgraded: list[bool] = []
        connection.protocol.handle_websocket_upgrade = lambda: upgraded.append(True)
        head = b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-more: 12345678\r\n\r\n"
        cuts = sorted({0, max(4, min(first, len(head))), max(4, min(second, len(head))), len(head)})
        for start, end in itertools.pairwise(cuts):
            connection.protocol.data_received(head[start:end])
        assert upgraded == [True]

    test()


UPGRADE = b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"


@pytest.mark.parametrize("length", [b"content-length: 30", b"content-length: 1", b"transfer-encoding: chunked"])
@pytest.mark.parametrize("before", [b"", GET])
def test_a_websocket_with_a_body_is_refused_at_its_head(before: bytes, length: bytes) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        connection.protocol.handle_websocket_upgrade = pytest.fail
        await connection.receive(before)
        await connection.receive(UPGRADE + length + b"\r\n\r\n")
        assert connection.statuses == [200] * bool(before) + [400] and connection.transport.closed

    test()


@pytest.mark.parametrize("length", [b"", b"content-length: 0\r\n", b"content-length: 000\r\n"])
def test_a_websocket_without_one_begins_and_no_timer_of_requests_ends_it(length: bytes) -> None:
    @played
    async def test() -> None:
        connection, upgraded = Connection(), []
        connection.protocol.handle_websocket_upgrade = lambda: upgraded.append(True)
        await connection.receive(GET)
        await connection.receive(UPGRADE)
        await connection.receive(length + b"\r\n")
        assert upgraded == [True]
        await asyncio.sleep(HEAD_TIMEOUT + 2 * KEEP_ALIVE)
        assert not connection.transport.closed and not connection.timers()

    test()


@played
async def test_a_websocket_behind_an_unanswered_request_is_refused_behind_its_answer() -> None:
    connection = Connection()
    connection.gate.clear()
    upgrade = b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    await connection.receive(GET + upgrade)
    assert connection.statuses == []
    connection.gate.set()
    await settle()
    assert connection.statuses == [200, 400] and connection.transport.closed


@given(
    st.lists(st.tuples(st.sampled_from(["length", "chunked"]), st.binary(max_size=60)), min_size=1, max_size=40),
    st.sampled_from([1, 7, 50, SLICE]),
    st.data(),
)
def test_pipelined_requests_cut_anywhere_reach_the_app_one_by_one_in_order(
    requests: list[tuple[str, bytes]], slices: int, data: st.DataObject
) -> None:
    wire = b""
    for kind, body in requests:
        wire += b"POST /x HTTP/1.1\r\nhost: x\r\n"
        if kind == "length":
            wire += b"content-length: %d\r\n\r\n%b" % (len(body), body)
        else:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            wire += b"transfer-encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))

    @played
    async def test() -> None:
        connection = Connection()
        with mock.patch.object(protocol, "SLICE", slices):
            for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
                if end > start:
                    connection.protocol.data_received(wire[start:end])
            for _ in range(len(requests)):
                await settle()
        assert connection.bodies == [body for _, body in requests]
        assert len(connection.scopes) == len(requests)
        assert connection.transport.out.count(b"HTTP/1.1 200") == len(requests)

    test()


# ── wishes for another protocol ──────────────────────────────────────────────────────────────────────────────────────

WISHES = [
    b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n",
    b"Connection: upgrade\r\nUPGRADE: websocket\r\n",
    b"upgrade: h2c\r\n",
    b"connection: keep-alive\r\n",
]
BODIES = [
    b"\nupgrade: 1\nupgrade: 2\n\r\nUpgrade: websocket\r\n\r\n" + GET,
    b"\nupgrade:",
    GET.replace(b"host", b"connection: upgrade\r\nupgrade: h2c\r\nhost"),
    b"",
]


def wished(wish: bytes, body: bytes, is_chunked: bool) -> bytes:
    head = b"POST /x HTTP/1.1\r\nhost: x\r\n" + wish
    if is_chunked:
        half = len(body) // 2
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part)
        return b"%btransfer-encoding: chunked\r\n\r\n%b0\r\nupgrade: h2c\r\n\r\n" % (head, chunks)
    return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("wish", WISHES, ids=["h2c", "websocket", "half", "none"])
@pytest.mark.parametrize("body", BODIES, ids=["lines", "half a line", "request", "none"])
def test_a_body_with_words_of_a_head_is_the_body_wherever_the_reads_are_cut(
    wish: bytes, body: bytes, is_chunked: bool
) -> None:
    wire = wished(wish, body, is_chunked)
    ways = [[cut] for cut in range(1, len(wire) + len(GET))] + [list(range(size, 999, size)) for size in (1, 2, 3, 50)]

    @played
    async def test() -> None:
        for cuts in ways:
            connection = Connection()
            data = wire + GET
            for start, end in itertools.pairwise(sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})):
                connection.protocol.data_received(data[start:end])
            await settle()
            assert connection.bodies == [body, b""], cuts
            assert connection.statuses == [200, 200] and not connection.transport.closed

    test()


@given(
    st.lists(
        st.tuples(st.sampled_from(WISHES), st.sampled_from(BODIES) | st.binary(max_size=60), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from([1, 7, SLICE]),
    st.data(),
)
def test_pipelined_wishes_cut_anywhere_are_requests_in_order(
    requests: list[tuple[bytes, bytes, bool]], slices: int, data: st.DataObject
) -> None:
    wire = b"".join(wished(*request) for request in requests)
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=6))

    @played
    async def test() -> None:
        connection = Connection()
        with mock.patch.object(protocol, "SLICE", slices):
            for start, end in itertools.pairwise(sorted({0, len(wire), *cuts})):
                connection.protocol.data_received(wire[start:end])
            for _ in range(len(requests)):
                await settle()
        assert connection.bodies == [body for _, body, _ in requests]

    test()


@played
async def test_behind_a_wish_that_ends_its_connection_nothing_is_run() -> None:
    connection = Connection()
    connection.gate.clear()
    await connection.receive(wished(b"connection: upgrade, close\r\nupgrade: h2c\r\n", b"hello", False) + GET)
    connection.gate.set()
    await settle()
    assert connection.bodies == [b"hello"]


@played
async def test_a_body_behind_a_wish_that_does_not_come_is_never_taken_for_whole() -> None:
    connection = Connection()
    await connection.receive(wished(WISHES[0], b"hello", False)[:-1])
    assert len(connection.scopes) == 1 and not connection.bodies and not connection.transport.out


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("start", [b"", b"GET", b"GET /x HTTP/1.1\r\nhost: x\r\nx:", b"\r\n"])
def test_a_head_that_does_not_come_closes_the_connection(start: bytes) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        await connection.receive(start)
        await asyncio.sleep(HEAD_TIMEOUT - 0.1)
        assert not connection.transport.closed
        await asyncio.sleep(0.2)
        assert connection.transport.closed and connection.transport.out == b""

    test()


@played
async def test_trickling_a_head_gains_no_time() -> None:
    connection = Connection()
    for byte in b"GET /x HTTP/1.1\r\nhost: x\r\n":
        if connection.transport.closed:
            break
        await connection.receive(bytes([byte]))
        await asyncio.sleep(0.9)
    assert connection.transport.closed


@pytest.mark.parametrize("start", [b"GE", b"\r\n", b"\r\n\r\n"])
def test_half_a_head_after_an_answer_has_the_same_deadline(start: bytes) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        await connection.receive(GET)
        await asyncio.sleep(5)
        await connection.receive(start)
        await asyncio.sleep(HEAD_TIMEOUT - 0.1)
        assert not connection.transport.closed
        await asyncio.sleep(0.2)
        assert connection.transport.closed and connection.statuses == [200]

    test()


@played
async def test_a_long_answer_outlives_every_deadline_of_the_head() -> None:
    connection = Connection()
    connection.gate.clear()
    await connection.receive(GET)
    await connection.receive(b"GET /next HTTP/1.1\r\nho")
    await asyncio.sleep(10 * HEAD_TIMEOUT)
    assert not connection.transport.closed
    connection.gate.set()
    await settle()
    assert connection.statuses == [200]
    await asyncio.sleep(2 * HEAD_TIMEOUT)
    assert connection.transport.closed, "the half head behind it has its deadline, once the answer is out"


EARLY = b"POST /early HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"


@played
async def test_the_rest_of_a_body_whose_request_was_answered_has_a_deadline() -> None:
    connection = Connection(body_timeout=20.0)
    await connection.receive(EARLY)
    assert connection.statuses == [200]
    for _ in range(19):
        await asyncio.sleep(1)
        await connection.receive(b"x")
        assert not connection.transport.closed
    await asyncio.sleep(1.1)
    assert connection.transport.closed, "it trickled on"


@played
async def test_a_body_that_comes_in_time_behind_its_answer_leaves_the_connection_in_use() -> None:
    connection = Connection(body_timeout=5.0)
    await connection.receive(EARLY)
    await asyncio.sleep(1)
    await connection.receive(b"x" * 1000)
    await asyncio.sleep(8)
    await connection.receive(GET)
    assert connection.statuses == [200, 200] and not connection.transport.closed


@played
async def test_an_idle_connection_is_closed_after_keep_alive_and_not_before() -> None:
    connection = Connection()
    await connection.receive(GET)
    await asyncio.sleep(KEEP_ALIVE - 1)
    assert not connection.transport.closed
    await asyncio.sleep(2)
    assert connection.transport.closed


@played
async def test_each_request_starts_the_idle_time_anew() -> None:
    connection = Connection()
    for _ in range(5):
        await connection.receive(GET)
        await asyncio.sleep(KEEP_ALIVE - 5)
        assert not connection.transport.closed
    assert connection.statuses == [200] * 5
    await asyncio.sleep(6)
    assert connection.transport.closed


@played
async def test_a_running_request_is_not_idle() -> None:
    connection = Connection()
    await connection.receive(GET)
    connection.gate.clear()
    await connection.receive(GET)
    await asyncio.sleep(5 * KEEP_ALIVE)
    assert not connection.transport.closed
    connection.gate.set()
    await settle()
    assert connection.statuses == [200, 200]


@pytest.mark.parametrize("start", [b"", b"GE", GET, GET + b"GE"])
def test_no_timer_outlives_its_connection(start: bytes) -> None:
    @played
    async def test() -> None:
        connection = Connection()
        await connection.receive(start)
        assert connection.timers()
        connection.protocol.connection_lost(None)
        assert not connection.timers()

    test()


# ── the client's leaving ─────────────────────────────────────────────────────────────────────────────────────────────


@played
async def test_whoever_watches_is_told_once_when_the_client_leaves() -> None:
    connection = Connection()
    told: list[str] = []
    connection.gate.clear()
    await connection.receive(GET)
    assert connection.scopes[0]["gateway.connection"] is connection.protocol
    connection.protocol.left = lambda: told.append("left")
    connection.protocol.connection_lost(None)
    connection.protocol.connection_lost(None) if connection.protocol.left else None
    assert told == ["left"] and connection.protocol.left is None
    connection.gate.set()
    await settle()


# ── requests without a task ──────────────────────────────────────────────────────────────────────────────────────────


class Begun:
    """A `begin` that takes what it is offered, or does not."""

    def __init__(self, takes: bool) -> None:
        self.takes = takes
        self.cycles: list[RequestResponseCycle] = []

    def __call__(self, scope: Any, cycle: RequestResponseCycle) -> bool:
        self.cycles.append(cycle)
        return self.takes


POST = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"


@pytest.mark.parametrize("takes", [True, False])
def test_a_request_whose_body_is_at_hand_is_offered_before_a_task_is_made(takes: bool) -> None:
    @played
    async def test() -> None:
        begin = Begun(takes)
        connection = Connection(begin=staticmethod(begin))
        await connection.receive(POST)
        [cycle] = begin.cycles
        assert connection.bodies == ([] if takes else [b"hello"])
        if takes:
            assert bytes(cycle.body) == b"hello" and not cycle.more_body
            write_whole(cycle, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", b"ok")
            assert connection.transport.out == b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
            await connection.receive(POST)
            assert len(begin.cycles) == 2, "the connection goes on"

    test()


@played
async def test_a_body_that_is_still_coming_is_left_to_a_task() -> None:
    begin = Begun(True)
    connection = Connection(begin=staticmethod(begin))
    await connection.receive(POST[:-1])
    await connection.receive(POST[-1:])
    assert not begin.cycles and connection.bodies == [b"hello"]


@played
async def test_pipelined_requests_wait_for_the_one_that_was_taken() -> None:
    begin = Begun(True)
    connection = Connection(begin=staticmethod(begin))
    await connection.receive(POST + POST.replace(b"hello", b"again"))
    assert len(begin.cycles) == 1 and not connection.bodies
    write_whole(begin.cycles[0], b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n", b"")
    await settle()
    assert connection.bodies == [b"again"] and connection.statuses == [200, 200]


@played
async def test_a_whole_answer_says_close_where_the_connection_ends() -> None:
    begin = Begun(True)
    connection = Connection(begin=staticmethod(begin))
    await connection.receive(POST.replace(b"host: x", b"host: x\r\nconnection: close"))
    write_whole(begin.cycles[0], b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n", b"")
    assert b"connection: close\r\n\r\n" in connection.transport.out and connection.transport.closed


@played
async def test_an_answer_that_breaks_off_ends_a_moment_after_its_client_has_what_was_written() -> None:
    """A page in a browser that learns of the last bytes and of the end at once is not given those bytes."""
    connection = Connection()
    connection.gate.clear()
    await connection.receive(POST_ONE)
    connection.transport.waiting = 1
    connection.protocol.break_off(connection.protocol.cycle)
    await asyncio.sleep(PARTING * 10)
    assert not connection.transport.closed
    connection.transport.waiting = 0
    await asyncio.sleep(PARTING * 1.5)
    assert connection.transport.closed and not connection.transport.aborted
    connection.gate.set()
    await settle()
    assert connection.transport.out == b""


@played
async def test_an_answer_to_a_client_that_has_left_goes_nowhere() -> None:
    begin = Begun(True)
    connection = Connection(begin=staticmethod(begin))
    await connection.receive(POST)
    connection.protocol.connection_lost(None)
    write_whole(begin.cycles[0], b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n", b"")
    assert connection.transport.out == b""


# ── bodies that are read as a whole ──────────────────────────────────────────────────────────────────────────────────


class Reading(Connection):
    """An app that reads each body with `BodyReader`, of at most `limit` bytes. `wakes` counts what woke it."""

    def __init__(self, limit: int = 1 << 30, **times: float) -> None:
        super().__init__()
        self.limit, self.reader, self.wakes = limit, BodyReader(**times), 0
        self.failed: Exception | None = None

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted() -> Any:
            message = await receive()
            self.wakes += 1
            return message

        cycle, length = cycle_of(send), dict(scope["headers"]).get(b"content-length")
        try:
            self.bodies.append(await self.reader.read(counted, length, self.limit, cycle, self.protocol))
        except Exception as error:
            self.failed = error
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def in_chunks(parts: list[bytes]) -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@given(st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=20), st.integers(1, 5000), st.booleans())
def test_however_bodies_come_each_reader_gets_its_own_whole(parts: list[bytes], size: int, chunked: bool) -> None:
    body = b"".join(parts)
    plain = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    @played
    async def test() -> None:
        connection, data = Reading(), (in_chunks(parts) if chunked else plain) + POST_ONE
        for start in range(0, len(data), size):  # the end of one and the next may come in one read
            connection.protocol.data_received(data[start : start + size])
            await asyncio.sleep(0)
        await settle()
        assert connection.bodies == [body, b"x"] and connection.statuses == [200, 200]
        assert connection.protocol.collected is None

    test()


def test_the_reader_of_a_large_body_is_woken_a_few_times_and_others_get_their_turn() -> None:
    """Each read here is as large as the largest of a socket."""

    @played
    async def test() -> None:
        connection, size = Reading(), 4 << 20
        pauses, transport = [0], connection.transport
        transport.pause_reading = lambda: pauses.append(pauses[-1] + 1)  # type: ignore[method-assign]
        await connection.receive(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        for _ in range(size >> 18):
            connection.protocol.data_received(bytes(1 << 18))
            await asyncio.sleep(0)
        await settle()
        assert [len(body) for body in connection.bodies] == [size]
        assert connection.wakes <= 2
        assert 0 < pauses[-1] <= size >> 19

    test()


def test_a_body_over_the_limit_is_refused_while_it_comes() -> None:
    @played
    async def test() -> None:
        connection = Reading(limit=100_000)
        data = in_chunks([bytes(1000)] * 1000)[:-7]
        await connection.receive(data[:2000])
        await connection.receive(data[2000:], 10_000)
        assert isinstance(connection.failed, TooLarge)
        assert not connection.bodies and connection.protocol.collected is None

    test()


def test_a_body_in_too_many_tiny_reads_is_refused_while_it_comes() -> None:
    @played
    async def test() -> None:
        connection = Reading()
        head, end, _ = POST_CHUNKED.partition(b"\r\n\r\n")
        await connection.receive(head + end)
        for _ in range(MAX_READS + 2):
            if connection.failed is None:
                connection.protocol.data_received(b"1\r\nx\r\n")
                await asyncio.sleep(0)
        assert isinstance(connection.failed, BadRequest)

    test()


@pytest.mark.parametrize(("pause", "is_slow"), [(14.0, False), (16.0, True)])
def test_a_body_that_stands_still_is_too_slow_and_one_that_goes_on_is_not(pause: float, is_slow: bool) -> None:
    @played
    async def test() -> None:
        connection = Reading(idle_timeout=15.0, total_timeout=60.0)
        await connection.receive(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\ny")
        for _ in range(3):
            await asyncio.sleep(pause)
            if not connection.transport.closed:
                await connection.receive(b"y")
        assert getattr(connection.failed, "cause", None) == ("body_idle_timeout" if is_slow else None)
        assert connection.bodies == ([] if is_slow else [b"yyyy"])

    test()


def test_a_client_that_leaves_within_its_body_is_noticed() -> None:
    @played
    async def test() -> None:
        connection = Reading()
        await connection.receive(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nyy")
        await connection.receive(b"y")
        connection.protocol.connection_lost(None)
        await settle()
        assert isinstance(connection.failed, ClientLeft)

    test()


# ── what this leans on ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_internals_of_uvicorn_are_as_we_know_them() -> None:
    for name in (
        "connection_made connection_lost data_received on_message_begin on_url on_header on_headers_complete "
        "on_body on_message_complete on_response_complete send_400_response _start_asgi_task "
        "_unset_keepalive_if_required"
    ).split():
        assert name in vars(HttpToolsProtocol), name
    assert cycle_of(None) is None and cycle_of(print) is None
    assert uvicorn.__version__.startswith("0.54.")


HEADS = [
    b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n",
    b"GET /x HTTP/1.0\r\n\r\n",
    b"GET /x HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    b"HEAD /a%20b/%2Fc?q=%20&r HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    b"OPTIONS /x? HTTP/1.1\r\nhost: a\r\n\r\n",
    b"POST /x HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n",
    b"POST /x#y HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n",
]


@pytest.mark.parametrize("head", HEADS)
def test_a_request_begins_as_uvicorn_would_begin_it(head: bytes) -> None:
    @played
    async def test() -> None:
        ours, theirs = Connection(), Connection(HttpToolsProtocol)
        for connection in (ours, theirs):
            connection.gate.clear()
            connection.protocol.parser.feed_data(head)
        found, expected = ours.protocol.cycle, theirs.protocol.cycle
        assert found.scope.pop("gateway.connection") is ours.protocol
        assert found.scope == expected.scope
        assert vars(found).keys() == vars(expected).keys()
        for field in ("keep_alive", "waiting_for_100_continue", "more_body", "access_log", "default_headers", "body"):
            assert getattr(found, field) == getattr(expected, field), field
        for field in ("transport", "flow", "logger", "access_logger"):
            assert getattr(found, field) is getattr(ours.protocol, field), field
        assert found.on_response == ours.protocol.on_response_complete
        ours.protocol.connection_lost(None)
        theirs.protocol.connection_lost(None)

    test()
