"""Nobody runs without a slot, nobody waits beyond the queue, everybody who came is served in order, once."""

from __future__ import annotations

import math
from typing import Any

import pytest
from fakes import PATIENT
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.admission.queue import MAX_RETRY_AFTER, Limiter, Seat
from gateway.errors import Overloaded


class Waiter:
    """As much of a call as the limiter sees."""

    def __init__(self, name: Any = "") -> None:
        self.name = name
        self.error: Exception | None = None
        self.seat: Seat | None = None
        self.body = b""
        self.is_ahead = self.is_recalled = False

    def __repr__(self) -> str:
        return f"call {self.name}"


def limiter(max_queue: int = 2, *seats: Seat) -> tuple[Limiter, list[Waiter]]:
    started: list[Waiter] = []

    def start(call: Any, seat: Seat) -> None:
        call.seat = seat
        started.append(call)

    found = Limiter(max_queue, start, "m")
    for seat in seats:
        found.add(seat)
    return found, started


def leave(limit: Limiter, call: Waiter) -> None:
    call.error = RuntimeError("left")
    limit.leave(call)  # type: ignore[arg-type]


def enter(limit: Limiter, *names: Any) -> list[Waiter]:
    calls = [Waiter(name) for name in names]
    for call in calls:
        limit.enter(call)  # type: ignore[arg-type]
    return calls


def test_a_call_starts_at_once_while_a_slot_is_free() -> None:
    limit, started = limiter(0, Seat("replica", 2))
    calls = enter(limit, 1, 2)
    assert started == calls
    assert (limit.running, limit.queued, limit.slots) == (2, 0, 2)


def test_a_full_queue_refuses_with_the_time_to_come_back() -> None:
    limit, started = limiter(1, Seat("replica", 1))
    enter(limit, 1, 2)
    with pytest.raises(Overloaded, match="1 call in progress, 1 waiting") as caught:
        enter(limit, 3)
    assert caught.value.retry_after == 1
    assert limit.queued == 1
    assert len(started) == 1


def test_without_a_queue_the_second_call_is_refused() -> None:
    limit, _ = limiter(0, Seat("replica", 1))
    enter(limit, 1)
    with pytest.raises(Overloaded):
        enter(limit, 2)


def test_slots_go_first_come_first_served() -> None:
    seat = Seat("replica", 1)
    limit, started = limiter(5, seat)
    calls = enter(limit, 1, 2, 3)
    limit.give_back(seat, 1.0)
    limit.give_back(seat, 1.0)
    assert started == calls


def test_a_new_call_does_not_overtake_those_who_wait() -> None:
    limit, started = limiter(5)
    calls = enter(limit, 1, 2)  # no replica yet
    seat = Seat("replica", 1)
    limit.add(seat)
    calls += enter(limit, 3)
    assert started == calls[:1]
    limit.give_back(seat, 1.0)
    limit.give_back(seat, 1.0)
    assert started == calls


def test_a_call_that_left_the_queue_never_starts_and_its_place_is_free() -> None:
    seat = Seat("replica", 1)
    limit, started = limiter(1, seat)
    _, second = enter(limit, 1, 2)
    leave(limit, second)
    assert limit.queued == 0
    (third,) = enter(limit, 3)
    limit.give_back(seat, 1.0)
    assert started[-1] is third
    assert second.seat is None


def test_many_who_leave_do_not_pile_up_in_the_queue() -> None:
    limit, _ = limiter(3, Seat("replica", 1))
    enter(limit, "runs")
    for number in range(1000):
        (call,) = enter(limit, number)
        leave(limit, call)
    assert limit.queued == 0
    assert len(limit._waiting) <= 4


def test_the_freest_replica_gets_the_call() -> None:
    one, two = Seat("one", 2), Seat("two", 3)
    limit, started = limiter(0, one, two)
    enter(limit, *range(5))
    assert [call.seat.owner for call in started if call.seat] == ["two", "one", "two", "one", "two"]
    assert limit.running == 5


def test_calls_on_a_removed_replica_keep_what_they_hold_and_nobody_follows_them() -> None:
    one, two = Seat("one", 1), Seat("two", 1)
    limit, started = limiter(5, one, two)
    enter(limit, 1, 2, 3)
    limit.remove(one)
    limit.give_back(one, 1.0)
    assert len(started) == 2
    limit.give_back(two, 1.0)
    assert started[-1].seat is two


def test_a_call_that_a_dead_replica_refused_goes_to_another_before_all_others() -> None:
    one, two = Seat("one", 1), Seat("two", 1)
    limit, started = limiter(5, one, two)
    first, _, _ = enter(limit, 1, 2, 3)
    assert limit.refused(first, one)  # type: ignore[arg-type]
    limit.give_back(two, 1.0)
    assert [call.name for call in started] == [1, 2, 1]


def test_a_refused_call_has_nowhere_to_go_when_the_last_replica_is_gone() -> None:
    seat = Seat("one", 1)
    limit, _ = limiter(5, seat)
    (first,) = enter(limit, 1)
    assert not limit.refused(first, seat)  # type: ignore[arg-type]
    assert limit.in_flight == 0


def test_a_thousand_waiting_calls_survive_the_death_of_every_replica() -> None:
    """Each of them is refused in turn, without one nested in the other."""
    limit, _ = limiter(2000)

    def start(call: Any, seat: Seat) -> None:
        limit.refused(call, seat)

    enter(limit, *range(1500))
    limit._start = start  # type: ignore[assignment]
    for name in range(3):
        limit.add(Seat(name, 1))
    assert limit.seats == []


# ── calls that wait inside the worker ────────────────────────────────────────────────────────────────────────────────


def test_with_hooks_slots_and_queue_together_get_in_and_no_more() -> None:
    limit, started = limiter(3, Seat("replica", 2, inside=3))
    enter(limit, *range(5))
    assert len(started) == 5
    with pytest.raises(Overloaded):
        enter(limit, 6)


def test_with_hooks_those_without_a_slot_count_as_queued() -> None:
    seat = Seat("replica", 2, inside=3)
    limit, _ = limiter(3, seat)
    seat.waiting += 5
    enter(limit, *range(5))
    assert (limit.running, limit.queued) == (0, 5)
    seat.waiting -= 2
    assert (limit.running, limit.queued) == (2, 3)


def test_with_hooks_several_replicas_share_one_queue() -> None:
    limit, started = limiter(2, Seat("one", 1, inside=2), Seat("two", 1, inside=2))
    enter(limit, *range(4))
    assert sorted(call.seat.owner for call in started if call.seat) == ["one", "one", "two", "two"]
    with pytest.raises(Overloaded):
        enter(limit, 5)


# ── when to come back ────────────────────────────────────────────────────────────────────────────────────────────────


def test_retry_after_grows_with_the_queue_and_the_measured_time_and_stays_bounded() -> None:
    seat = Seat("replica", 1)
    limit, _ = limiter(100, seat)
    assert limit.retry_after() == 1
    enter(limit, *range(11))
    for _ in range(50):
        limit.mean_service = 2.0
        assert 17 <= limit.retry_after() <= 27  # one runs and ten wait for two seconds each, a fifth more or less
    limit.mean_service = 1000.0
    assert limit.retry_after() == MAX_RETRY_AFTER


def test_without_a_queue_retry_after_counts_the_calls_that_run() -> None:
    limit, _ = limiter(0, Seat("replica", 2))
    enter(limit, 1, 2)
    limit.mean_service = 20.0
    with pytest.raises(Overloaded) as caught:
        enter(limit, 3)
    assert caught.value.retry_after is not None and 16 <= caught.value.retry_after <= 24


@pytest.mark.parametrize(
    ("waiting", "mean", "slots"), [(0, 5.0, 1), (1, 0.0, 1), (7, 3.0, 2), (5, 0.1, 3), (10, 90.0, 1)]
)
@pytest.mark.parametrize("jitter", [0.8, 1.0, 1.2])
def test_retry_after_is_those_in_flight_times_the_mean_by_the_slots(
    waiting: int, mean: float, slots: int, jitter: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, _ = limiter(100, Seat("replica", slots))
    enter(limit, *range(slots + waiting))
    limit.mean_service = mean
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        bounds.extend((low, high))
        return jitter

    monkeypatch.setattr("random.uniform", uniform)
    assert limit.retry_after() == max(1, min(60, math.ceil((slots + waiting) * mean / slots * jitter)))
    assert bounds == [0.8, 1.2]


def test_the_measured_time_follows_the_calls_and_ignores_those_that_never_ran() -> None:
    seat = Seat("replica", 1)
    limit, _ = limiter(0, seat)
    for held in (4.0, 4.0, None, 2.0):
        enter(limit, 1)
        limit.give_back(seat, held)
    assert limit.mean_service == pytest.approx(3.8)


# ── any order of events ──────────────────────────────────────────────────────────────────────────────────────────────


class Admission(RuleBasedStateMachine):
    """Arrivals, ends, cancels, vanished clients, time-outs, crashes, restarts, new bounds and drains, in any order.

    By a clock of its own. Time-outs are found by a sweep, which comes late, or not at all before a slot is free.
    """

    @initialize(max_queue=st.integers(0, 4), slots=st.lists(st.integers(1, 3), min_size=1, max_size=3))
    def begin(self, max_queue: int, slots: list[int]) -> None:
        self.now = 0.0
        self.arrivals = 0
        self.ends: dict[int, list[str]] = {}
        self.order: list[int] = []  # of those who wait
        self.running: list[Waiter] = []
        self.waiting: list[Waiter] = []
        self.dead: list[Seat] = []
        self.limit = Limiter(max_queue, self.start, "m", self.is_late)  # type: ignore[arg-type]
        for count in slots:
            self.limit.add(Seat(object(), count))

    def start(self, call: Waiter, seat: Seat) -> None:
        assert call.error is None, "a call that has ended reached the model"
        assert self.now <= call.deadline, "a call whose time was over reached the model"  # type: ignore[attr-defined]
        if call in self.waiting:
            live = [other for other in self.waiting if other.error is None]
            assert live[0] is call, f"{call} overtook {live[0]}"
            self.waiting.remove(call)
        call.seat, call.since = seat, self.now  # type: ignore[attr-defined]
        self.running.append(call)

    def finish(self, call: Waiter, how: str) -> None:
        self.ends[call.name].append(how)

    def is_late(self, call: Any) -> bool:
        if self.now <= call.deadline:
            return False
        self.waiting.remove(call)
        self.finish(call, "time-out")
        leave(self.limit, call)
        return True

    @rule(patience=st.lists(st.sampled_from([1.0, 5.0, 100.0]), min_size=1, max_size=6))
    def arrive(self, patience: list[float]) -> None:
        for seconds in patience:
            self.one_arrives(seconds)

    def one_arrives(self, patience: float) -> None:
        self.arrivals += 1
        call: Any = Waiter(self.arrivals)
        call.deadline = self.now + patience
        self.ends[call.name] = []
        before = self.limit.queued
        try:
            self.limit.enter(call)  # type: ignore[arg-type]
        except Overloaded:
            assert before >= self.limit.max_queue
            assert self.limit.running == self.limit.slots
            self.finish(call, "refused")
        else:
            if call not in self.running:
                self.waiting.append(call)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.running))
        self.running.remove(call)
        self.finish(call, "answered")
        assert call.seat is not None
        self.limit.give_back(call.seat, self.now - call.since)  # type: ignore[attr-defined]

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Nobody wants it any more; its code runs on, and so its slot stays taken."""
        call = data.draw(st.sampled_from(self.running))
        call.error = RuntimeError("left")

    @rule()
    def sweep(self) -> None:
        for call in tuple(self.limit.waiting()):
            self.is_late(call)

    @rule(max_queue=st.integers(0, 4))
    def resize(self, max_queue: int) -> None:
        """A reload with another bound: who waits goes on waiting."""
        self.limit.max_queue = max_queue

    @rule()
    def drain(self) -> None:
        """The time is up: those who wait are sent away before the first slot is free, those who run come to an end."""
        for call in tuple(self.waiting):
            self.waiting.remove(call)
            self.finish(call, "drained")
            leave(self.limit, call)
        for call in tuple(self.running):
            self.running.remove(call)
            self.finish(call, "drained")
            assert call.seat is not None
            self.limit.give_back(call.seat, None)
        assert self.limit.in_flight == 0

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), how=st.sampled_from(["client left", "time-out", "drain"]))
    def give_up(self, data: st.DataObject, how: str) -> None:
        call = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(call)
        self.finish(call, how)
        leave(self.limit, call)

    @precondition(lambda self: self.limit.seats)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        seat = data.draw(st.sampled_from(self.limit.seats))
        self.limit.remove(seat)
        for call in [call for call in self.running if call.seat is seat]:
            self.running.remove(call)
            self.finish(call, "crashed")
            self.limit.give_back(seat, None)
        self.dead.append(seat)

    @rule(slots=st.integers(1, 3))
    def restart(self, slots: int) -> None:
        if len(self.limit.seats) < 3:
            self.limit.add(Seat(object(), slots))

    @rule(seconds=st.sampled_from([0.5, 2.0, 10.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_books_balance(self) -> None:
        if not hasattr(self, "limit"):
            return
        for seat in self.limit.seats:
            assert 0 <= seat.used <= seat.slots
            assert seat.used == sum(call.seat is seat for call in self.running)
        assert all(seat.used == 0 for seat in self.dead)
        self.most = max(getattr(self, "most", 0), self.limit.max_queue)
        assert self.limit.queued == len(self.waiting) <= self.most
        assert self.limit.running == len(self.running)
        if self.waiting:
            assert self.limit.running == self.limit.slots, "a call waits beside a free slot"
        assert 1 <= self.limit.retry_after() <= MAX_RETRY_AFTER

    def teardown(self) -> None:
        if not hasattr(self, "limit"):
            return
        self.now = 0.0  # nobody who still waits gives up any more
        if not self.limit.seats:
            self.limit.add(Seat(object(), 1))
        while self.running:
            call = self.running.pop(0)
            self.finish(call, "answered")
            assert call.seat is not None
            self.limit.give_back(call.seat, 0.1)
        assert self.waiting == []
        assert all(len(ends) == 1 for ends in self.ends.values()), "a call ended twice, or never"
        assert self.limit.in_flight == 0


TestAdmission = Admission.TestCase
TestAdmission.settings = settings(PATIENT, max_examples=150, stateful_step_count=70)
