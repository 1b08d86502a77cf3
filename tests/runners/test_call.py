"""A call wakes whoever waits for it exactly once, whatever ends it and whenever; afterwards nothing is left of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from fakes import VirtualLoop, chat, predict, turns
from msgspec import Raw

from gateway.admission.queue import Seat
from gateway.errors import (
    Crashed,
    GatewayError,
    HTTPError,
    InvalidOutput,
    ModelError,
    OutOfMemory,
    QueueTimeout,
    Timeout,
)
from gateway.http.errors import body_of
from gateway.runners.call import Call
from gateway.runners.failures import RETRY_AFTER, to_error
from gateway.runners.pending import NEVER, ClientLeft
from gateway.spec import Limits
from gateway.wire.frames import BYTES, DATA, WINDOW_ITEMS, Failure, Req, Resp
from gateway.wire.values import Array, Structured, WireError

pytestmark = pytest.mark.anyio
LIMITS = Limits(queue_timeout=30, request_timeout=600, first_item_timeout=120, gap_timeout=60, cancel_grace=5)
WHOLE = Resp(200, BYTES, False, True, "application/json")
STREAM = Resp(200, DATA, True, False, "")


@pytest.fixture
def anyio_backend() -> Any:
    return "asyncio", {"loop_factory": VirtualLoop}


class Owner:
    def __init__(self) -> None:
        self.cancelled: list[Call] = []
        self.grants: list[int] = []

    def cancel(self, call: Call) -> None:
        self.cancelled.append(call)

    def grant(self, call: Call) -> None:
        self.grants.append(call.owed)
        call.owed = call.owed_size = 0


def running(req: Req | None = None) -> tuple[Call, Owner]:
    call, owner = Call(req or predict(), b"{}", LIMITS, asyncio.get_running_loop()), Owner()
    call.opened(owner, 1)
    return call, owner


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_a_whole_answer_wakes_its_waiter_with_head_and_body() -> None:
    call, _ = running()
    waiter = asyncio.create_task(call.first())
    await turns()
    call.on_resp(WHOLE, b"body")
    assert await waiter is WHOLE
    assert call.reply == b"body"
    assert call.ended


async def test_a_stream_begins_with_its_first_item_and_ends_with_none() -> None:
    call, _ = running(chat())
    waiter = asyncio.create_task(call.first())
    call.on_resp(STREAM, b"")
    await turns()
    assert not waiter.done()
    call.on_items(["a", "b"], 4)
    assert await waiter is STREAM
    assert await call.take() == ["a", "b"]
    taking = asyncio.create_task(call.take())
    await turns()
    call.on_end()
    assert await taking is None
    assert await call.take() is None


async def test_a_stream_of_bytes_may_say_once_what_it_is_before_its_first_item() -> None:
    call, _ = running()
    began = Resp(200, BYTES, True, False, "application/octet-stream")
    lines = Resp(200, BYTES, True, False, "application/x-ndjson")
    call.on_resp(began, b"")
    call.on_resp(lines, b"")
    call.on_items([b"{}\n"], 4)
    assert await call.first() is lines
    with pytest.raises(WireError, match="a second resp"):
        call.on_resp(lines, b"")


@pytest.mark.parametrize(
    "second",
    [
        {"status": 404, "stream": False},
        {"final": True},
        {"kind": DATA},
        {"raw": True},
        {"content_type": "application/octet-stream"},
    ],
    ids=str,
)
async def test_nothing_else_may_be_said_twice(second: dict[str, Any]) -> None:
    call, _ = running()
    call.on_resp(Resp(200, BYTES, True, False, "application/octet-stream"), b"")
    fields = {"status": 200, "kind": BYTES, "stream": True, "final": False, "content_type": "application/x-ndjson"}
    with pytest.raises(WireError, match="a second resp"):
        call.on_resp(Resp(**{**fields, **second}), b"")


async def test_what_a_stream_is_cannot_change_behind_an_item() -> None:
    call, _ = running()
    call.on_resp(Resp(200, BYTES, True, False, "application/octet-stream"), b"")
    call.on_items([b"text"], 5)
    with pytest.raises(WireError, match="a second resp"):
        call.on_resp(Resp(200, BYTES, True, False, "application/x-ndjson"), b"")


async def test_a_stream_without_items_is_an_empty_stream_and_no_error() -> None:
    call, _ = running(chat())
    call.on_resp(STREAM, b"")
    call.on_end()
    assert await call.first() is STREAM
    assert await call.take() is None


async def test_what_came_before_a_failure_is_delivered_before_it() -> None:
    call, _ = running(chat())
    call.on_resp(STREAM, b"")
    call.on_items(["a"], 2)
    call.on_error(ModelError("broke"))
    assert await call.first() is STREAM
    assert await call.take() == ["a"]
    with pytest.raises(ModelError):
        await call.take()


async def test_a_failure_before_the_first_item_is_raised_by_first() -> None:
    call, _ = running(chat())
    call.on_resp(STREAM, b"")
    call.on_error(ModelError("broke"))
    with pytest.raises(ModelError):
        await call.first()


async def test_an_end_without_an_answer_is_the_models_fault_and_hangs_nobody() -> None:
    call, _ = running()
    waiter = asyncio.create_task(call.first())
    await turns()
    call.on_end()
    with pytest.raises(InvalidOutput):
        await waiter


async def test_one_of_several_calls_that_is_cancelled_with_the_others_wakes_its_waiter() -> None:
    """n > 1 is n calls: when one fails, leaving the block cancels the rest, and their waiters must end."""
    call, _ = running()
    waiter = asyncio.create_task(call.first())
    await turns()
    with call:
        pass
    call.on_end()
    with pytest.raises(ClientLeft):
        await waiter


# ── on_ready ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_on_ready_is_called_once_for_the_answer_and_never_again() -> None:
    call, _ = running(chat())
    seen: list[Call] = []
    call.on_ready = seen.append
    call.on_resp(STREAM, b"")
    assert seen == []
    call.on_items(["a"], 1)
    call.on_items(["b"], 1)
    call.on_end()
    await turns()
    assert seen == [call]
    assert call.on_ready is None


async def test_on_ready_is_called_though_everything_was_over_before_it_was_set() -> None:
    """A replica that is gone fails the call inside `HostedModel.call`, before the route can say whom to tell."""
    call, _ = running()
    call.on_error(Crashed("gone"))
    seen: list[Call] = []
    call.on_ready = seen.append
    await turns()
    assert seen == [call]


async def test_on_ready_hears_of_a_client_that_left() -> None:
    call, owner = running()
    seen: list[Any] = []
    call.on_ready = lambda call: seen.append(call.error)
    call.client_left()
    call.on_resp(WHOLE, b"too late")
    assert [type(error) for error in seen] == [ClientLeft]
    assert owner.cancelled == [call]


async def test_a_fault_in_counting_what_a_model_took_ends_that_call_and_raises_nothing_in_the_channel() -> None:
    call, owner = running()
    call.on_credit = lambda messages: next(iter(()))
    call.unread, call.unread_size = 1, 3
    call.on_taken(1, 3)
    assert type(call.error) is GatewayError and owner.cancelled == [call]
    with pytest.raises(GatewayError, match="this connection"):
        await call.first()


async def test_a_fault_behind_the_end_of_a_call_raises_nothing_in_the_channel() -> None:
    call, _ = running()
    assert call.outlives(lambda: next(iter(())))
    call.on_end()
    call.let_go()


# ── giving up ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_leaving_the_block_cancels_a_running_call_once() -> None:
    call, owner = running()
    with call:
        call.cancel()
    assert owner.cancelled == [call]


async def test_leaving_the_block_of_an_ended_call_cancels_nothing() -> None:
    call, owner = running()
    with call:
        call.on_resp(WHOLE, b"")
    assert owner.cancelled == []
    call.abandon(Timeout("late"))
    assert call.error is None


async def test_a_call_abandoned_in_the_turn_of_its_answer_ends_once_and_keeps_the_first_reason() -> None:
    call, _ = running()
    waiter = asyncio.create_task(call.first())
    await turns()
    call.abandon(ClientLeft())
    call.on_resp(WHOLE, b"")
    call.abandon(Timeout("later"))
    with pytest.raises(ClientLeft):
        await waiter


async def test_items_that_nobody_wants_any_more_are_dropped() -> None:
    call, _ = running(chat())
    call.on_resp(STREAM, b"")
    call.client_left()
    for _ in range(1000):
        call.on_items(["x"], 1)
    assert call.items == []
    with pytest.raises(ClientLeft):
        await call.first()


async def test_a_cancelled_waiter_leaves_a_call_that_can_be_waited_for_again() -> None:
    call, _ = running()
    waiter = asyncio.create_task(call.first())
    await turns()
    waiter.cancel()
    await asyncio.wait([waiter])
    call.on_resp(WHOLE, b"")
    assert await call.first() is WHOLE


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_deadline_follows_the_phase_of_the_call() -> None:
    call = Call(chat(), b"", LIMITS, asyncio.get_running_loop())
    assert call.deadline == now() + 30
    await asyncio.sleep(10)
    call.opened(Owner(), 1)
    assert call.deadline == now() + 120
    call.on_resp(STREAM, b"")
    call.on_items(["a"], 1)
    assert call.deadline == NEVER  # it is the client's turn now
    await call.first()
    await call.take()
    taking = asyncio.create_task(call.take())
    await turns()
    assert call.deadline == now() + 60
    call.on_items(["b"], 1)
    await taking
    assert call.deadline == NEVER


async def test_a_whole_answer_has_the_request_timeout_and_a_stream_in_its_place_the_first_items() -> None:
    call, _ = running()
    began = now()
    assert call.deadline == began + 600
    await asyncio.sleep(1)
    call.on_resp(Resp(200, BYTES, True, False, ""), b"")
    assert call.deadline == began + 120


async def test_waiting_inside_the_worker_does_not_count_as_the_calls_own_time() -> None:
    call, owner = running()
    seat = call.seat = Seat(owner, 1, inside=4)
    call.got_slot = False
    call.on_waits()
    call.on_waits()
    assert seat.waiting == 1
    await asyncio.sleep(20)
    call.on_slot()
    call.on_slot()
    assert seat.waiting == 0
    assert call.started == now()
    assert call.deadline == now() + 600


async def test_waiting_inside_the_worker_is_waiting_from_its_word_until_there_is_a_slot() -> None:
    call, owner = running()
    call.seat = Seat(owner, 1, inside=4)
    call.got_slot = False
    await asyncio.sleep(4)  # its preprocess
    assert call.has_begun and not call.has_slot and call.waited == 0
    call.on_waits()
    await asyncio.sleep(20)
    assert not call.has_slot and call.waited == 20
    call.on_slot()
    await asyncio.sleep(5)
    assert call.has_slot and call.waited == 20


async def test_a_call_that_got_its_slot_inside_the_worker_at_once_has_waited_for_none() -> None:
    call, owner = running()
    seat = call.seat = Seat(owner, 1, inside=4)
    call.got_slot = False
    await asyncio.sleep(4)
    call.on_slot()
    call.on_waits()  # of a worker that errs
    assert call.has_slot and call.waited == 0 and seat.waiting == 0


async def test_a_call_that_was_given_up_in_the_queue_waited_until_then() -> None:
    call = Call(Req("predict", BYTES, False, "", "r"), b"", Limits(), asyncio.get_running_loop())
    call.waits_since = call.arrived
    await asyncio.sleep(3)
    call.abandon(Timeout("too long"))
    await asyncio.sleep(5)
    assert not call.has_slot and call.waited == 3


async def test_code_that_goes_on_after_a_time_limit_is_overdue_after_the_grace() -> None:
    call, _ = running()
    await asyncio.sleep(601)
    call.abandon(Timeout("too long"))
    assert call.overdue == now() + 5


async def test_code_whose_client_left_keeps_its_time_limit_and_no_more() -> None:
    """A method that hangs must not hold its slot for ever because its client hung up first."""
    call, _ = running()
    began = now()
    await asyncio.sleep(10)
    call.client_left()
    assert call.overdue == began + 600 + 5


async def test_a_stream_whose_client_left_while_it_was_slow_is_overdue_after_a_gap() -> None:
    call, _ = running(chat())
    call.on_resp(STREAM, b"")
    call.on_items(["a"], 1)
    await call.first()
    await call.take()
    call.cancel()
    assert call.overdue == now() + 60 + 5


async def test_a_stream_whose_client_is_patient_without_end_is_overdue_after_a_gap_all_the_same() -> None:
    call = Call(chat(), b"{}", LIMITS, asyncio.get_running_loop(), patience=1e9)
    call.opened(Owner(), 1)
    call.on_resp(STREAM, b"")
    call.on_items(["a"], 1)
    await call.first()
    await call.take()
    call.client_left()
    assert call.overdue == now() + 60 + 5


async def test_code_that_has_no_limit_is_overdue_after_the_grace() -> None:
    call, _ = running(chat())
    call.limits = replace(LIMITS, gap_timeout=NEVER)
    call.on_resp(Resp(200, DATA, False, False, ""), b"")
    await call.first()
    taking = asyncio.create_task(call.take())
    await turns()
    assert call.deadline == NEVER
    call.client_left()
    assert call.overdue == now() + 5
    await asyncio.gather(taking, return_exceptions=True)


# ── back-pressure ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_was_taken_is_granted_and_what_was_not_is_not() -> None:
    call, owner = running(chat())
    call.on_resp(STREAM, b"")
    call.on_items(["a", "b", "c"], 3)
    await call.first()
    assert owner.grants == []
    await call.take()
    assert owner.grants == [3]


async def test_a_worker_that_sends_more_than_its_window_breaks_the_protocol() -> None:
    call, _ = running(chat())
    call.on_resp(STREAM, b"")
    call.on_items(list(range(WINDOW_ITEMS)), 100)
    with pytest.raises(WireError):
        call.on_items([0], 1)


async def test_frames_in_an_order_that_cannot_be_break_the_protocol() -> None:
    call, _ = running(chat())
    with pytest.raises(WireError):
        call.on_items(["a"], 1)
    call.on_resp(STREAM, b"")
    with pytest.raises(WireError):
        call.on_resp(STREAM, b"")


# ── errors of a worker ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("failure", "cls"),
    [
        (Failure(500, "model_error", "x"), ModelError),
        (Failure(500, "invalid_model_output", "x"), InvalidOutput),
        (Failure(503, "insufficient_memory", "x"), OutOfMemory),
        (Failure(503, "queue_timeout", "x"), QueueTimeout),
        (Failure(422, "invalid_value", "x"), HTTPError),
        (Failure(418, "model_error", "x"), HTTPError),
    ],
)
def test_a_failure_becomes_the_error_of_its_code(failure: Failure, cls: type[GatewayError]) -> None:
    error = to_error(failure)
    assert type(error) is cls
    assert (error.status, error.code, error.message) == (failure.status, failure.code, failure.message)


def test_a_raised_status_keeps_headers_detail_and_truss_code() -> None:
    failure = Failure(422, "invalid_value", "bad", param="a", headers=[("x-a", "1")], detail={"a": 1}, truss_code=700)
    error = to_error(failure)
    assert isinstance(error, HTTPError)
    assert (error.param, error.headers, error.detail, error.truss_code) == ("a", {"x-a": "1"}, Raw(b'{"a":1}'), 700)
    assert error.type == "invalid_request_error"


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "detail",
    [{None: 1}, {"a": Array((1,), b"\0" * 4)}, Structured({}, ""), nested(5000)],
    ids=["a key", "an array", "an instance", "deep"],
)
def test_a_detail_without_a_form_in_json_gives_way_to_the_message(detail: Any) -> None:
    error = to_error(Failure(422, "invalid_value", "bad", detail=detail))
    assert body_of(error, "truss", "r") == b'{"error":"bad"}'


def test_a_lack_of_memory_says_when_to_come_back() -> None:
    assert to_error(Failure(503, "insufficient_memory", "x")).retry_after == RETRY_AFTER


@pytest.mark.parametrize(("patience", "cause"), [(NEVER, "queue_timeout"), (5.0, "x_request_timeout")])
async def test_a_call_that_waited_too_long_inside_its_worker_has_the_limit_as_its_cause(
    patience: float, cause: str
) -> None:
    call = Call(predict(), b"{}", LIMITS, asyncio.get_running_loop(), patience=patience)
    call.got_slot = False
    await asyncio.sleep(min(patience, LIMITS.queue_timeout))  # of the virtual clock
    call.on_error(to_error(Failure(503, "queue_timeout", "the call's time limit was over before it got a slot")))
    assert isinstance(call.error, QueueTimeout) and call.error.cause == cause
