"""Whatever a worker writes: frames of an honest one do what they say, all others end that worker and cost little.

No process is started: the bytes go into the channel of a replica, as they would come from a socket.
"""

from __future__ import annotations

import asyncio
import gc
import struct
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from fakes import PATIENT, chat, predict
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import Crashed, InvalidOutput, Overloaded
from gateway.runners import batches, in_flight
from gateway.runners.call import Call
from gateway.runners.process import ProcessReplica
from gateway.runners.question import Question, about_health, about_new_code
from gateway.runners.replica import Launch, LoadError
from gateway.settings.kinds import LARGEST_BATCH
from gateway.spec import Batching, Capabilities, Limits, MethodInfo, ModelSpec
from gateway.telemetry.model_output import MAX_LINE, MOST
from gateway.wire import channel, plain, weighing
from gateway.wire import frames as wire
from gateway.wire.channel import OF_A_SPLIT, TURN, Room
from gateway.wire.frames import HEADER, MAX_FRAME, MORE, WINDOW_BYTES, WINDOW_ITEMS, Failure, Req, Resp
from gateway.wire.values import ARRAY_EXT, STRUCTURED_EXT, Array, Structured, WireError, check_weight, decode, encode

PLAIN, STREAM, CHUNKS, SOCKET, HEALTH, NEW_CODE, UNKNOWN = 1, 2, 3, 4, 5, 6, 11  # ids of calls and questions


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The CPU time that frames have taken: none, where a test does not say so."""
    times = [1.0]
    monkeypatch.setattr(channel, "clock", lambda: times[0])
    return times


class Transport:
    """Takes what is written, and closes when it is aborted."""

    def __init__(self) -> None:
        self.closed = False
        self.reading = True
        self.kinds: list[int] = []  # of what was sent in one frame

    def set_write_buffer_limits(self, high: int) -> None: ...

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def write(self, data: bytes) -> None:
        self.kinds.append(HEADER.unpack_from(data)[1])

    def writelines(self, data: Any) -> None: ...

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Fed:
    """A replica that is ready, with a call and a question of each kind, and the door where a worker's bytes come in."""

    def __init__(
        self,
        ready: bool = True,
        sandbox: Literal["basic", "strict"] = "basic",
        room: Room | None = None,
        debug: bool = False,
        batch_size: int | None = 8,
        slots: int = 8,
    ) -> None:
        spec = ModelSpec(
            name="m",
            target="model:Model",
            root=Path("/nowhere"),
            sandbox=sandbox,
            batching=Batching(size=batch_size),
            limits=Limits(slots=slots),
        )
        self.described: list[Capabilities] = []
        launch = Launch(spec=spec, index=0, on_described=self.described.append, room=room or Room(), debug=debug)
        self.replica = ProcessReplica(launch)
        self.errors: list[Exception | None] = []
        self.transport = Transport()
        self.replica._on_lost = self.errors.append  # type: ignore[method-assign]
        self.channel = self.replica._new_channel()
        self.channel.connection_made(self.transport)  # type: ignore[arg-type]
        self.replica._channel = self.channel
        if ready:
            self.feed(frame(wire.READY, 0, encode(plain.from_capabilities(Capabilities()))))
        loop = asyncio.get_running_loop()
        requests = {
            PLAIN: predict(),
            STREAM: chat(),
            CHUNKS: predict(),
            SOCKET: predict(method="websocket", mode=wire.DATA, stream=True),
        }
        self.calls = {id: Call(request, b"", Limits(), loop) for id, request in requests.items()}
        for id in sorted(self.calls):
            self.replica.open(self.calls[id], lambda call: None)
            assert self.calls[id].id == id
        self.questions: dict[int, Question[Any]] = {
            HEALTH: about_health(Limits()),
            NEW_CODE: about_new_code(Limits()),
        }
        for id, question in self.questions.items():
            self.replica.ask(question)
            assert question.id == id
        self.feed(frame(wire.RESP, STREAM, wire.join(Resp(200, wire.DATA, True, False, ""))))
        self.feed(frame(wire.RESP, CHUNKS, wire.join(Resp(200, wire.BYTES, True, False, ""))))
        self.feed(frame(wire.RESP, SOCKET, wire.join(Resp(200, wire.DATA, False, False, ""))))

    def open(self, request: Req | None = None) -> int:
        """One more call, which has no answer yet; its id."""
        call = Call(request or predict(), b"", Limits(), asyncio.get_running_loop())
        self.replica.open(call, lambda call: None)
        return call.id

    def feed(self, data: bytes) -> None:
        view = memoryview(data)
        while len(view) and not self.transport.closed and self.transport.reading:
            buffer = self.channel.get_buffer(len(view))
            n = min(len(buffer), len(view))
            is_full = n == len(buffer)
            buffer[:n] = view[:n]
            self.channel.buffer_updated(n)
            while is_full and not self.transport.reading and not self.transport.closed:
                self.channel._go_on()  # in the next turn of the loop
            view = view[n:]
        self.rest = bytes(view)

    @property
    def error(self) -> Exception | None:
        return self.channel._error


def frame(kind: int, call: int, payload: bytes = b"") -> bytes:
    parts = [payload[start : start + MAX_FRAME] for start in range(0, len(payload), MAX_FRAME)] or [b""]
    flags = [kind | MORE] * (len(parts) - 1) + [kind]
    return b"".join(HEADER.pack(len(p), f, call) + p for p, f in zip(parts, flags, strict=True))


def ran(work: Callable[[], None]) -> None:
    """Within a loop, which the replica wants."""

    async def main() -> None:
        work()

    asyncio.run(main())


def refused(*frames: bytes, ready: bool = True) -> str:
    """What the worker is told to have done wrong by these frames."""
    said: list[str] = []

    def work() -> None:
        fed = Fed(ready)
        assert fed.error is None
        fed.feed(b"".join(frames))
        assert isinstance(fed.error, WireError), fed.error
        assert fed.transport.closed
        said.append(str(fed.error))

    ran(work)
    return said[0]


def taken(*frames: bytes) -> None:
    def work() -> None:
        fed = Fed()
        fed.feed(b"".join(frames))
        assert fed.error is None

    ran(work)


@contextmanager
def counted() -> Iterator[Callable[[], tuple[int, int]]]:
    """Bytes at the most, and calls and returns of functions, Python's and C's; no clock, which others share."""
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    sys.setprofile(count)
    try:
        yield lambda: (tracemalloc.get_traced_memory()[1] - before, steps)
    finally:
        sys.setprofile(None)
        tracemalloc.stop()


def ext(code: int, data: bytes) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, data))


def packed_array(*shape: int, data: bytes = b"") -> bytes:
    return ext(ARRAY_EXT, struct.pack(f"<B{len(shape)}I", len(shape), *shape) + data)


def items(*packed: bytes) -> bytes:
    return wire.join_items(list(packed))


def resp(body: bytes = b"{}", **changes: Any) -> bytes:
    head = {"status": 200, "kind": wire.BYTES, "stream": False, "final": True, "content_type": "", **changes}
    return wire.join(Resp(**head), body)


# ── what an honest worker never sends ────────────────────────────────────────────────────────────────────────────────


def test_a_credit_beyond_what_is_outstanding_ends_the_worker() -> None:
    for credit in ([1, 0], [0, 1], [1 << 62, 1], [-1, 0], [0, -5]):
        refused(frame(wire.CREDIT, SOCKET, encode(credit)))
        refused(frame(wire.CREDIT, PLAIN, encode(credit)))


def test_a_credit_for_what_was_sent_is_taken_once() -> None:
    def work() -> None:
        fed, granted = Fed(), list[int]()
        call = fed.calls[SOCKET]
        call.on_credit = granted.append
        for payload in (b"one", b"three"):
            call.send_message(payload)
        fed.feed(frame(wire.CREDIT, SOCKET, encode(wire.Credit(1, 3))))
        fed.feed(frame(wire.CREDIT, SOCKET, encode(wire.Credit(1, 5))))
        assert granted == [1, 1]
        assert fed.error is None
        fed.feed(frame(wire.CREDIT, SOCKET, encode(wire.Credit(1, 0))))
        assert isinstance(fed.error, WireError)

    ran(work)


@pytest.mark.parametrize(
    "changes",
    [
        {"content_type": "text/plain\r\nset-cookie: stolen=1"},
        {"content_type": "text/html\r\n\r\n<script>"},
        {"content_type": "a\nb"},
        {"content_type": "a\x00"},
        {"content_type": "é"},
        {"content_type": "x" * 300},
        {"headers": [("x-a", "1\r\nx-b: 2")], "raw": True},
        {"headers": [("x-a", "1" * 40_000), ("x-b", "1" * 40_000)], "raw": True},
        {"status": 101, "raw": True},
        {"status": 204},
        {"status": 304},
        {"status": 404},
        {"kind": 2},
        {"kind": -1},
    ],
    ids=str,
)
def test_a_head_that_would_forge_or_split_an_answer_ends_the_worker(changes: dict[str, Any]) -> None:
    refused(frame(wire.RESP, PLAIN, resp(**changes)))


@pytest.mark.parametrize("call", [PLAIN, STREAM, CHUNKS])
def test_a_message_for_a_call_that_is_no_websocket_ends_the_worker(call: int) -> None:
    refused(frame(wire.MESSAGE, call, encode(["send", "x"])))


@pytest.mark.parametrize(
    "item", [5, ["send", 5], ["send", "x"], ["close", [99999, ""]], ["close", [1005, ""]]], ids=str
)
def test_items_for_a_websocket_end_the_worker(item: Any) -> None:
    refused(frame(wire.ITEMS, SOCKET, items(encode(item))))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": wire.DATA},
        {"kind": wire.DATA, "raw": True},
        {"kind": wire.DATA, "stream": True, "final": False},
        {"kind": wire.DATA, "stream": True, "final": False, "raw": True},
        {"stream": True},
        {"final": False},
    ],
    ids=str,
)
def test_an_answer_in_another_form_than_its_call_has_ends_the_worker(changes: dict[str, Any]) -> None:
    refused(frame(wire.RESP, PLAIN, resp(**changes)))


@pytest.mark.parametrize(
    "value",
    [b"", b"\xc1", b"\xff" * 20_000, b"\x91" * 900, b"\x91" * 5000 + b"\xc0", b"\xa1\xff", ext(99, b"a"), b"\xc0\xc0"],
    ids=["nothing", "no kind", "large", "cut off", "deep", "no text", "an extension", "two"],
)
def test_an_answer_that_nobody_can_read_ends_the_worker(value: bytes) -> None:
    def work() -> None:
        fed = Fed()
        fed.feed(frame(wire.RESP, fed.open(chat()), as_answer(value)))
        assert isinstance(fed.error, WireError), fed.error

    ran(work)


@pytest.mark.parametrize("status", [0, 100, 200, 204, 302, 399, 600])
def test_an_error_whose_status_is_none_ends_the_worker(status: int) -> None:
    refused(frame(wire.ERROR, PLAIN, encode(Failure(status, "model_error", "x"))))


@pytest.mark.parametrize("shape", [(0,), (4294967295, 0), (0, 4294967295), (2, 0, 3)])
def test_an_array_with_a_dimension_of_none_ends_the_worker(shape: tuple[int, ...]) -> None:
    refused(frame(wire.ITEMS, STREAM, items(packed_array(*shape))))


def test_an_array_of_more_dimensions_than_there_are_ends_the_worker() -> None:
    refused(frame(wire.ITEMS, STREAM, items(packed_array(*[1] * 33, data=b"\0" * 4))))
    taken(frame(wire.ITEMS, STREAM, items(packed_array(*[1] * 32, data=b"\0" * 4))))


def test_items_are_weighed_as_well_as_counted() -> None:
    large = encode(b"x" * WINDOW_BYTES)
    taken(frame(wire.ITEMS, STREAM, items(large)))  # the last one may reach beyond
    said = refused(frame(wire.ITEMS, STREAM, items(large)), frame(wire.ITEMS, STREAM, items(b"\xc0")))
    assert str(WINDOW_BYTES) in said
    refused(*[frame(wire.ITEMS, STREAM, items(b"\xc0"))] * (WINDOW_ITEMS + 1))
    refused(*[frame(wire.MESSAGE, SOCKET, encode(["send", b"x" * WINDOW_BYTES]))] * 2)


def test_what_a_reader_takes_is_a_window_again_and_no_more() -> None:
    async def main() -> None:
        fed = Fed()
        call, item = fed.calls[STREAM], encode("x" * 1000)
        for _ in range(200):  # a worker that is always a window ahead
            fed.feed(frame(wire.ITEMS, STREAM, items(*[item] * 32)))
            assert fed.error is None
            assert len(await call.take() or ()) == 32
        call.owed = 1
        fed.feed(frame(wire.ITEMS, STREAM, items(*[item] * 64)))
        assert isinstance(fed.error, WireError)

    asyncio.run(main())


def test_what_still_comes_for_a_call_that_everybody_left_is_dropped() -> None:
    def work() -> None:
        fed = Fed()
        fed.calls[SOCKET].cancel()
        for _ in range(3 * WINDOW_ITEMS):
            fed.feed(frame(wire.MESSAGE, SOCKET, encode(["send", "bye"])))
        assert fed.error is None
        assert fed.calls[SOCKET].items == []

    ran(work)


@pytest.mark.parametrize(
    ("call", "kind", "one"),
    [(STREAM, wire.ITEMS, b"\x91\xc5"), (CHUNKS, wire.ITEMS, b"\x91\xc1"), (SOCKET, wire.MESSAGE, b"\xc1")],
)
def test_what_still_comes_for_a_call_that_everybody_left_is_not_decoded_and_needs_credit(
    call: int, kind: int, one: bytes
) -> None:
    def work() -> None:
        fed = Fed()
        fed.calls[call].cancel()
        large = frame(kind, call, one + b"x" * (WINDOW_BYTES - 10))
        fed.feed(large)  # nothing that could be decoded
        fed.feed(large)  # the last one may exceed the window
        assert fed.error is None and fed.calls[call].items == []
        fed.feed(frame(kind, call, one))
        assert isinstance(fed.error, WireError) and str(WINDOW_BYTES) in str(fed.error)

    ran(work)


def test_items_without_an_item_end_the_worker_and_no_time_limit() -> None:
    refused(frame(wire.ITEMS, STREAM, b"\x90"))


@pytest.mark.parametrize("is_recalled", [False, True])
@pytest.mark.parametrize("call", [PLAIN, STREAM, CHUNKS, SOCKET])
def test_no_call_is_given_back_that_has_its_slot(call: int, is_recalled: bool) -> None:
    """Or nobody would end it."""

    async def talk() -> None:
        fed = Fed()
        fed.calls[call].is_recalled = is_recalled
        fed.feed(frame(wire.RECALL, call))
        assert isinstance(fed.error, WireError)

    asyncio.run(talk())


@pytest.mark.parametrize(("kind", "call"), [(wire.PING, 0), (wire.WHOSE, 0), (wire.CREDIT, SOCKET)])
def test_a_head_of_a_few_numbers_that_is_large_ends_the_worker_unread(kind: int, call: int) -> None:
    said = refused(frame(kind, call, b"\x92" + b"\x90" * 64))
    assert "65 bytes, at most 64" in said


@pytest.mark.parametrize("texts", [["abcd"] * 2_000, ["é" * 40] * 2_000, [["a", 1]] * 2_000, [{"a": "bcd"}] * 2_500])
def test_a_text_weighs_as_much_as_several_numbers(texts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding one takes as much longer; what a text weighs is what it takes measured against a number."""
    monkeypatch.setattr(weighing, "SMALL", 0)
    monkeypatch.setattr(weighing, "LIGHT", 0)
    monkeypatch.setattr(weighing, "MAX_UNITS", 9_999)
    check_weight(encode(list(range(9_000))))
    with pytest.raises(WireError, match="more than 9,999 numbers, or 1,999 texts"):
        check_weight(encode(texts))


@pytest.mark.parametrize(
    "message",
    [["send", 5], ["send"], ["close", "x"], ["close", [1, 2]], ["close", ["1000", ""]], [1, "a"], {}, "send", []],
    ids=str,
)
def test_a_message_that_is_none_ends_the_worker(message: Any) -> None:
    refused(frame(wire.MESSAGE, SOCKET, encode(message)))


@pytest.mark.parametrize(
    "payload",
    [
        encode(wire.Batch([PLAIN], [-1.0])),
        encode(wire.Batch([PLAIN], [float("nan")])),
        encode(wire.Batch([UNKNOWN], [0.0])),
        encode([[PLAIN], "soon"]),
        encode(wire.Batch([PLAIN], [0.0] * (wire.MAX_BATCH + 1))),
        encode(wire.Batch([PLAIN] * (wire.MAX_BATCH + 1), [])),
        encode(wire.Batch([], [0.0])),
        encode(wire.Batch([PLAIN, STREAM, PLAIN], [0.0])),
        encode(wire.Batch([PLAIN, SOCKET], [0.0])),
    ],
)
def test_a_batch_of_other_calls_or_with_impossible_times_ends_the_worker(payload: bytes) -> None:
    refused(frame(wire.BATCH, 0, payload))


@pytest.mark.parametrize(
    ("batch_size", "slots", "most"), [(None, 8, 0), (2, 8, 2), (8, 2, 2)], ids=["no batches", "size", "slots"]
)
def test_a_batch_has_no_more_calls_than_the_model_s_may_have(batch_size: int | None, slots: int, most: int) -> None:
    def work() -> None:
        fed = Fed(batch_size=batch_size, slots=slots)
        for count in range(1, 4):
            assert fed.error is None
            fed.feed(frame(wire.BATCH, 0, encode(wire.Batch([PLAIN, STREAM, CHUNKS][:count], [0.0] * count))))
            if count > most:
                break
        assert isinstance(fed.error, WireError)
        assert all((call.batch is not None) == (id <= most) for id, call in fed.calls.items())

    ran(work)


def test_there_is_no_batch_before_the_worker_is_ready() -> None:
    refused(frame(wire.BATCH, 0, encode(wire.Batch([PLAIN], [0.0]))), ready=False)


@pytest.mark.parametrize("how", ["one batch", "all in each", "fewer in each"])
def test_what_a_sweep_of_the_time_limits_asks_costs_as_much_for_each_call_however_many_share_a_batch(how: str) -> None:
    """And a worker cannot change that: what it says about batches is paid for once, when it says it or a call ends."""

    def work(count: int) -> tuple[int, int]:
        fed = Fed(batch_size=count, slots=count)
        calls = [fed.open() for _ in range(count)]
        pending = [fed.replica._in_flight.calls[id][0] for id in calls]
        batches = {"one batch": 1, "all in each": count // 10, "fewer in each": count // 10}[how]
        said = 0
        for number in range(batches):
            ids = calls[number * 10 :] if how == "fewer in each" else calls
            said += len(ids)
            fed.feed(frame(wire.BATCH, 0, encode(wire.Batch(ids, [0.0]))))
        assert fed.error is None
        for call in pending[:-1]:
            call.cancel()
        with counted() as cost:
            assert {call.may_run_until for call in pending} == {float("inf")}
            wanted = cost()[1]
        pending[-1].cancel()
        with counted() as cost:
            latest = {call.may_run_until for call in pending}
            first = cost()[1]
        assert latest == {max(call.overdue for call in pending)}
        with counted() as cost:
            for call in pending:
                assert call.may_run_until
            again = cost()[1]
        for id in calls[:-1]:
            fed.feed(frame(wire.END, id))
        with counted() as cost:
            assert pending[-1].may_run_until == pending[-1].overdue
            last = cost()[1]
        assert first + last < 30 * (said + count), (first, last)
        return wanted, again

    for count in (20, 200):
        steps: list[tuple[int, int]] = []
        ran(lambda count=count, steps=steps: steps.append(work(count)))  # type: ignore[misc]
        assert max(steps[0]) < 40 * count, steps


def test_however_many_batches_a_worker_tells_of_their_calls_are_held_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of a call and all later ones: by the square, the next sweep would take seconds."""
    monkeypatch.setattr(batches, "MOST_HELD", 1000)

    async def talk() -> None:
        fed = Fed(batch_size=200, slots=200)
        ids = [fed.open() for _ in range(200)]
        calls = [fed.replica._in_flight.calls[id][0] for id in ids]
        for number in range(200):
            fed.feed(frame(wire.BATCH, 0, encode(wire.Batch(ids[number:], [0.0]))))
        assert fed.error is None
        held = {id(call.batch): call.batch.held for call in calls if call.batch is not None}
        assert sum(held.values()) <= 1000 + len(held)
        calls[-2].cancel()
        assert calls[-2].may_run_until == float("inf")  # the last batches are known
        for call in calls:
            call.cancel()
        with counted() as cost:
            for call in calls:
                assert call.may_run_until >= call.overdue
            assert cost()[1] < 30 * 1000

    asyncio.run(talk())


def test_batches_that_are_over_are_forgotten_before_those_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_HELD", 40)

    async def talk() -> None:
        fed = Fed(batch_size=8, slots=8)
        first, second = fed.open(), fed.open()
        fed.feed(frame(wire.BATCH, 0, encode(wire.Batch([first, second], [0.0]))))
        kept = fed.replica._in_flight.calls[first][0]
        for _ in range(100):
            id = fed.open()
            fed.feed(frame(wire.BATCH, 0, encode(wire.Batch([id], [0.0]))))
            fed.feed(frame(wire.END, id))
        kept.cancel()
        assert fed.error is None and kept.may_run_until == float("inf")

    asyncio.run(talk())


def test_the_largest_batch_of_the_settings_fits_into_its_frame() -> None:
    assert wire.MAX_BATCH == LARGEST_BATCH
    largest = encode(wire.Batch([2**32 - 1] * LARGEST_BATCH, [0.1] * LARGEST_BATCH))
    assert len(largest) <= MAX_FRAME
    check_weight(largest)


def test_a_batch_says_when_its_calls_began_and_how_long_its_code_may_run() -> None:
    async def talk() -> None:
        fed = Fed()
        ids = [STREAM, CHUNKS, PLAIN]
        fed.feed(frame(wire.BATCH, 0, encode(wire.Batch(ids, [0.0, 0.5, 0.5]))))
        last, middle, first = (fed.calls[id] for id in ids)
        assert fed.error is None and first.batched_at == middle.batched_at == last.batched_at > 0
        now = asyncio.get_running_loop().time()
        for call, seconds in ((first, 10), (middle, 50), (last, 90)):
            call.limits, call.deadline = Limits(cancel_grace=1.0), now + seconds
        first.cancel()
        assert (first.overdue, first.may_run_until) == (now + 11, float("inf"))  # clients of others wait
        last.cancel()
        assert first.may_run_until == float("inf")
        middle.cancel()
        assert first.may_run_until == middle.may_run_until == last.overdue == now + 91
        fed.feed(frame(wire.END, STREAM))
        assert last.ended and first.may_run_until == middle.overdue == now + 51
        fed.feed(frame(wire.END, CHUNKS))
        assert first.may_run_until == first.overdue

    asyncio.run(talk())


class Weak(Call):
    __slots__ = ("__weakref__",)


def test_a_call_of_a_batch_is_freed_when_it_has_ended_although_others_run_on() -> None:
    async def talk() -> None:
        fed = Fed()
        call: Call | None = Weak(predict(), b"", Limits(), asyncio.get_running_loop())
        fed.replica.open(call, lambda call: None)
        fed.feed(frame(wire.BATCH, 0, encode(wire.Batch([call.id, PLAIN], [0.0, 0.0]))))
        freed = weakref.ref(call)
        fed.feed(frame(wire.END, call.id))
        gc.disable()
        try:
            call = None
            assert freed() is None
        finally:
            gc.enable()
        assert fed.calls[PLAIN].batch is not None

    asyncio.run(talk())


def test_a_call_of_a_batch_is_freed_when_its_worker_is_lost() -> None:
    async def talk() -> None:
        fed = Fed()
        call: Call | None = Weak(predict(), b"", Limits(), asyncio.get_running_loop())
        fed.replica.open(call, lambda call: None)
        fed.feed(frame(wire.BATCH, 0, encode(wire.Batch([call.id, PLAIN], [0.0, 0.0]))))
        freed = weakref.ref(call)
        gc.disable()
        try:
            fed.replica._break("it was lost")
            assert call.ended
            call = None
            assert freed() is None
        finally:
            gc.enable()
        assert fed.calls[PLAIN].batch is not None  # its route still has it

    asyncio.run(talk())


def test_the_class_is_described_once_and_before_it_is_ready() -> None:
    described = frame(wire.DESCRIBED, 0, encode(plain.from_capabilities(Capabilities())))
    refused(described)
    refused(described, described, ready=False)


def deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "capabilities",
    [
        {"methods": [{"name": f"m{number}", "kind": "sync"} for number in range(300)]},
        {"methods": [{"name": "a b", "kind": "sync"}]},
        {"methods": [{"name": "m" * 200, "kind": "sync"}]},
        {"ports": [0]},
        {"ports": [70_000]},
        {"ports": list(range(1, 1000))},
        {"input_schema": deep(100)},
        {"extra": deep(100)},
        {"extra": {"a": {5: "b"}}},
        {"extra": {"a": b"bytes"}},
        {"output_schema": {"a": Array((1,), b"\0" * 4)}},
    ],
    ids=lambda value: f"{next(iter(value))}",
)
def test_capabilities_of_no_class_end_the_worker(capabilities: dict[str, Any]) -> None:
    refused(frame(wire.DESCRIBED, 0, encode(capabilities)), ready=False)


@pytest.mark.parametrize("kind", sorted(set(range(1, len(wire.NAMES))) - wire.FROM_WORKER.keys()))
def test_a_payload_larger_than_its_kind_ends_the_worker_before_all_of_it_is_there(kind: int) -> None:
    part = HEADER.pack(MAX_FRAME, kind | MORE, PLAIN) + b"\x90" * MAX_FRAME
    assert wire.name_of(kind) in refused(part, part)


def test_split_payloads_that_hold_nothing_take_no_memory() -> None:
    def work() -> None:
        fed = Fed()
        more = [fed.open() for _ in range(201)]
        fed.channel._max_pending = 1000 * OF_A_SPLIT
        fed.feed(b"".join(HEADER.pack(0, wire.RESP | MORE, call) for call in more[:200]))
        assert fed.error is None
        fed.channel._max_pending = 100 * OF_A_SPLIT
        fed.feed(HEADER.pack(0, wire.RESP | MORE, more[200]))
        assert isinstance(fed.error, WireError)

    ran(work)


def part(call: int, kind: int = wire.RESP) -> bytes:
    """All but the end of an answer."""
    return HEADER.pack(MAX_FRAME, kind | MORE, call) + b"x" * MAX_FRAME


@pytest.mark.parametrize("kind", [wire.RESP, wire.ITEMS, wire.MESSAGE])
def test_a_call_that_never_was_has_no_answer_nor_a_part_of_one(kind: int) -> None:
    for call in (UNKNOWN, 1000, 0xFFFFFFFF):
        assert "never existed" in refused(part(call, kind))
        assert "never existed" in refused(frame(kind, call, b"x"))
    assert "no call" in refused(part(0, kind))


def test_of_a_call_that_has_ended_late_parts_are_legal_and_none_is_kept() -> None:
    def work() -> None:
        fed = Fed()
        fed.feed(frame(wire.RESP, PLAIN, resp()))
        late = part(PLAIN)
        with counted() as cost:
            for _ in range(100):
                fed.feed(late)
            fed.feed(frame(wire.RESP, PLAIN, b"the end of it"))
            memory, _ = cost()
        assert fed.error is None
        assert memory < 10 * MAX_FRAME and fed.channel.pending == 0, memory
        fed.feed(part(CHUNKS, wire.ITEMS))
        assert fed.channel.pending > MAX_FRAME
        fed.feed(frame(wire.END, CHUNKS))
        assert fed.channel.pending == 0, "what it gave up"

    ran(work)


def test_all_workers_together_have_the_room_that_is_there_for_parts_of_answers() -> None:
    """Who holds most loses its largest answer, and neither the others nor its worker anything else."""

    def work() -> None:
        room = Room(6 * MAX_FRAME)
        one, other, third = (Fed(room=room) for _ in range(3))
        one.feed(part(PLAIN) * 2 + part(one.open()))
        other.feed(part(PLAIN))
        assert room.held == one.channel.pending + other.channel.pending
        third.feed(part(PLAIN) * 2)
        error = one.calls[PLAIN].error
        assert isinstance(error, Overloaded) and error.status == 429 and error.cause == "max_pending"
        assert wire.CANCEL in one.transport.kinds
        assert one.channel.pending < 2 * MAX_FRAME and room.held <= room.most
        assert other.calls[PLAIN].error is None and third.calls[PLAIN].error is None
        for _ in range(10):
            one.feed(part(PLAIN))
        assert one.channel.pending < 2 * MAX_FRAME, "nothing more is kept of it"
        one.feed(frame(wire.RESP, PLAIN, b"its end"))
        assert one.calls[PLAIN].ended and one.error is None
        one.channel.connection_lost(None)
        third.channel.fail(WireError("it broke a rule"))
        assert room.held == other.channel.pending and room.channels == {other.channel}

    ran(work)


@pytest.mark.parametrize("kind", [wire.ITEMS, wire.MESSAGE])
def test_a_stream_whose_part_found_no_room_ends_and_its_worker_goes_on(kind: int) -> None:
    def work() -> None:
        fed = Fed(room=Room(MAX_FRAME))
        call = CHUNKS if kind == wire.ITEMS else SOCKET
        fed.feed(part(call, kind))
        assert isinstance(fed.calls[call].error, Overloaded) and not fed.calls[call].ended
        fed.feed(frame(kind, call, b"its end") + frame(wire.END, call))
        assert fed.calls[call].ended and fed.error is None and not fed.channel.pending

    ran(work)


def test_neither_a_large_answer_nor_a_large_request_is_copied_in_one_turn() -> None:
    size = 64 * MAX_FRAME

    async def main() -> None:
        fed = Fed()
        answer = frame(wire.RESP, PLAIN, resp(b"x" * size))
        with counted() as cost:
            fed.feed(answer)
            memory, _ = cost()
        assert bytes(fed.calls[PLAIN].reply) == b"x" * size
        assert size <= memory < 1.5 * size
        call = Call(predict(), b"y" * size, Limits(), asyncio.get_running_loop())
        with counted() as cost:
            fed.replica.open(call, lambda call: None)
            await asyncio.gather(*fed.replica._tasks)
            memory, _ = cost()
        assert memory < 0.5 * size

    asyncio.run(main())


def test_every_id_was_a_calls_once_they_have_gone_round() -> None:
    def work() -> None:
        fed = Fed()
        fed.replica._in_flight.last_id = 0xFFFFFFFE
        assert [fed.open(), fed.open()] == [0xFFFFFFFF, NEW_CODE + 1]
        fed.feed(frame(wire.ITEMS, UNKNOWN, items()))
        assert fed.error is None

    ran(work)


def test_the_bytes_of_a_whole_answer_are_known_beside_its_value() -> None:
    """Whoever works on it decides by them whether that is work for the loop."""

    def work() -> None:
        fed = Fed()
        call = Call(predict(mode=wire.DATA), b"", Limits(), asyncio.get_running_loop())
        fed.replica.open(call, lambda call: None)
        packed = wire.encode(["text"] * 100)
        fed.feed(frame(wire.RESP, call.id, wire.join(Resp(200, wire.DATA, False, True, ""), packed)))
        assert (call.reply, call.taken) == (["text"] * 100, len(packed))

    ran(work)


def test_a_flood_of_small_frames_leaves_others_their_turn() -> None:
    async def main() -> None:
        fed, turns, seen = Fed(), 0, list[float]()
        pings = [encode(wire.Ping(number, float(number))) for number in range(10 * TURN)]
        fed.feed(b"".join(frame(wire.PING, 0, ping) for ping in pings))
        assert not fed.transport.reading
        while fed.replica.lag < len(pings) - 1:
            seen.append(fed.replica.lag)
            await asyncio.sleep(0)
            turns += 1
        assert 9 <= turns <= 11
        assert len(set(seen)) == len(seen)
        assert fed.error is None

    asyncio.run(main())


def test_frames_that_take_long_have_a_turn_each_and_others_as_long_between_them(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        fed, rests = Fed(), list[float]()
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "call_later", lambda delay, *call: rests.append(delay) or loop.call_soon(*call))
        call, split = fed.calls[STREAM], in_flight.split_items

        def slow(payload: memoryview, kind: int) -> Any:
            clock[0] += 2 * channel.SPENT
            return split(payload, kind)

        monkeypatch.setattr(in_flight, "split_items", slow)
        fed.feed(b"".join(frame(wire.ITEMS, STREAM, items(encode("x" * channel.LARGE))) for _ in range(5)))
        for done in range(1, 6):
            assert len(call.items) == done and (fed.transport.reading is (done == 5) or done == 5)
            await asyncio.sleep(0)
        assert fed.error is None and rests == [pytest.approx(2 * channel.SPENT)] * 5

    asyncio.run(main())


def test_of_a_full_buffer_nothing_more_is_read_in_the_same_turn() -> None:
    """The loop reads on in one turn while a read fills all that was offered, so a turn would have many megabytes."""

    async def main() -> None:
        fed = Fed()
        part = HEADER.pack(MAX_FRAME, wire.ITEMS | MORE, STREAM) + bytes(MAX_FRAME)
        buffer = fed.channel.get_buffer(-1)
        whole = (part * 3)[: len(buffer)]
        buffer[: len(whole)] = whole
        fed.channel.buffer_updated(len(whole))
        assert not fed.transport.reading and fed.error is None
        await asyncio.sleep(0)
        assert fed.transport.reading

    asyncio.run(main())


def test_the_large_body_of_a_call_that_was_given_up_is_freed_though_its_worker_does_not_read() -> None:
    async def main() -> None:
        fed, body = Fed(), bytes(3 * MAX_FRAME)
        held = sys.getrefcount(body)
        fed.channel.pause_writing()
        call = Call(predict(), body, Limits(), asyncio.get_running_loop())
        fed.replica.open(call, lambda call: None)
        for _ in range(3):
            await asyncio.sleep(0)
        assert sys.getrefcount(body) > held
        call.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert sys.getrefcount(body) == held
        assert fed.transport.kinds[-1] == wire.CANCEL and fed.error is None

    asyncio.run(main())


@pytest.mark.parametrize("size", [500, 1000])
def test_a_small_frame_has_no_long_dict_of_keys_that_can_be_made_to_collide(size: int) -> None:
    keys = b"".join(encode([number, 1000 + number]) + b"\xc0" for number in range(size))
    assert weighing.SMALL < len(keys) + 4 < weighing.LIGHT
    assert "a key that is not a string" in refused(
        frame(wire.ITEMS, STREAM, b"\x91\xde" + size.to_bytes(2, "big") + keys)
    )


def test_of_a_small_frame_without_a_long_dict_nothing_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weighing, "_walk", None)
    check_weight(encode([{"a": "x" * 100, "b": [1.0, 2]}] * 80))


# ── a model of cost ──────────────────────────────────────────────────────────────────────────────────────────────────

MEMORY, FIXED_MEMORY = 100, 2 << 20  # bytes for each byte of a frame, and for any frame at all
STEPS, FIXED_STEPS = 12, 20_000  # calls of functions, and returns from them

BOMBS = [
    b"\x80",  # empty dicts, 64 bytes each
    b"\x90",
    b"\xe3",
    b"\xa2ab",
    b"\xd9\x00",
    b"\xc4\x02ab",
    b"\x81\xa0\x80",
    b"\x91\x90",
    ext(STRUCTURED_EXT, encode([{}, ""])),
    packed_array(1, data=b"\0" * 4),
    packed_array(0, 1),
    packed_array(4294967295, 0),
    ext(99, b""),
    b"\xff" * 9,
    b"\xc1",
]


def bomb(token: bytes, count: int) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + token * count


def colliding(count: int) -> bytes:
    """A dict whose keys are all alike to a hash, and to nobody else."""
    keys = (ext(STRUCTURED_EXT, encode([{"a": number}, ""])) for number in range(count))
    return b"\xdf" + count.to_bytes(4, "big") + b"".join(key + b"\xc0" for key in keys)


def tuples(count: int) -> bytes:
    return b"\xdf" + count.to_bytes(4, "big") + b"".join(encode([n, n]) + b"\xc0" for n in range(count))


def as_items(value: bytes) -> bytes:
    return b"\x91" + value


def as_answer(value: bytes) -> bytes:
    return wire.join(Resp(200, wire.DATA, False, True, ""), value)


HONEST = [
    (wire.HELLO, 0, encode(wire.WorkerHello(1, 1, "3.11", None))),
    (wire.READY, 0, encode(plain.from_capabilities(Capabilities(methods=(MethodInfo(name="a", kind="sync"),))))),
    (wire.RESP, PLAIN, resp()),
    (wire.ITEMS, STREAM, items(encode({"a": [1, "b", None]}), encode("text"))),
    (wire.ITEMS, CHUNKS, items(encode(b"chunk"))),
    (wire.END, STREAM, b""),
    (wire.ERROR, PLAIN, encode(Failure(500, "model_error", "x", detail={"a": 1}))),
    (wire.ERROR, 0, encode(Failure(503, "model_failed", "x", reason="y"))),
    (wire.CREDIT, SOCKET, encode(wire.Credit(0, 0))),
    (wire.SLOT, PLAIN, b""),
    (wire.WAITS, PLAIN, b""),
    (wire.MESSAGE, SOCKET, encode(["send", "hello"])),
    (wire.PING, 0, encode(wire.Ping(1, 0.5))),
    (wire.BATCH, 0, encode(wire.Batch([PLAIN, STREAM], [0.0, 0.5]))),
    (wire.METRICS, 0, b"# TYPE a counter\na_total 1\n"),
    (wire.WHOSE, 0, encode(wire.Whose(1, 2))),
    (wire.ANSWER, HEALTH, encode(True)),
    (wire.ANSWER, NEW_CODE, encode(plain.from_capabilities(Capabilities()))),
    (wire.ERROR, NEW_CODE, encode(Failure(422, "reload_failed", "x"))),
    (wire.END, HEALTH, b""),
]


def test_the_frames_of_an_honest_worker_are_taken() -> None:
    for kind, call, payload in HONEST:
        if kind != wire.READY and (kind, call) != (wire.ERROR, 0):  # one that ends the worker
            taken(frame(kind, call, payload))


IDS = [0, PLAIN, STREAM, CHUNKS, SOCKET, HEALTH, NEW_CODE, UNKNOWN]
values = (
    st.binary(max_size=400)
    | st.builds(bomb, st.sampled_from(BOMBS), st.integers(0, 60_000))
    | st.builds(colliding, st.integers(0, 3000))
    | st.builds(tuples, st.integers(0, 3000))
    | st.builds(lambda depth, token: token * depth, st.integers(0, 20_000), st.sampled_from([b"\x91", b"\x81\xa0"]))
    | st.builds(lambda n: encode("ä€" * n), st.integers(0, 50_000))
)


@st.composite
def frames(draw: Any) -> bytes:
    """A frame of any kind: an honest one, one that is damaged, one with a bomb in it."""
    kind, call, payload = draw(st.sampled_from(HONEST))
    how = draw(st.integers(0, 3))
    if how == 1:
        value = draw(values)
        payload = draw(st.sampled_from([value, as_items(value), as_answer(value), b"\x92\xa4send" + value]))
    elif how == 2 and payload:
        damaged = bytearray(payload)
        damaged[draw(st.integers(0, len(damaged) - 1))] = draw(st.integers(0, 255))
        payload = bytes(damaged)
    elif how == 3:
        kind, call = draw(st.integers(0, 63)), draw(st.sampled_from(IDS))
        payload = draw(st.just(payload) | values)
    return frame(kind, call, payload)


@settings(PATIENT, max_examples=300)
@given(st.lists(frames(), min_size=1, max_size=4))
def test_no_frame_costs_more_than_its_bytes_say(sent: list[bytes]) -> None:
    data = b"".join(sent)

    def work() -> None:
        fed = Fed()
        with counted() as cost:
            fed.feed(data)
            memory, steps = cost()
        assert isinstance(fed.error, WireError | ConnectionAbortedError | None), repr(fed.error)
        assert memory <= MEMORY * len(data) + FIXED_MEMORY
        assert steps <= STEPS * len(data) + FIXED_STEPS

    ran(work)


@pytest.mark.parametrize("count", [500, 2_000, 12_000])
@pytest.mark.parametrize("keys", [colliding, tuples])
def test_keys_that_can_be_made_to_collide_are_refused_before_they_are_compared(
    keys: Callable[[int], bytes], count: int
) -> None:
    payload = as_items(keys(count))
    if keys is tuples and len(payload) < 16 * 1024:
        return
    with counted() as cost:
        with pytest.raises(WireError):
            wire.split_items(payload)
        _, steps = cost()
    assert steps < 20 * count


def test_an_answer_of_nothing_but_little_things_is_refused_without_decoding_it() -> None:
    answer = as_answer(bomb(b"\x80", 1 << 20))

    def work() -> None:
        fed = Fed()
        sent = frame(wire.RESP, fed.open(predict(mode=wire.DATA)), answer)
        tracemalloc.start()
        fed.feed(sent)
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert isinstance(fed.error, WireError)
        assert memory < 4 * len(sent)

    ran(work)


# ── what honest models send at the edges ─────────────────────────────────────────────────────────────────────────────


@PATIENT
@given(
    st.recursive(
        st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(max_size=300),
        lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(), inner, max_size=20),
        max_leaves=60,
    ),
    st.integers(1, 400),
)
def test_any_plain_value_passes_the_scales(value: Any, times: int) -> None:
    payload = encode([value, Structured({"a": value}, "{}"), Array((1,), b"\0" * 4)] * times)
    check_weight(payload)
    assert decode(payload)[0] == value


# ── what the gateway itself asks ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("says", [True, False, None])
def test_a_question_has_one_answer_and_its_asker_gets_it(says: bool | None) -> None:
    async def main() -> None:
        fed = Fed()
        fed.feed(frame(wire.ANSWER, HEALTH, encode(says)))
        assert fed.questions[HEALTH].ended and await fed.questions[HEALTH].answer() is says
        assert fed.error is None
        fed.feed(frame(wire.ANSWER, HEALTH, encode(says)))
        assert isinstance(fed.error, WireError)

    asyncio.run(main())


def test_new_code_says_what_it_can_do() -> None:
    async def main() -> None:
        fed = Fed()
        found = Capabilities(methods=(MethodInfo(name="a", kind="sync"),))
        fed.feed(frame(wire.ANSWER, NEW_CODE, encode(plain.from_capabilities(found))))
        assert await fed.questions[NEW_CODE].answer() == found

    asyncio.run(main())


@pytest.mark.parametrize("value", [1, "yes", [], {}, {"methods": []}, b""], ids=repr)
def test_an_answer_about_health_that_is_neither_yes_nor_no_ends_the_worker(value: Any) -> None:
    assert "health" in refused(frame(wire.ANSWER, HEALTH, encode(value)))


@pytest.mark.parametrize(
    "says",
    [
        {"input_schema": {"title": "x" * MAX_FRAME}},
        {"input_schema": {"$defs": {str(number): {} for number in range(100_000)}}},
        {"input_schema": deep(100)},
        {"methods": [{"name": f"m{number}", "kind": "sync"} for number in range(300)]},
        {"methods": "none"},
        [],
        True,
    ],
    ids=["long", "many", "deep", "methods", "no methods", "no dict", "yes"],
)
def test_new_code_says_no_more_of_itself_than_a_load_may(says: Any) -> None:
    refused(frame(wire.ANSWER, NEW_CODE, encode(says)))


@pytest.mark.parametrize("kind", sorted(set(range(1, len(wire.NAMES))) - {wire.ANSWER, wire.END, wire.ERROR}))
def test_a_question_is_no_call_and_a_call_is_no_question(kind: int) -> None:
    assert wire.name_of(kind) in refused(frame(kind, HEALTH, b""))
    assert "answer frame for a call" in refused(frame(wire.ANSWER, PLAIN, encode(True)))
    refused(frame(wire.ANSWER, UNKNOWN, encode(True)))
    refused(frame(wire.ANSWER, 0, encode(True)))


@pytest.mark.parametrize("kind", [wire.ANSWER, wire.ERROR, wire.RESP])
def test_an_answer_in_parts_ends_the_worker_at_the_first(kind: int) -> None:
    assert "in parts" in refused(part(NEW_CODE, kind))


def test_a_question_that_was_cancelled_ends_and_one_that_was_not_has_no_answer_then() -> None:
    async def main() -> None:
        fed = Fed()
        fed.questions[HEALTH].cancel()
        assert fed.transport.kinds[-1] == wire.CANCEL
        for id in (HEALTH, NEW_CODE):
            fed.feed(frame(wire.END, id))
            assert fed.questions[id].ended
        assert fed.questions[HEALTH].error is None
        with pytest.raises(InvalidOutput, match="swap_class"):
            await fed.questions[NEW_CODE].answer()
        assert fed.error is None

    asyncio.run(main())


def test_a_worker_that_breaks_a_rule_or_is_lost_ends_its_questions_too() -> None:
    async def main() -> None:
        fed = Fed()
        fed.replica._break("lost")
        for question in fed.questions.values():
            assert isinstance(question.error, Crashed) and question.ended
        assert not list(fed.replica.pending())
        with pytest.raises(ConnectionError):
            fed.replica.ask(about_health(Limits()))

    asyncio.run(main())


# ── what a worker is asked ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_that_did_not_say_whose_a_connection_is_is_not_asked_again_until_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.runners.process.WHOSE_TIMEOUT", 0.01)

    async def scenario() -> None:
        fed = Fed(ready=False)
        fed.replica._has_met = True
        assert [await fed.replica.owns(port, 80) for port in (1, 2, 3)] == [False] * 3
        assert fed.transport.kinds.count(wire.WHOSE) == 1
        fed.feed(frame(wire.WHOSE, 0, encode(wire.Whose(1, 80, True))))
        assert not await fed.replica.owns(4, 80)
        assert fed.transport.kinds.count(wire.WHOSE) == 2

    asyncio.run(scenario())


def test_a_strict_worker_whose_network_leads_to_nobody_is_not_asked() -> None:
    async def scenario() -> None:
        fed = Fed(ready=False, sandbox="strict")
        fed.replica._has_met = True
        asked = asyncio.create_task(fed.replica.owns(1, 80))
        await asyncio.sleep(0)
        assert wire.WHOSE not in fed.transport.kinds
        fed.feed(frame(wire.WHOSE, 0, encode(wire.Whose(1, 80, True))))
        assert not await asked

    asyncio.run(scenario())


def test_a_reason_costs_no_more_than_a_line_and_behind_it_nothing_is_read() -> None:
    """However long it is, whatever the secrets of the model are, and as often as a worker says it."""

    def work() -> None:
        fed = Fed()
        child = fed.replica._child
        child.hide({"long": "a" * 15_900 + "b"})
        lengths: list[int] = []
        redact = child.log.redact
        child.log.redact = lambda text: lengths.append(len(text)) or redact(text)  # type: ignore[method-assign,func-returns-value]
        failure = frame(wire.ERROR, 0, encode(Failure(503, "model_crashed", "", reason="a" * 50_000 + "\n" * 50_000)))
        fed.feed(failure * 2 + frame(wire.PING, 0, encode(wire.Ping(1, 0.5))))
        assert lengths == [MOST]
        assert fed.replica.lag == 0.0
        assert fed.transport.closed
        reason = next(iter(fed.replica._tasks)).get_coro().cr_frame.f_locals["reason"]  # type: ignore[union-attr]
        assert len(reason) < MAX_LINE + 20

    ran(work)


@pytest.mark.parametrize(("kind", "id"), [(wire.READY, 0), (wire.DESCRIBED, 0), (wire.ANSWER, NEW_CODE)])
def test_the_reason_of_a_wrong_description_has_the_place_and_not_the_value(kind: int, id: int) -> None:
    """Which may be a secret: nobody says which, so it cannot be hidden by its value."""

    async def talk() -> None:
        fed = Fed(ready=bool(id))
        fed.feed(frame(kind, id, encode({"methods": [{"name": "a", "kind": "q7Zx9 - at `$.q7Zx9`"}]})))
        ProcessReplica._on_lost(fed.replica, fed.error)
        place = "bad capabilities: an invalid value at `$.methods[0].kind`"
        assert await fed.replica.lost == f"the worker broke the protocol: {place}"

    asyncio.run(talk())


def test_whatever_a_worker_broke_the_reason_is_cut_and_has_no_secret() -> None:
    async def talk(ready: bool) -> None:
        fed = Fed(ready)
        fed.replica._child.hide({"pin": "q7Zx9"})
        ProcessReplica._on_lost(fed.replica, WireError("about q7Zx9 " + "x" * 50_000))
        reason = await fed.replica.lost
        assert reason.startswith("the worker broke the protocol: about *** x") and len(reason) < MAX_LINE + 20
        if not ready:
            with pytest.raises(LoadError) as told:
                await fed.replica._ready
            assert str(told.value) == reason

    for ready in (False, True):
        asyncio.run(talk(ready))


def test_a_replica_that_has_ended_reads_no_more() -> None:
    def work() -> None:
        fed = Fed()
        fed.replica._break("it was lost")
        assert fed.transport.closed
        fed.channel.buffer_updated(0)

    ran(work)


def refusals(fed: Fed, message: str, ids: list[int], status: int = 500, **more: Any) -> list[list[Any]]:
    """The text and the detail of each."""
    for id in ids:
        fed.feed(frame(wire.ERROR, id, encode(Failure(status, "model_error", message, **more))))
    errors = [(fed.calls.get(id) or fed.questions[id]).error for id in ids]
    return [[str(error), getattr(error, "detail", None)] for error in errors]


@pytest.mark.parametrize("debug", [False, True])
def test_what_is_told_of_an_exception_has_no_secret(debug: bool) -> None:
    """To an operator who has code swapped, and with `debug` to everybody.

    What a model says to its clients on purpose is as it says it: else a client could have guesses repeated.
    """

    def work() -> None:
        fed = Fed(debug=debug)
        fed.replica._child.hide({"pin": "q7Zx9"})
        ((call, _),) = refusals(fed, "for q7Zx9", [PLAIN])
        assert call == ("for ***" if debug else "for q7Zx9")
        meant, swap = refusals(fed, "for q7Zx9", [STREAM, NEW_CODE], status=422, detail="for q7Zx9")
        assert [meant[0], bytes(meant[1])] == ["for q7Zx9", b'"for q7Zx9"']
        assert swap == ["for ***", "for ***"]
        ((long, _),) = refusals(fed, "x" * (MAX_LINE - 2) + "q7Zx9" + "y" * 50_000, [HEALTH], detail={"why": "q7Zx9"})
        assert "q7" not in long and len(long) < MAX_LINE + 20

    ran(work)
