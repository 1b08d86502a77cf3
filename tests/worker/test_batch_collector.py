"""Which items form a batch, over any arrival times: the clock is a number that the test passes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.worker.batching.collector import NEVER, Bounds, Collector, Item


@dataclass(frozen=True)
class Request:
    arrives: int
    key: str
    costs: tuple[int, ...]  # of its items


@dataclass
class Ran:
    began: float
    items: list[Item]
    left: dict[Any, int] = field(default_factory=dict)  # waiting items of each other request with this key


def run(requests: list[Request], bounds: Bounds, delay: int, lanes: int, takes: int) -> list[Ran]:
    """Let requests arrive, and run each batch for `takes` in one of the lanes. Time goes on in whole numbers."""
    collector, ran, ends = Collector(), list[Ran](), list[int]()
    waiting = dict(enumerate(requests))
    now = 0
    while waiting or ends or len(collector):
        ends = [end for end in ends if end > now]
        for number, request in list(waiting.items()):
            if request.arrives <= now:
                del waiting[number]
                for index, cost in enumerate(request.costs):
                    key = ("predict_batch", request.key)
                    collector.add(Item(OWNERS[number], number, key, bounds, now, delay, cost, index))
        while len(ends) < lanes and (items := collector.take(now)):
            groups = collector._groups.get(items[0].key)
            left = {q.items[0].owner: len(q.items) for q in groups.queues.values()} if groups else {}
            ran.append(Ran(now, items, left))
            ends.append(now + takes)
        if len(ends) < lanes:
            assert collector.due > now, "an item is due, and a lane is free"
        now += 1
    assert collector.due == NEVER
    return ran


OWNERS = [f"request {number}" for number in range(100)]

arrivals = st.lists(
    st.builds(
        Request,
        arrives=st.integers(0, 30),
        key=st.sampled_from("ab"),
        costs=st.lists(st.integers(0, 9), min_size=1, max_size=9).map(tuple),
    ),
    max_size=25,
)
several = {"delay": st.integers(0, 8), "lanes": st.integers(1, 3), "takes": st.integers(1, 6)}


def in_order(requests: list[Request]) -> list[Request]:
    return sorted(requests, key=lambda request: request.arrives)


@given(arrivals, st.integers(1, 8), st.one_of(st.just(NEVER), st.integers(1, 20)), *several.values())
def test_every_item_is_in_one_batch_of_its_key_within_size_and_budget(
    requests: list[Request], size: int, budget: float, delay: int, lanes: int, takes: int
) -> None:
    requests = in_order(requests)
    ran = run(requests, Bounds(size, budget), delay, lanes, takes)
    found = sorted((item.value, item.index) for batch in ran for item in batch.items)
    assert found == [(number, index) for number, each in enumerate(requests) for index in range(len(each.costs))]
    for batch in ran:
        assert len({item.key for item in batch.items}) == 1
        assert len(batch.items) <= size
        assert len(batch.items) == 1 or sum(item.cost for item in batch.items) <= budget


@given(arrivals, st.integers(1, 8), st.one_of(st.just(NEVER), st.integers(1, 20)), *several.values())
def test_items_of_a_request_stay_in_order_and_so_do_single_ones_of_a_key(
    requests: list[Request], size: int, budget: float, delay: int, lanes: int, takes: int
) -> None:
    requests = in_order(requests)
    of_request, singles = defaultdict(list), defaultdict(list)
    for batch in run(requests, Bounds(size, budget), delay, lanes, takes):
        for item in batch.items:
            of_request[item.value].append(item.index)
            if len(requests[item.value].costs) == 1:
                singles[item.key].append(item.value)
    assert all(order == sorted(order) for order in (*of_request.values(), *singles.values()))


@given(arrivals, st.integers(1, 8), *several.values())
def test_while_others_wait_a_request_gets_at_most_half_of_a_batch(
    requests: list[Request], size: int, delay: int, lanes: int, takes: int
) -> None:
    for batch in run(in_order(requests), Bounds(size), delay, lanes, takes):
        share = defaultdict(int)
        for item in batch.items:
            share[item.owner] += 1
        for owner, count in share.items():
            if any(other != owner for other in batch.left):
                assert count <= (size + 1) // 2


@given(arrivals, st.integers(1, 8), st.integers(0, 8), st.integers(1, 6))
def test_an_item_that_the_next_batch_has_room_for_waits_for_delay_and_one_batch(
    requests: list[Request], size: int, delay: int, takes: int
) -> None:
    requests = [Request(each.arrives, "a", each.costs) for each in in_order(requests)]
    ran = run(requests, Bounds(size), delay, 1, takes)
    began = {(item.value, item.index): batch.began for batch in ran for item in batch.items}
    for number, request in enumerate(requests):
        ahead = sum(
            1
            for (other, _), start in began.items()
            if other < number and requests[other].arrives <= request.arrives <= start
        )
        if ahead < size:
            assert began[number, 0] - request.arrives <= delay + takes


def test_a_batch_waits_for_the_delay_of_its_oldest_item_or_until_it_is_full() -> None:
    collector, bounds = Collector(), Bounds(3)
    collector.add(Item("a", 1, ("m", None), bounds, 10.0, 0.5))
    collector.add(Item("b", 2, ("m", None), bounds, 10.4, 0.5))
    assert collector.take(10.4) == [] and collector.due == 10.5
    assert [item.value for item in collector.take(10.5)] == [1, 2]
    for number in range(3):
        collector.add(Item(f"c{number}", number, ("m", None), bounds, 11.0, 0.5))
    assert len(collector.take(11.0)) == 3
    assert len(collector) == 0


def test_a_long_list_with_one_key_does_not_hold_up_a_single_input_with_another() -> None:
    collector, bounds = Collector(), Bounds(4)
    for index in range(100):
        collector.add(Item("bulk", index, ("m", "a"), bounds, 0.0, index=index))
    collector.add(Item("single", "x", ("m", "b"), bounds, 1.0))
    assert [item.value for item in collector.take(2.0)] == [0, 1, 2, 3]
    assert [item.value for item in collector.take(3.0)] == ["x"]


def test_the_calls_of_one_request_have_one_share_and_each_can_be_removed() -> None:
    collector, bounds = Collector(), Bounds(4)
    for number in range(8):
        collector.add(Item(OWNERS[number], number, ("m", None), bounds, 0.0, request="r1"))
    collector.add(Item("other", "x", ("m", None), bounds, 1.0, request="r2"))
    collector.add(Item("another", "y", ("m", None), bounds, 1.0, request="r3"))
    assert collector.remove(OWNERS[1]) == 1
    assert [item.value for item in collector.take(2.0)] == [0, 2, "x", "y"]
    assert [item.value for item in collector.take(2.0)] == [3, 4, 5, 6]


def test_an_item_beyond_the_budget_goes_alone_and_none_overtakes_one_that_does_not_fit() -> None:
    collector, bounds = Collector(), Bounds(8, 10)
    for name, cost in (("a", 6), ("b", 25), ("c", 1), ("d", 1)):
        collector.add(Item(name, name, ("m", None), bounds, 0.0, cost=cost))
    assert [[item.value for item in collector.take(0.0)] for _ in range(3)] == [["a"], ["b"], ["c", "d"]]


def test_a_removed_request_leaves_nothing_behind() -> None:
    collector, bounds = Collector(), Bounds(8)
    for index in range(3):
        collector.add(Item("gone", index, ("m", index % 2), bounds, 0.0))
    collector.add(Item("stays", "x", ("m", 0), bounds, 0.0))
    assert collector.remove("gone") == 3
    assert [item.value for item in collector.take(0.0)] == ["x"]
    assert collector.due == NEVER and not len(collector)
