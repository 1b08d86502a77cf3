"""Calls that are sent before there is a slot for them: none is lost or runs twice, and each begins in its turn."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.admission.queue import AHEAD, LARGE, MOST_AHEAD, STUCK, Limiter, Seat
from gateway.errors import Overloaded
from gateway.runners.pending import ClientLeft

SHORT = AHEAD / 10


class Waiter:
    """As much of a call as the limiter sees."""

    def __init__(self, name: int, arrived: float, body: bytes = b"body") -> None:
        self.name, self.arrived, self.body = name, arrived, body
        self.error: BaseException | None = None
        self.seat: Any = None
        self.is_ahead = self.is_recalled = self.ended = False
        self.is_wanted = True
        self.id = name
        self.started = 0.0

    def __repr__(self) -> str:
        return f"call {self.name}"

    def opened(self, owner: Any, id: int) -> None:
        assert (owner, id) == (self.seat.owner, self.id)
        self.started = 1.0


class Worker:
    """A replica as the limiter sees it: so many slots, and a line of its own in which calls wait for them."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.running: list[Waiter] = []
        self.line: deque[Waiter] = deque()
        self.asked: list[Waiter] = []  # recalls that have not arrived yet

    def take(self, call: Waiter) -> None:
        (self.running if len(self.running) < self.slots else self.line).append(call)

    def end(self, call: Waiter) -> None:
        self.running.remove(call)
        if self.line:
            self.running.append(self.line.popleft())

    def recall(self, call: Any) -> None:
        self.asked.append(call)


class Setting:
    """A limiter with workers; `began` is what their code was called with, in that order."""

    def __init__(self, max_queue: int, *slots: int) -> None:
        self.limit = Limiter(max_queue, self.start, "m")
        self.calls: list[Waiter] = []
        self.left: list[Waiter] = []
        self.done: list[Waiter] = []
        self.seats = [Seat(Worker(count), count, takes_ahead=True) for count in slots]
        for seat in self.seats:
            self.limit.add(seat)

    def start(self, call: Any, seat: Seat) -> None:
        call.seat = seat
        if not call.is_ahead:
            call.started, call.body = 1.0, b""
        seat.owner.take(call)

    def enter(self, count: int = 1, body: bytes = b"body", now: float = 0.0) -> list[Waiter]:
        new = [Waiter(len(self.calls) + number, now, body) for number in range(count)]
        self.calls += new
        for call in new:
            self.limit.enter(call)  # type: ignore[arg-type]
        return new

    def end(self, call: Waiter, held: float = SHORT) -> None:
        """The worker is done with a call, and its last frame arrives."""
        call.seat.owner.end(call)
        self.done.append(call)
        call.ended = True
        if call.is_ahead:
            self.limit.leave_ahead(call, call.seat)  # type: ignore[arg-type]
        else:
            self.limit.give_back(call.seat, held)

    def give_back(self, call: Waiter) -> bool:
        """A recall arrives at a worker. Returns whether the call had not begun."""
        worker = call.seat.owner
        worker.asked.remove(call)
        if call not in worker.line:
            return False
        worker.line.remove(call)
        self.limit.take_back(call, call.seat)  # type: ignore[arg-type]
        return True

    def make_short(self) -> None:
        """Let calls be known to be short."""
        for seat in self.seats:
            (call,) = self.enter()
            self.end(call)
            assert seat


@pytest.fixture
def one() -> Setting:
    setting = Setting(100, 1)
    setting.make_short()
    return setting


def test_short_calls_are_sent_before_their_slot_and_count_as_waiting(one: Setting) -> None:
    calls = one.enter(4)
    assert [*one.seats[0].ahead] == calls[1:]
    assert (one.limit.running, one.limit.queued, one.limit.in_flight) == (1, 3, 4)
    assert one.limit.queued_bytes == 3 * len(b"body")
    assert [call.started > 0 for call in calls] == [True, False, False, False]


def test_before_the_first_call_has_ended_none_is_sent_ahead() -> None:
    setting = Setting(100, 1)
    setting.enter(3)
    assert not setting.seats[0].ahead


@pytest.mark.parametrize(("held", "expected"), [(AHEAD * 2, 0), (AHEAD / 2, 2), (AHEAD / 1000, MOST_AHEAD)])
def test_the_longer_calls_take_the_fewer_are_sent_ahead(held: float, expected: int) -> None:
    setting = Setting(1000, 1)
    (call,) = setting.enter()
    setting.end(call, held)
    setting.enter(200)
    assert len(setting.seats[0].ahead) == expected


def test_a_replica_with_more_slots_is_sent_more_ahead() -> None:
    setting = Setting(1000, 4)
    setting.make_short()
    setting.enter(200)
    assert len(setting.seats[0].ahead) == 4 * int(AHEAD / SHORT)


def test_each_begins_when_the_one_before_it_ends_and_another_follows(one: Setting) -> None:
    calls = one.enter(50)
    sent = len(one.seats[0].ahead)
    one.end(calls[0])
    assert calls[1].started and not calls[1].is_ahead and not calls[1].body
    assert len(one.seats[0].ahead) == sent
    assert (one.limit.running, one.limit.queued) == (1, 48)


def test_a_large_body_is_not_sent_ahead_and_none_overtakes_it(one: Setting) -> None:
    one.enter(1)
    one.enter(1, bytes(LARGE + 1))
    one.enter(1)
    assert not one.seats[0].ahead and one.limit.queued == 2


def test_a_queue_that_is_full_refuses_whether_calls_were_sent_ahead_or_not() -> None:
    setting = Setting(3, 1)
    setting.make_short()
    setting.enter(4)
    with pytest.raises(Overloaded, match="3 waiting"):
        setting.enter(1)


def test_a_replica_that_drains_gives_its_line_back_in_order_and_another_takes_it(one: Setting) -> None:
    calls = one.enter(4)
    old, new = one.seats[0], Seat(Worker(1), 1, takes_ahead=True)
    one.limit.remove(old)
    late = one.enter(1)
    one.limit.add(new)
    assert old.owner.asked == calls[1:]
    for call in calls[1:]:
        assert one.give_back(call)
    begun = [new.owner.running[0], *new.owner.line]
    assert begun == [late[0], *calls[1:]]  # it was free, so the last one had begun by then
    assert (one.limit.running, one.limit.queued) == (1, 3)


def test_one_that_began_before_it_was_recalled_runs_where_it_is(one: Setting) -> None:
    first, second, third = one.enter(3)
    seat = one.seats[0]
    one.limit.remove(seat)
    one.end(first)  # the worker begins the second before the recall arrives
    assert not one.give_back(second) and one.give_back(third)
    one.limit.begin(second)  # type: ignore[arg-type]  # its answer begins
    one.end(second)
    assert one.limit.in_flight == one.limit.queued == 1  # the third


def test_calls_behind_a_long_one_move_to_a_free_replica() -> None:
    setting = Setting(100, 1, 1)
    setting.make_short()
    calls = setting.enter(6)
    slow, fast = setting.seats
    assert [*slow.ahead] == [calls[2], calls[4]]
    for call in (calls[1], calls[3], calls[5]):
        setting.end(call)
    setting.limit.spread(STUCK / 2)
    assert not slow.owner.asked  # they have not waited for long
    setting.limit.spread(STUCK * 2)
    assert slow.owner.asked == [calls[2], calls[4]]
    assert setting.give_back(calls[2]) and setting.give_back(calls[4])
    assert [*fast.owner.running, *fast.owner.line] == [calls[2], calls[4]]


def test_one_whose_client_left_is_skipped_and_its_place_is_free_when_the_worker_has_dropped_it(one: Setting) -> None:
    first, second, third = one.enter(3)
    second.is_wanted = False
    one.seats[0].owner.line.remove(second)  # the cancel arrives
    one.end(first)
    assert third.started and not second.started
    second.ended = True
    one.limit.leave_ahead(second, one.seats[0])  # type: ignore[arg-type]
    assert (one.limit.running, one.limit.queued, one.limit.queued_bytes) == (1, 0, 0)


class Ahead(RuleBasedStateMachine):
    """Arrivals, ends, vanished clients, recalls, drains and restarts, in any order, with workers of their own order."""

    def __init__(self) -> None:
        super().__init__()
        self.setting = Setting(12, 1, 2)
        self.setting.make_short()
        self.began: list[Waiter] = [*self.setting.done]
        self.now = 1.0
        self.drained: list[Seat] = []

    @property
    def workers(self) -> list[Worker]:
        return [seat.owner for seat in (*self.setting.seats, *self.drained)]

    @rule(count=st.integers(1, 5), large=st.booleans())
    def arrive(self, count: int, large: bool) -> None:
        self.now += 0.001
        try:
            self.setting.enter(count, bytes(LARGE + 1) if large else b"body", self.now)
        except Overloaded:
            assert self.setting.limit.queued >= 12
            known = {call for worker in self.workers for call in (*worker.running, *worker.line)}
            waiting = [*self.setting.limit._waiting]
            self.setting.calls = [
                each for each in self.setting.calls if each in known or each in waiting or each.ended or each.error
            ]

    @precondition(lambda self: any(worker.running for worker in self.workers))
    @rule(data=st.data(), held=st.sampled_from([SHORT / 100, SHORT, AHEAD * 3]))
    def end(self, data: st.DataObject, held: float) -> None:
        running = [call for worker in self.workers for call in worker.running]
        call = data.draw(st.sampled_from(running))
        if call.is_ahead and call.error is None:
            self.setting.limit.begin(call)  # type: ignore[arg-type]
        self.setting.end(call, held)

    @precondition(lambda self: any(worker.line for worker in self.workers))
    @rule(data=st.data())
    def leave_ahead(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from([call for worker in self.workers for call in worker.line]))
        call.error, call.is_wanted = ClientLeft(), False
        call.seat.owner.line.remove(call)
        if call in call.seat.owner.asked:
            call.seat.owner.asked.remove(call)
        call.ended = True
        assert call.is_ahead, "it waits in its worker, but the gateway takes it for running"
        self.setting.limit.leave_ahead(call, call.seat)  # type: ignore[arg-type]

    @precondition(lambda self: any(worker.asked for worker in self.workers))
    @rule(data=st.data())
    def recall_arrives(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from([call for worker in self.workers for call in worker.asked]))
        self.setting.give_back(call)

    @rule()
    def sweep(self) -> None:
        self.now += STUCK
        self.setting.limit.spread(self.now)

    @rule(slots=st.integers(1, 3), data=st.data())
    def reload(self, slots: int, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.setting.seats))
        self.setting.seats.remove(old)
        self.drained.append(old)
        self.setting.limit.remove(old)
        self.setting.seats.append(Seat(Worker(slots), slots, takes_ahead=True))
        self.setting.limit.add(self.setting.seats[-1])

    @invariant()
    def every_call_is_in_one_place(self) -> None:
        limit = self.setting.limit
        places = [call for worker in self.workers for call in (*worker.running, *worker.line)]
        places += [call for call in limit._waiting if call.error is None]  # type: ignore[misc]
        places += [call for call in self.setting.calls if call.ended]
        assert len(places) == len({*places}) == len(self.setting.calls)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        limit = self.setting.limit
        waiting = [call for call in limit._waiting if call.error is None]
        ahead = [call for seat in self.setting.seats for call in seat.ahead]
        gone = [call for seat in self.drained for call in seat.ahead]
        assert limit.queued == len(waiting) + len(ahead)
        assert limit.queued_bytes == sum(len(call.body) for call in (*waiting, *ahead, *gone))
        alive = sum(not call.ended for call in self.setting.calls)
        assert limit._shares.calls == alive
        for seat in self.setting.seats:
            assert 0 <= seat.used <= seat.slots, seat.used

    @invariant()
    def no_slot_is_idle_while_a_call_waits(self) -> None:
        limit = self.setting.limit
        if any(call.error is None for call in limit._waiting):
            assert all(seat.used >= seat.slots for seat in self.setting.seats)


TestAhead = Ahead.TestCase
