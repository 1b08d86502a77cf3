"""Frames in, frames out, however the bytes are cut; a broken peer is one error, a lost one wakes everybody."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from fakes import PATIENT
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.wire import frames as wire
from gateway.wire.channel import READ_BUFFER, WRITE_HIGH, Channel
from gateway.wire.frames import CANCEL, CREDIT, END, ERROR, HEADER, ITEMS, MAX_FRAME, MEMFD, MORE, REQ, RESP
from gateway.wire.values import WireError

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return "asyncio", {"use_uvloop": request.param}


class Transport:
    """Takes what is written; closes when it is aborted."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed, self.reading = False, True

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def writelines(self, parts: Any) -> None:
        for part in parts:
            self.write(part)


class Looped(Channel):
    """The next turn of its loop comes at once."""

    def _end_turn(self, spent: float) -> None:
        self.transport.pause_reading()


class Side:
    """One side without a loop: what it got, and how it ended."""

    def __init__(self, max_pending: int = wire.MAX_PAYLOAD) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        self.errors: list[Exception | None] = []
        self.transport = Transport()
        self.channel = Looped(self.on_frame, self.errors.append, max_pending)
        self.channel.connection_made(self.transport)  # type: ignore[arg-type]

    def on_frame(self, kind: int, call: int, payload: memoryview) -> None:
        self.frames.append((kind, call, bytes(payload)))

    def feed(self, data: bytes) -> None:
        """As a loop does: into the buffer that the channel offers, as much as it takes."""
        view = memoryview(data)
        while len(view) and not self.transport.closed:
            buffer = self.channel.get_buffer(len(view))
            assert len(buffer) > 0
            n = min(len(buffer), len(view))
            buffer[:n] = view[:n]
            self.channel.buffer_updated(n)
            while not self.transport.reading:
                self.channel._go_on()
            view = view[n:]

    def lose(self, error: Exception | None = None) -> None:
        self.channel.connection_lost(error)


def written(frames: list[tuple[int, int, bytes]]) -> bytes:
    side = Side()
    for kind, call, payload in frames:
        side.channel.send_split(kind, call, payload)
    return side.transport.sent


def fragments(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:stop] for start, stop in pairwise(edges)]


kinds = st.integers(1, len(wire.NAMES) - 1)
small = st.binary(max_size=300)
large = st.builds(lambda n, byte: bytes([byte]) * n, st.integers(0, 3 * MAX_FRAME), st.integers(0, 255))
frame_lists = st.lists(st.tuples(kinds, st.integers(0, 2**32 - 1), small | large), max_size=8)


@settings(PATIENT, max_examples=60)
@given(frame_lists, st.lists(st.integers(0, 2**31), max_size=12))
def test_any_frames_through_any_fragmentation_are_the_same_frames(
    frames: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    side = Side()
    for part in fragments(written(frames), cuts):
        side.feed(part)
    assert side.frames == frames
    assert not side.transport.closed


@settings(PATIENT)
@given(st.lists(st.tuples(kinds, st.integers(0, 2**32 - 1), st.binary(max_size=20)), max_size=10))
def test_frames_that_come_byte_by_byte_are_the_same_frames(frames: list[tuple[int, int, bytes]]) -> None:
    side = Side()
    for byte in written(frames):
        side.feed(bytes((byte,)))
    assert side.frames == frames


@settings(PATIENT, max_examples=30)
@given(st.lists(st.integers(1, 5 * MAX_FRAME // 2), min_size=2, max_size=5), st.integers(0, 2**32))
def test_split_payloads_of_several_calls_may_interleave(sizes: list[int], seed: int) -> None:
    chance = random.Random(seed)
    payloads = {call: chance.randbytes(size) for call, size in enumerate(sizes, 1)}
    queues = []
    for call, payload in payloads.items():
        parts = [payload[start : start + MAX_FRAME] for start in range(0, len(payload), MAX_FRAME)]
        flags = [REQ | MORE] * (len(parts) - 1) + [REQ]
        queues.append([HEADER.pack(len(p), f, call) + p for f, p in zip(flags, parts, strict=True)])
    side = Side()
    while queues:
        queue = chance.choice(queues)
        side.feed(queue.pop(0))
        if not queue:
            queues.remove(queue)
    assert {call: payload for _, call, payload in side.frames} == payloads
    assert side.channel.pending == 0


@settings(PATIENT, max_examples=200)
@given(st.binary(max_size=2000), st.lists(st.integers(0, 2**31), max_size=5))
def test_random_bytes_are_frames_or_one_error_in_bounded_memory(data: bytes, cuts: list[int]) -> None:
    side = Side(max_pending=1000)
    for part in fragments(data, cuts):
        side.feed(part)
    side.lose()
    assert len(side.errors) == 1
    assert side.errors[0] is None or isinstance(side.errors[0], WireError)
    assert side.channel.pending <= 1000 + MAX_FRAME
    assert len(side.channel._buffer) == READ_BUFFER


def test_a_frame_over_the_limit_ends_the_channel_before_its_bytes_are_read() -> None:
    side = Side()
    side.feed(HEADER.pack(MAX_FRAME + 1, ITEMS, 1))
    side.feed(b"x" * 100_000)
    side.lose()
    assert side.frames == []
    assert isinstance(side.errors[0], WireError)
    assert str(MAX_FRAME + 1) in str(side.errors[0])


def test_a_frame_of_exactly_the_limit_passes() -> None:
    side = Side()
    side.feed(HEADER.pack(MAX_FRAME, ITEMS, 1) + b"x" * MAX_FRAME)
    assert len(side.frames[0][2]) == MAX_FRAME


def test_a_truncated_frame_is_a_loss_without_a_frame() -> None:
    side = Side()
    side.feed(HEADER.pack(10, ITEMS, 1) + b"123")
    side.lose()
    assert side.frames == []
    assert side.errors == [None]


def test_split_payloads_that_never_end_are_refused_at_the_bound() -> None:
    side = Side(max_pending=3 * MAX_FRAME)
    for call in range(1, 100):
        side.feed(HEADER.pack(MAX_FRAME, RESP | MORE, call) + b"x" * MAX_FRAME)
    side.lose()
    assert isinstance(side.errors[0], WireError)
    assert side.channel._parts == {}  # and their memory is free at once


def test_another_kind_inside_a_split_payload_is_refused() -> None:
    side = Side()
    side.feed(HEADER.pack(3, RESP | MORE, 1) + b"abc" + HEADER.pack(3, ITEMS, 1) + b"abc")
    side.lose()
    assert isinstance(side.errors[0], WireError)
    assert "items frame inside a split resp" in str(side.errors[0])


@pytest.mark.parametrize("kind", [CANCEL, END, ERROR])
def test_a_sender_may_give_up_in_the_middle_of_a_split_payload(kind: int) -> None:
    side = Side()
    side.feed(HEADER.pack(3, REQ | MORE, 1) + b"abc" + HEADER.pack(1, kind, 1) + b"!")
    side.feed(HEADER.pack(2, CREDIT, 1) + b"ok")  # the next payload of this id is whole again
    assert side.frames == [(kind, 1, b"!"), (CREDIT, 1, b"ok")]
    assert side.channel.pending == 0


def test_a_long_error_may_be_split_too_inside_another_payload() -> None:
    side = Side()
    side.feed(HEADER.pack(3, RESP | MORE, 1) + b"abc")
    side.feed(HEADER.pack(3, ERROR | MORE, 1) + b"so " + HEADER.pack(4, ERROR, 1) + b"long")
    assert side.frames == [(ERROR, 1, b"so long")]


def test_memfd_payloads_are_refused_while_they_are_reserved() -> None:
    side = Side()
    side.feed(HEADER.pack(0, REQ | MEMFD, 1))
    side.lose()
    assert isinstance(side.errors[0], WireError)


def test_an_unknown_kind_inside_a_split_payload_is_a_wire_error() -> None:
    side = Side()
    side.feed(HEADER.pack(1, RESP | MORE, 1) + b"a" + HEADER.pack(1, 50 | MORE, 1) + b"a")
    side.lose()
    assert isinstance(side.errors[0], WireError)


def test_an_exception_of_the_reader_ends_the_channel_and_nothing_more_is_read() -> None:
    error = ValueError("cannot")
    seen = []

    def on_frame(kind: int, call: int, payload: memoryview) -> None:
        seen.append(call)
        raise error

    side = Side()
    side.channel = Channel(on_frame, side.errors.append)
    side.channel.connection_made(side.transport)  # type: ignore[arg-type]
    side.feed(written([(ITEMS, 1, b""), (ITEMS, 2, b"")]))
    side.lose(ConnectionResetError())
    assert seen == [1]
    assert side.errors == [error]
    assert side.transport.closed


def test_a_closed_channel_refuses_to_send() -> None:
    side = Side()
    side.transport.abort()
    with pytest.raises(ConnectionError):
        side.channel.send(REQ, 1, b"")
    with pytest.raises(ConnectionError):
        side.channel.send_split(REQ, 1, b"x" * (MAX_FRAME + 1))


# ── over a real socketpair ───────────────────────────────────────────────────────────────────────────────────────────


class Peer:
    def __init__(self) -> None:
        self.frames: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.channel = Channel(self.on_frame, self.lost.set_result)

    def on_frame(self, kind: int, call: int, payload: memoryview) -> None:
        self.frames.put_nowait((kind, call, bytes(payload)))


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Peer, Peer]]:
    loop = asyncio.get_running_loop()
    peers = Peer(), Peer()
    for peer, sock in zip(peers, socket.socketpair(), strict=True):
        await loop.create_connection(lambda peer=peer: peer.channel, sock=sock)  # type: ignore[misc]
    try:
        yield peers
    finally:
        for peer in peers:
            peer.channel.transport.abort()
        await asyncio.gather(*(peer.lost for peer in peers))


async def until_blocked(channel: Channel) -> None:
    """Write until the peer, which does not read, has made the channel refuse more."""
    while channel.transport.get_write_buffer_size() <= WRITE_HIGH:
        channel.send(ITEMS, 1, b"x" * MAX_FRAME)
        await asyncio.sleep(0)


async def test_large_payloads_arrive_whole_both_ways_with_small_frames_in_between() -> None:
    payload = random.Random(1).randbytes(5_000_000)
    async with pair() as (one, two):

        async def exchange(here: Peer, there: Peer) -> None:
            sending = asyncio.create_task(here.channel.send_large(REQ, 1, payload))
            early = 0
            here.channel.send(CREDIT, 2, b"")
            while True:
                kind, call, data = await there.frames.get()
                if call == 1:
                    assert (kind, data) == (REQ, payload)
                    break
                early += 1
                if early < 20:
                    here.channel.send(CREDIT, 2, b"")
            assert await sending
            assert early > 0  # the small ones did not have to wait for the large one

        await asyncio.gather(exchange(one, two), exchange(two, one))


async def test_a_large_payload_that_is_no_longer_wanted_stops_and_the_channel_goes_on() -> None:
    payload = b"x" * 20_000_000
    async with pair() as (one, two):
        is_wanted = True
        two.channel.transport.pause_reading()
        sending = asyncio.create_task(one.channel.send_large(REQ, 1, payload, lambda: is_wanted))
        await asyncio.sleep(0)
        is_wanted = False
        one.channel.send(CANCEL, 1)
        two.channel.transport.resume_reading()
        assert await sending is False
        one.channel.send(CREDIT, 1, b"next")
        assert await two.frames.get() == (CANCEL, 1, b"")
        assert await two.frames.get() == (CREDIT, 1, b"next")


async def test_writers_are_woken_when_the_peer_is_lost() -> None:
    async with pair() as (one, two):
        two.channel.transport.pause_reading()
        await until_blocked(one.channel)
        writers = [asyncio.create_task(one.channel.drain()) for _ in range(3)]
        writers.append(asyncio.create_task(one.channel.send_large(REQ, 5, b"x")))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        two.channel.transport.abort()
        results = await asyncio.gather(*writers, return_exceptions=True)
        assert [type(result) for result in results] == [ConnectionError] * 4


async def test_the_cancel_of_one_waiting_writer_leaves_the_others_waiting() -> None:
    async with pair() as (one, two):
        two.channel.transport.pause_reading()
        await until_blocked(one.channel)
        first, second = (asyncio.create_task(one.channel.drain()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        assert not second.done()
        two.channel.transport.resume_reading()
        await second


async def test_the_end_of_one_side_is_told_to_the_other_once() -> None:
    async with pair() as (one, two):
        one.channel.transport.close()
        assert await two.lost is None


async def test_a_frame_that_breaks_the_rules_ends_only_its_channel_with_that_error() -> None:
    async with pair() as (one, two), pair() as (three, four):
        one.channel.transport.write(HEADER.pack(MAX_FRAME + 1, ITEMS, 1))
        assert isinstance(await two.lost, WireError)
        three.channel.send(ITEMS, 1, b"fine")
        assert await four.frames.get() == (ITEMS, 1, b"fine")
