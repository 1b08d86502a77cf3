"""What all models hold together is bounded, and the one that holds most pays for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fakes import PATIENT
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.admission.queue import Limiter, Seat
from gateway.admission.shares import Shares
from gateway.errors import Overloaded


class Waiter:
    """As much of a call as limiters see. Abandoned, it leaves its queue."""

    def __init__(self, limiter: Limiter, size: int = 0) -> None:
        self.limiter, self.body = limiter, b"x" * size
        self.error: BaseException | None = None
        self.seat: Seat | None = None

    def abandon(self, error: BaseException) -> None:
        self.error = error
        self.limiter.leave(self)  # type: ignore[arg-type]


def model(shares: Shares, slots: int = 1, max_queue: int = 100) -> Limiter:
    def start(call: Any, seat: Seat) -> None:
        call.seat = seat
        call.body = b""

    limiter = Limiter(max_queue, start, "m", shares=shares)
    limiter.add(Seat(object(), slots))
    return limiter


def enter(limiter: Limiter, size: int = 0) -> Waiter:
    call = Waiter(limiter, size)
    limiter.enter(call)  # type: ignore[arg-type]
    return call


def test_a_flooded_model_gives_up_its_newest_call_for_another_model() -> None:
    shares = Shares(max_calls=5)
    flooded, quiet = model(shares), model(shares)
    calls = [enter(flooded) for _ in range(5)]
    assert enter(quiet).seat is not None
    assert [call.error is not None for call in calls] == [False] * 4 + [True]
    assert isinstance(calls[-1].error, Overloaded) and calls[-1].error.retry_after
    assert shares.calls == 5


def test_a_flooded_model_gets_no_more_itself() -> None:
    shares = Shares(max_calls=3)
    flooded, quiet = model(shares), model(shares)
    enter(quiet)
    enter(flooded)
    enter(flooded)
    with pytest.raises(Overloaded, match="gateway is overloaded"):
        enter(flooded)
    assert (shares.calls, flooded.in_flight, quiet.in_flight) == (3, 2, 1)


def test_calls_that_run_are_not_taken_back() -> None:
    shares = Shares(max_calls=4)
    running, quiet = model(shares, slots=4), model(shares)
    calls = [enter(running) for _ in range(4)]
    with pytest.raises(Overloaded):
        enter(quiet)
    assert all(call.error is None for call in calls)


def test_bytes_count_only_while_their_call_waits() -> None:
    shares = Shares(max_bytes=100)
    one = model(shares)
    first = enter(one, 1000)  # it runs at once
    enter(one, 60)
    with pytest.raises(Overloaded, match="100 bytes wait"):
        enter(one, 41)
    enter(one, 40)
    assert shares.bytes == one.queued_bytes == 100
    assert first.seat is not None
    one.give_back(first.seat, 1.0)
    assert shares.bytes == 40


def test_the_model_with_the_large_bodies_pays_with_as_many_as_it_takes() -> None:
    shares = Shares(max_bytes=100)
    large, small = model(shares), model(shares)
    for limiter in (large, small):
        enter(limiter)
    bodies = [enter(large, 30) for _ in range(3)]
    enter(small, 40)
    assert [call.error is not None for call in bodies] == [False, False, True]
    assert (large.queued_bytes, small.queued_bytes) == (60, 40)
    assert bodies[-1].body == b""


def test_a_model_that_its_own_queue_refuses_costs_nobody_else_a_call() -> None:
    shares = Shares(max_calls=4)
    full, other = model(shares, max_queue=0), model(shares)
    enter(full)
    calls = [enter(other) for _ in range(3)]
    with pytest.raises(Overloaded, match="model 'm'"):
        enter(full)
    assert all(call.error is None for call in calls)


def test_nobody_pays_for_a_newcomer_that_is_refused_all_the_same() -> None:
    shares = Shares(max_calls=4, max_bytes=50)
    large, other = model(shares), model(shares)
    enter(large)
    bodies = [enter(large, 25) for _ in range(2)]
    enter(other)
    with pytest.raises(Overloaded, match="50 bytes"):
        enter(other, 26)
    assert all(call.error is None for call in bodies)


def test_of_models_that_hold_the_same_the_one_that_came_first_pays() -> None:
    shares = Shares(max_calls=40)
    models = [model(shares) for _ in range(20)]
    waiting = [[enter(limiter) for _ in range(2)][1] for limiter in models]
    for number in range(1, 6):
        enter(model(shares))
        assert [call.error is not None for call in waiting] == [True] * number + [False] * (20 - number)


class Party:
    """Calls of which all wait, and how often somebody has looked at what they hold."""

    def __init__(self, shares: Shares, sizes: list[int]) -> None:
        self.calls = [Waiter(self, size) for size in sizes]  # type: ignore[arg-type]
        self.looks = 0
        shares.parties[self] = None
        shares.calls += len(sizes)
        shares.bytes += sum(sizes)

    def _look(self, value: int) -> int:
        self.looks += 1
        return value

    @property
    def in_flight(self) -> int:
        return self._look(len(self.calls))

    @property
    def queued_bytes(self) -> int:
        return self._look(sum(len(call.body) for call in self.calls))

    @property
    def line(self) -> int:
        return self._look(len(self.calls))

    def newest_first(self) -> Iterator[Waiter]:
        return reversed(self.calls)

    def retry_after(self) -> float:
        return 1.0

    def leave(self, call: Waiter) -> None:
        pass


def test_a_large_call_that_thousands_of_small_ones_make_room_for_looks_at_each_once() -> None:
    def work(count: int) -> int:
        shares = Shares(max_bytes=11 * count)
        party, other = Party(shares, [10 * count, *[1] * count]), Party(shares, [])
        steps = 0

        def count_steps(*_: Any) -> None:
            nonlocal steps
            steps += 1

        sys.settrace(lambda *_: count_steps)
        try:
            shares.make_room(other, count)
        finally:
            sys.settrace(None)
        assert [call.error is not None for call in party.calls] == [False] + [True] * count
        assert party.looks < 10
        return steps

    assert work(2000) < 15 * work(200)  # a hundred times, by the square


class Fairness(RuleBasedStateMachine):
    """Calls of three models come, run, leave and are lost in any order."""

    @initialize(
        max_calls=st.integers(1, 8), max_bytes=st.integers(0, 60), slots=st.lists(st.integers(1, 3), min_size=3)
    )
    def begin(self, max_calls: int, max_bytes: int, slots: list[int]) -> None:
        self.shares = Shares(max_calls, max_bytes)
        self.models = [model(self.shares, count, max_queue=4) for count in slots[:3]]
        self.calls: list[Waiter] = []

    @rule(which=st.integers(0, 2), size=st.integers(0, 30), times=st.integers(1, 6))
    def arrive(self, which: int, size: int, times: int) -> None:
        for _ in range(times):
            self.one_arrives(self.models[which], size)

    def one_arrives(self, mine: Limiter, size: int) -> None:
        before = {id(limiter): (limiter.in_flight, limiter.queued_bytes) for limiter in self.models}
        had_one_waiting = {id(limiter): limiter.line > 0 for limiter in self.models}
        call = Waiter(mine, size)
        calls, held = before[id(mine)]
        is_short_of_bytes = self.shares.bytes + size > self.shares.max_bytes
        try:
            mine.enter(call)  # type: ignore[arg-type]
        except Overloaded as error:
            if "gateway" in str(error):
                after = {id(limiter): (limiter.in_flight, limiter.queued_bytes) for limiter in self.models}
                assert after == before, "somebody lost a call for nothing"
                larger = [
                    limiter
                    for limiter in self.models
                    if before[id(limiter)][0] > calls + 1 and had_one_waiting[id(limiter)]
                ]
                assert is_short_of_bytes or not larger, "one with more calls could have paid"
        else:
            self.calls.append(call)
        for limiter in self.models:
            if limiter is not mine and limiter.in_flight < before[id(limiter)][0]:
                assert before[id(limiter)][0] > calls or before[id(limiter)][1] > held, "the smaller one paid"
        self.calls = [other for other in self.calls if other.error is None]

    @precondition(lambda self: any(call.seat is not None for call in self.calls))
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from([call for call in self.calls if call.seat is not None]))
        self.calls.remove(call)
        assert call.seat is not None
        call.limiter.give_back(call.seat, 1.0)

    @precondition(lambda self: any(call.seat is None for call in self.calls))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from([call for call in self.calls if call.seat is None]))
        self.calls.remove(call)
        call.abandon(RuntimeError("left"))

    @invariant()
    def the_books_balance(self) -> None:
        if not hasattr(self, "shares"):
            return
        assert self.shares.calls == sum(limiter.in_flight for limiter in self.models) == len(self.calls)
        assert self.shares.calls <= self.shares.max_calls
        waiting = [call for call in self.calls if call.seat is None]
        assert self.shares.bytes == sum(len(call.body) for call in waiting) <= self.shares.max_bytes
        for limiter in self.models:
            assert limiter.queued_bytes == sum(len(call.body) for call in waiting if call.limiter is limiter)
            assert limiter.in_flight <= limiter.slots + limiter.max_queue

    def teardown(self) -> None:
        if not hasattr(self, "shares"):
            return
        while self.calls:
            call = next(call for call in self.calls if call.seat is not None)
            self.calls.remove(call)
            assert call.seat is not None
            call.limiter.give_back(call.seat, 1.0)
        assert (self.shares.calls, self.shares.bytes) == (0, 0)


TestFairness = Fairness.TestCase
TestFairness.settings = settings(PATIENT, max_examples=150, stateful_step_count=50)
