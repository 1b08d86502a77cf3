"""The packer: examples for each step of `plan`, mistakes that are easy to make, and properties."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.devices.device import GIB, Device, parse_devices
from gateway.devices.placement import Claim, NoFit, Placement, Request, available, claims_of, explain, plan, plan_all

H100 = "NVIDIA H100 80GB HBM3"


def device(index: int, total: int = 80, **rest: Any) -> Device:
    if rest.get("free") is not None:
        rest["free"] = int(rest["free"] * GIB)
    return Device(**{"id": f"GPU-{index}", "index": index, "total": total * GIB, "model": H100, **rest})


def shared(owner: str, memory: int, **rest: Any) -> Request:
    return Request(owner=owner, memory=memory * GIB, **rest)


def holds(owner: str, device: int, memory: int | None = None, **rest: Any) -> Claim:
    size = {"exclusive": True} if memory is None else {"memory": memory * GIB}
    return Claim(owner=owner, device=f"GPU-{device}", **size, **rest)


def ids(outcome: Placement | NoFit) -> list[str]:
    assert isinstance(outcome, Placement), outcome
    return [device.id for device in outcome.devices]


def refusal(outcome: Placement | NoFit, reason: str) -> str:
    assert isinstance(outcome, NoFit), outcome
    assert outcome.reason == reason
    return "; ".join(outcome.detail)


# ---- step 0 to 2: what is wanted -------------------------------------------------------------------------------------


def test_a_cpu_model_is_placed_without_devices() -> None:
    assert plan([], [], Request(owner="a/0", count=0)) == Placement()


def test_a_pin_takes_ids_indices_and_unique_beginnings() -> None:
    devices = [device(0, id="GPU-aaaa"), device(1, id="GPU-abbb"), device(2, id="GPU-cccc")]
    outcome = plan(devices, [], Request(owner="a/0", count=3, pin=("GPU-c", "1", "GPU-aaaa")))
    assert ids(outcome) == ["GPU-aaaa", "GPU-abbb", "GPU-cccc"]


def test_an_absent_pin_is_named_with_what_there_is() -> None:
    text = refusal(plan([device(0)], [], Request(owner="a/0", count=2, pin=("0", "GPU-9"))), "impossible")
    assert text == "pinned device 'GPU-9' does not exist; have 0 = GPU-0"


def test_an_ambiguous_pin_lists_its_meanings() -> None:
    slices = [device(0, id="MIG-a"), device(0, id="MIG-b")]
    text = refusal(plan(slices, [], Request(owner="a/0", pin=("0",))), "impossible")
    assert "'0' means any of MIG-a, MIG-b" in text


@pytest.mark.parametrize("pin", [("GPU-0", "GPU-0", "GPU-1"), ("0", "GPU-0")])
def test_a_pin_that_names_a_device_twice_is_refused(pin: tuple[str, ...]) -> None:
    outcome = plan([device(0), device(1)], [], Request(owner="a/0", count=2, pin=pin))
    assert "occurs twice" in refusal(outcome, "impossible")


def test_a_pin_of_another_number_than_wanted_is_refused() -> None:
    outcome = plan([device(0), device(1)], [], Request(owner="a/0", count=2, pin=("0",)))
    assert refusal(outcome, "impossible") == "pinned to 1 device, but each replica wants 2"


def test_a_missing_accelerator_is_impossible_and_says_what_there_is_and_what_to_do() -> None:
    devices = [device(0), device(1), device(2, model="NVIDIA L4")]
    text = refusal(plan(devices, [], Request(owner="a/0", accelerator="A10G")), "impossible")
    assert text.startswith(f"1 × A10G wanted, 0 present; have 2 × {H100}, 1 × NVIDIA L4; ")
    assert 'unmatched_accelerator = "any"' in text


def test_no_device_at_all_is_impossible() -> None:
    text = refusal(plan([], [], Request(owner="a/0")), "impossible")
    assert text == "1 × GPU wanted, 0 present; this machine has none"


def test_unmatched_any_takes_what_there_is_and_says_so() -> None:
    outcome = plan([device(0)], [], Request(owner="a/0", accelerator="A10G"), unmatched="any")
    assert ids(outcome) == ["GPU-0"]
    assert isinstance(outcome, Placement)
    assert "it uses what is available" in outcome.notes[0]


def test_unmatched_any_still_prefers_the_named_accelerator() -> None:
    devices = [device(0, 24, model="NVIDIA L4"), device(1)]
    outcome = plan(devices, [], Request(owner="a/0", accelerator="H100"), unmatched="any")
    assert outcome == Placement(devices=(devices[1],))


def test_unmatched_cpu_runs_on_the_cpu_and_says_so() -> None:
    outcome = plan([device(0)], [], Request(owner="a/0", accelerator="A10G"), unmatched="cpu")
    assert isinstance(outcome, Placement)
    assert outcome.devices == ()
    assert "it runs on the CPU" in outcome.notes[0]


def test_a_pin_is_never_answered_with_the_cpu() -> None:
    request = Request(owner="a/0", accelerator="A10G", pin=("0",))
    refusal(plan([device(0)], [], request, unmatched="cpu"), "impossible")


# ---- step 3 and 4: what could ever hold it ---------------------------------------------------------------------------


def test_two_kinds_are_never_combined() -> None:
    devices = [device(0), device(1, kind="rocm", model="MI300X")]
    text = refusal(plan(devices, [], Request(owner="a/0", count=2)), "impossible")
    assert "2 devices of one kind wanted, 1 × cuda present" in text
    assert "1 × rocm present" in text


def test_mig_slices_are_never_combined() -> None:
    slices = [device(0, 20, id="MIG-a"), device(0, 20, id="MIG-b")]
    text = refusal(plan(slices, [], Request(owner="a/0", count=2)), "impossible")
    assert "2 MIG slices, which cannot be combined" in text
    assert ids(plan(slices, [], Request(owner="a/0"))) == ["MIG-a"]


def test_more_memory_than_any_device_is_impossible_with_the_arithmetic() -> None:
    text = refusal(plan([device(0, 24, model="L4")], [], shared("a/0", 24)), "impossible")
    assert text == "GPU 0 (L4, 24GiB): 23GiB after 1GiB of headroom, 24GiB wanted"


def test_a_share_is_taken_of_each_devices_own_total() -> None:
    devices = [device(0, 24, model="NVIDIA L4"), device(1, 80)]
    request = Request(owner="a/0", count=2, share=0.5)
    outcome = plan(devices, [], request)
    assert isinstance(outcome, Placement)
    assert [claim.memory for claim in claims_of(request, outcome)] == [12 * GIB, 40 * GIB]


# ---- step 5 and 6: fit and choice ------------------------------------------------------------------------------------


def test_exclusive_takes_the_smallest_free_device() -> None:
    devices = [device(0, 80), device(1, 24), device(2, 24)]
    assert ids(plan(devices, [], Request(owner="a/0"))) == ["GPU-1"]
    assert ids(plan(devices, [holds("b/0", 1)], Request(owner="a/0"))) == ["GPU-2"]


def test_shared_takes_the_device_with_the_least_left_over() -> None:
    devices = [device(0), device(1)]
    assert ids(plan(devices, [holds("b/0", 1, 40)], shared("a/0", 20))) == ["GPU-1"]


def test_shared_keeps_away_from_an_exclusive_owner() -> None:
    outcome = plan([device(0)], [holds("b/0", 0)], shared("a/0", 1))
    assert "held by b/0 (alone)" in refusal(outcome, "busy")


def test_even_nothing_is_not_shared_with_an_exclusive_owner() -> None:
    refusal(plan([device(0)], [holds("b/0", 0)], shared("a/0", 0), headroom=0), "busy")


def test_headroom_is_never_handed_out() -> None:
    claims = [holds("b/0", 0, 40)]
    assert available(device(0), claims) == 39 * GIB
    refusal(plan([device(0)], claims, shared("a/0", 40)), "busy")
    assert ids(plan([device(0)], claims, shared("a/0", 40), headroom=0)) == ["GPU-0"]


def test_available_is_the_smaller_of_ledger_and_observation() -> None:
    claims = [holds("b/0", 0, 40)]
    assert available(device(0, free=70), claims) == 39 * GIB  # the load of b/0 has not reached the driver yet
    assert available(device(0, free=10), claims) == 9 * GIB  # somebody else is there too


def test_devices_of_one_numa_node_are_preferred() -> None:
    devices = [device(n, numa=node) for n, node in enumerate((0, 1, 1, 0))]
    assert ids(plan(devices, [], Request(owner="a/0", count=2))) == ["GPU-0", "GPU-3"]
    assert ids(plan(devices, [holds("b/0", 0)], Request(owner="a/0", count=2))) == ["GPU-1", "GPU-2"]
    assert ids(plan(devices, [], Request(owner="a/0", count=3))) == ["GPU-0", "GPU-1", "GPU-2"]


def test_several_devices_are_of_one_model_where_possible() -> None:
    devices = [device(0, 24, model="NVIDIA L4"), device(1), device(2)]
    assert ids(plan(devices, [], Request(owner="a/0", count=2))) == ["GPU-1", "GPU-2"]


def test_busy_says_for_each_device_what_is_available_and_who_has_the_rest() -> None:
    devices = [device(0, free=20, model="H100"), device(1, model="H100")]
    claims = [holds("b/0", 0, 30), holds("c/0", 1, 70, evictable=True)]
    outcome = plan(devices, claims, shared("a/0", 20), evict=False)
    assert isinstance(outcome, NoFit)
    assert outcome.detail == (
        "GPU 0 (H100, 80GiB): 19GiB available, 20GiB wanted, held by b/0 (30GiB), other processes (30GiB)",
        "GPU 1 (H100, 80GiB): 9GiB available, 20GiB wanted, held by c/0 (70GiB, evictable)",
    )


def test_busy_blames_other_processes_even_for_a_little() -> None:
    text = refusal(plan([device(0, 24, free=22)], [], shared("a/0", 22)), "busy")
    assert text.endswith("21GiB available, 22GiB wanted, held by other processes (2GiB)")


def test_busy_says_which_devices_are_free_though_too_few() -> None:
    outcome = plan([device(0), device(1)], [holds("b/0", 0)], Request(owner="a/0", count=2))
    assert "GPU 1 (NVIDIA H100 80GB HBM3, 80GiB): is free, but 2 are wanted together" in refusal(outcome, "busy")


# ---- step 7: eviction ------------------------------------------------------------------------------------------------


def evictions(outcome: Placement | NoFit) -> tuple[str, ...]:
    assert isinstance(outcome, Placement), outcome
    return outcome.evict


def test_nobody_is_evicted_while_there_is_room() -> None:
    claims = [holds("b/0", 0, 10, evictable=True)]
    assert evictions(plan([device(0)], claims, shared("a/0", 20))) == ()


def test_the_least_recently_used_goes_first() -> None:
    claims = [holds("b/0", 0, evictable=True, last_used=2), holds("c/0", 1, evictable=True, last_used=1)]
    outcome = plan([device(0), device(1)], claims, Request(owner="a/0"))
    assert (ids(outcome), evictions(outcome)) == (["GPU-1"], ("c/0",))


def test_among_equally_idle_owners_the_name_decides() -> None:
    claims = [holds("c/0", 0, evictable=True), holds("b/0", 1, evictable=True)]
    assert evictions(plan([device(0), device(1)], claims, Request(owner="a/0"))) == ("b/0",)


def test_an_owner_whose_eviction_proves_unnecessary_is_spared() -> None:
    claims = [
        holds("old/0", 1, 10, evictable=True, last_used=1),
        holds("small/0", 0, 10, evictable=True, last_used=2),
        holds("large/0", 0, 60, evictable=True, last_used=3),
    ]
    devices = [device(0), device(1, 24)]
    assert evictions(plan(devices, claims, shared("a/0", 60))) == ("large/0",)


def test_of_two_that_could_be_spared_it_is_the_one_used_last() -> None:
    claims = [
        holds("first/0", 0, 10, evictable=True, last_used=1),
        holds("second/0", 0, 10, evictable=True, last_used=2),
        holds("third/0", 0, 20, evictable=True, last_used=3),
    ]
    assert evictions(plan([device(0, 41)], claims, shared("a/0", 30))) == ("first/0", "third/0")


def test_an_owner_goes_whole_or_not_at_all() -> None:
    claims = [holds("b/0", 0, evictable=True), holds("b/0", 1, evictable=False)]
    refusal(plan([device(0), device(1)], claims, Request(owner="a/0")), "busy")


def test_eviction_can_be_forbidden() -> None:
    text = refusal(plan([device(0)], [holds("b/0", 0, evictable=True)], Request(owner="a/0"), evict=False), "busy")
    assert "b/0 (alone, evictable)" in text


def test_eviction_cannot_move_other_processes() -> None:
    claims = [holds("b/0", 0, 20, evictable=True)]
    text = refusal(plan([device(0, free=10)], claims, shared("a/0", 40)), "busy")
    assert "other processes (50GiB)" in text


# ---- mistakes that are easy to make ----------------------------------------------------------------------------------


def test_a_device_that_other_processes_use_is_not_free_for_an_exclusive_owner() -> None:
    text = refusal(plan([device(0, free=5)], [], Request(owner="a/0")), "busy")
    assert "held by other processes (75GiB)" in text
    assert ids(plan([device(0, free=79)], [], Request(owner="a/0"))) == ["GPU-0"]  # what a driver keeps for itself


@pytest.mark.parametrize(
    ("accelerator", "model"),
    [("A10", "NVIDIA A100-SXM4-40GB"), ("A10", "NVIDIA A10G"), ("L4", "NVIDIA L40S"), ("A100_40GB", H100)],
)
def test_an_accelerator_is_never_matched_by_part_of_a_name(accelerator: str, model: str) -> None:
    refusal(plan([device(0, model=model)], [], Request(owner="a/0", accelerator=accelerator)), "impossible")


def test_a100_40gb_is_found_in_its_product_name() -> None:
    devices = [device(0, 80, model="NVIDIA A100-SXM4-80GB"), device(1, 40, model="NVIDIA A100-SXM4-40GB")]
    assert ids(plan(devices, [], Request(owner="a/0", accelerator="A100_40GB"))) == ["GPU-1"]


def test_the_kind_with_most_devices_does_not_hide_the_one_that_fits() -> None:
    devices = [device(0, 8), device(1, 8), device(2, 80, kind="rocm")]
    assert ids(plan(devices, [], shared("a/0", 40))) == ["GPU-2"]


def test_planning_again_with_observed_memory_corrects_a_promise_made_from_declarations() -> None:
    first, second = holds("b/0", 0, 40, evictable=True, last_used=1), holds("c/0", 0, 30, evictable=True, last_used=2)
    request = shared("a/0", 45)
    # b/0 declared 40 and used 10; other processes hold the rest, which nobody could know before
    outcome = plan([device(0, free=10)], [first, second], request)
    assert evictions(outcome) == ("b/0",)
    after_b = plan([device(0, free=20)], [second], request)
    assert evictions(after_b) == ("c/0",)
    refusal(plan([device(0, free=40)], [], request), "busy")


# ---- the plan at start -----------------------------------------------------------------------------------------------


def owners(planned: list[tuple[Request, Placement | NoFit]]) -> list[str]:
    return [request.owner for request, _ in planned]


def test_the_hard_ones_are_placed_first() -> None:
    requests = [
        Request(owner="cpu/0", count=0),
        shared("small/0", 5),
        shared("large/0", 60),
        Request(owner="half/0", share=0.5),
        Request(owner="any/0"),
        Request(owner="alone/0", accelerator="H100"),
        Request(owner="pair/0", count=2),
        Request(owner="four/0", count=4),
        shared("pinned/0", 1, pin=("0",)),
    ]
    expected = ["pinned/0", "four/0", "pair/0", "alone/0", "any/0", "large/0", "half/0", "small/0", "cpu/0"]
    assert owners(plan_all([device(0)], requests)) == expected


def test_replicas_are_planned_by_number_and_not_by_text() -> None:
    requests = [Request(owner=f"a/{n}") for n in (10, 2, 1)]
    assert owners(plan_all([], requests)) == ["a/1", "a/2", "a/10"]


def test_the_order_of_the_models_changes_nothing() -> None:
    devices = parse_devices("2xH100:80GiB,1xL4:24GiB")
    requests = [shared("a/0", 30), shared("b/0", 60), Request(owner="c/0", accelerator="L4"), shared("d/0", 18)]
    assert plan_all(devices, requests) == plan_all(devices, requests[::-1])


def test_what_is_placed_is_taken_and_nothing_is_evicted_at_start() -> None:
    planned = dict(plan_all([device(0)], [Request(owner="b/0"), Request(owner="a/0")]))
    assert ids(planned[Request(owner="a/0")]) == ["GPU-0"]
    assert "a/0 (alone)" in refusal(planned[Request(owner="b/0")], "busy")


def test_a_replica_is_placed_whole_or_not_at_all() -> None:
    pinned, pair, single = Request(owner="a/0", pin=("0",)), Request(owner="b/0", count=2), Request(owner="c/0")
    planned = dict(plan_all([device(0), device(1)], [pinned, pair, single]))
    refusal(planned[pair], "busy")
    assert ids(planned[single]) == ["GPU-1"]


def test_a_plan_respects_what_is_running() -> None:
    [(_, outcome)] = plan_all([device(0), device(1)], [Request(owner="a/0")], claims=[holds("b/0", 0)])
    assert ids(outcome) == ["GPU-1"]


# ---- sentences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "outcome", "sentence"),
    [
        (Request(owner="a/0", count=0), Placement(), "a/0 runs on the CPU"),
        (
            Request(owner="a/0"),
            Placement(devices=(device(0, model="H100"),), notes=("1 × A10G wanted",)),
            "a/0 gets GPU 0 (H100, 80GiB) exclusively; 1 × A10G wanted",
        ),
        (
            shared("a/0", 20),
            Placement(devices=(device(0, model="H100"),), evict=("b/0",)),
            "a/0 shares GPU 0 (H100, 80GiB) and may use 20GiB, once b/0 is stopped",
        ),
        (
            Request(owner="a/0", share=0.5, count=2),
            Placement(devices=(device(0, model="H100"), device(1, 24, model="")), evict=("b/0", "c/0")),
            "a/0 shares GPU 0 (H100, 80GiB), GPU 1 (cuda, 24GiB) and may use 40GiB + 12GiB of each, "
            "once b/0, c/0 are stopped",
        ),
        (Request(owner="a/0"), NoFit(reason="impossible", detail=("x", "y")), "a/0 cannot run here: x; y"),
        (Request(owner="a/0"), NoFit(reason="busy", detail=("x",)), "a/0 does not fit now: x"),
    ],
)
def test_every_outcome_is_a_sentence(request_: Request, outcome: Placement | NoFit, sentence: str) -> None:
    assert explain(request_, outcome) == sentence


# ---- properties ------------------------------------------------------------------------------------------------------

EXAMPLES = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MODELS = ("NVIDIA H100 80GB HBM3", "NVIDIA L4", "NVIDIA A100-SXM4-40GB", "")
TOTALS = (8, 24, 40, 80)


@st.composite
def inventories(draw: st.DrawFn, *, plain: bool = False, observed: bool = True) -> list[Device]:
    """Up to five devices. `plain`: one kind, whole cards; `observed`: some of them with a figure of free memory."""
    devices = []
    for index in range(draw(st.sampled_from((2, 3, 1, 4, 5, 0)))):
        total = draw(st.sampled_from(TOTALS))
        sliced = not plain and draw(st.sampled_from((False,) * 7 + (True,)))
        devices.append(
            Device(
                id=f"{'MIG' if sliced else 'GPU'}-{index:02}",
                index=index,
                kind="cuda" if plain else draw(st.sampled_from(("cuda",) * 5 + ("rocm",))),
                model=draw(st.sampled_from(MODELS)),
                total=total * GIB,
                free=draw(st.none() | st.integers(0, total).map(lambda n: n * GIB)) if observed else None,
                numa=draw(st.sampled_from((None, 0, 1))),
            )
        )
    return devices


@st.composite
def wishes(draw: st.DrawFn, devices: Sequence[Device], owner: str) -> Request:
    count = draw(st.sampled_from((1, 1, 1, 2, 2, 3, 0)))
    memory, share = None, None
    match draw(st.sampled_from(("alone", "memory", "memory", "share"))):
        case "memory":
            memory = draw(st.sampled_from((2, 5, 10, 20, 30, 60, 100))) * GIB
        case "share":
            share = draw(st.sampled_from((0.1, 1 / 3, 0.5, 0.9, 1.0)))
    pin: tuple[str, ...] = ()
    if devices and draw(st.sampled_from((False,) * 7 + (True,))):
        pin = tuple(draw(st.lists(st.sampled_from([d.id for d in devices]), min_size=1, max_size=3)))
    accelerator = draw(st.sampled_from((None,) * 8 + ("H100", "L4", "A100_40GB", "A10")))
    return Request(owner=owner, count=count, memory=memory, share=share, accelerator=accelerator, pin=pin)


@st.composite
def ledgers(draw: st.DrawFn, devices: Sequence[Device]) -> list[Claim]:
    """A ledger as real loads leave it; some replicas are evictable, one may hold a claim that is not."""
    claims: list[Claim] = []
    unobserved = [replace(d, free=None) for d in devices]  # loads came before whatever else is there now
    for number in range(draw(st.sampled_from((8, 5, 3, 1, 0)))):
        request = draw(wishes(devices, f"m{number}/0"))
        outcome = plan(unobserved, claims, request, evict=False)
        if isinstance(outcome, Placement):
            evictable, used = draw(st.sampled_from((True, True, False))), float(draw(st.integers(0, 3)))
            claims += claims_of(request, outcome, evictable=evictable, last_used=used)
    if claims and draw(st.integers(0, 5)) == 0:
        claims[0] = replace(claims[0], evictable=False)
    return claims


@st.composite
def situations(draw: st.DrawFn, **how: bool) -> tuple[list[Device], list[Claim], Request]:
    devices = draw(inventories(**how))
    return devices, draw(ledgers(devices)), draw(wishes(devices, "new/0"))


@st.composite
def crowds(draw: st.DrawFn) -> tuple[list[Device], list[Claim], Request]:
    """Devices full of small evictable replicas, some over two devices, and a request for much of it."""
    devices = [device(n, draw(st.sampled_from((40, 80)))) for n in range(draw(st.integers(1, 3)))]
    claims: list[Claim] = []
    for number in range(draw(st.integers(3, 9))):
        request = shared(f"m{number}/0", draw(st.integers(5, 30)), count=draw(st.integers(1, 2)))
        outcome = plan(devices, claims, request, evict=False)
        if isinstance(outcome, Placement):
            claims += claims_of(request, outcome, evictable=True, last_used=float(draw(st.integers(0, 9))))
    devices = [replace(d, free=draw(st.none() | st.just(d.total - 20 * GIB))) for d in devices]
    return devices, claims, shared("new/0", draw(st.integers(20, 60)), count=draw(st.integers(1, 2)))


Situation = tuple[list[Device], list[Claim], Request]


def without(
    devices: Iterable[Device], claims: Iterable[Claim], gone: Iterable[str]
) -> tuple[list[Device], list[Claim]]:
    """The machine after these owners left and gave back what they declared."""
    claims, gone = list(claims), set(gone)
    after = []
    for d in devices:
        freed = sum(claim.on(d) for claim in claims if claim.device == d.id and claim.owner in gone)
        after.append(d if d.free is None else replace(d, free=min(d.total, d.free + freed)))
    return after, [claim for claim in claims if claim.owner not in gone]


def assert_sound(devices: Iterable[Device], claims: Iterable[Claim]) -> None:
    claims = list(claims)
    for d in devices:
        here = [claim for claim in claims if claim.device == d.id]
        assert sum(claim.on(d) for claim in here) <= d.total
        assert len(here) == 1 or not any(claim.exclusive for claim in here)
        assert len({claim.owner for claim in here}) == len(here)


@EXAMPLES
@given(situations() | crowds())
def test_no_device_is_ever_given_away_twice(situation: Situation) -> None:
    devices, claims, request = situation
    outcome = plan(devices, claims, request)
    if isinstance(outcome, Placement):
        kept = [claim for claim in claims if claim.owner not in outcome.evict]
        assert_sound(devices, kept + claims_of(request, outcome))


@EXAMPLES
@given(situations())
def test_a_placement_has_the_wanted_number_of_distinct_devices_of_one_kind(situation: Situation) -> None:
    devices, claims, request = situation
    outcome = plan(devices, claims, request)
    if isinstance(outcome, Placement):
        assert len({d.id for d in outcome.devices}) == len(outcome.devices) == request.count
        assert len({d.kind for d in outcome.devices}) <= 1
        assert list(outcome.devices) == sorted(outcome.devices, key=lambda d: (d.index, d.id))
        assert request.count < 2 or not any(d.is_slice for d in outcome.devices)
        assert all(d in devices for d in outcome.devices)


@EXAMPLES
@given(situations(), st.randoms(use_true_random=False))
def test_the_same_question_has_the_same_answer_in_any_order_and_changes_nothing(
    situation: Situation, random: Any
) -> None:
    devices, claims, request = situation
    before = (list(devices), list(claims))
    outcome = plan(devices, claims, request)
    assert plan(devices, claims, request) == outcome
    assert (devices, claims) == before
    mixed_devices, mixed_claims = list(devices), list(claims)
    random.shuffle(mixed_devices)
    random.shuffle(mixed_claims)
    assert plan(mixed_devices, mixed_claims, request) == outcome


@EXAMPLES
@given(situations())
def test_impossible_means_impossible_on_an_idle_machine_and_busy_means_that_it_fits_there(
    situation: Situation,
) -> None:
    devices, claims, request = situation
    outcome = plan(devices, claims, request)
    idle = plan([replace(d, free=None) for d in devices], [], request)
    if isinstance(outcome, NoFit) and outcome.reason == "impossible":
        assert idle == outcome
    else:
        assert isinstance(idle, Placement)


@EXAMPLES
@given(situations() | crowds())
def test_only_wholly_evictable_owners_are_evicted(situation: Situation) -> None:
    devices, claims, request = situation
    outcome = plan(devices, claims, request)
    if isinstance(outcome, Placement):
        assert len(set(outcome.evict)) == len(outcome.evict)
        for owner in outcome.evict:
            theirs = [claim for claim in claims if claim.owner == owner]
            assert theirs
            assert all(claim.evictable for claim in theirs)


@EXAMPLES
@given(situations() | crowds())
def test_after_the_eviction_it_fits_and_putting_any_victim_back_does_not(situation: Situation) -> None:
    devices, claims, request = situation
    outcome = plan(devices, claims, request)
    if isinstance(outcome, Placement) and outcome.evict:
        again = plan(*without(devices, claims, outcome.evict), request, evict=False)
        assert isinstance(again, Placement)
        assert [d.id for d in again.devices] == [d.id for d in outcome.devices]
        for owner in outcome.evict:
            spared = set(outcome.evict) - {owner}
            assert isinstance(plan(*without(devices, claims, spared), request, evict=False), NoFit)


@EXAMPLES
@given(inventories(plain=True, observed=False), st.integers(0, 5))
def test_as_many_devices_as_there_are_always_fit_an_empty_machine(devices: list[Device], count: int) -> None:
    assume(count <= len(devices))
    assert isinstance(plan(devices, [], Request(owner="a/0", count=count)), Placement)


@EXAMPLES
@given(situations() | crowds(), st.integers(0, 20), st.booleans())
def test_a_replica_that_leaves_never_turns_a_fit_into_none(situation: Situation, which: int, evict: bool) -> None:
    devices, claims, request = situation
    assume(claims)
    if isinstance(plan(devices, claims, request, evict=evict), Placement):
        leaver = claims[which % len(claims)].owner
        assert isinstance(plan(*without(devices, claims, [leaver]), request, evict=evict), Placement)


@EXAMPLES
@given(situations(observed=False), st.integers(0, 20))
def test_a_single_claim_removed_never_turns_a_fit_into_none(situation: Situation, which: int) -> None:
    devices, claims, request = situation
    assume(claims)
    if isinstance(plan(devices, claims, request), Placement):
        del claims[which % len(claims)]
        assert isinstance(plan(devices, claims, request), Placement)


@EXAMPLES
@given(situations())
def test_a_pin_is_respected(situation: Situation) -> None:
    devices, claims, request = situation
    outcome = plan(devices, claims, request)
    if request.pin and request.count and isinstance(outcome, Placement):
        assert sorted(d.id for d in outcome.devices) == sorted(request.pin)


@EXAMPLES
@given(situations(), st.sampled_from(("error", "any", "cpu")))
def test_every_refusal_has_its_reasons_and_every_outcome_its_sentence(situation: Situation, unmatched: Any) -> None:
    devices, claims, request = situation
    outcome = plan(devices, claims, request, unmatched=unmatched)
    if isinstance(outcome, NoFit):
        assert outcome.detail
        assert all(sentence and sentence == sentence.strip() for sentence in outcome.detail)
        assert ", held by " in explain(request, outcome) or outcome.reason == "impossible"
    assert explain(request, outcome).startswith("new/0 ")


@EXAMPLES
@given(st.data())
def test_a_plan_at_start_is_sound_and_complete(data: st.DataObject) -> None:
    devices = data.draw(inventories())
    requests = [data.draw(wishes(devices, f"m{n}/0")) for n in range(data.draw(st.integers(0, 6)))]
    planned = plan_all(devices, requests)
    assert sorted(owners(planned)) == sorted(request.owner for request in requests)
    assert_sound(
        devices, [c for r, outcome in planned if isinstance(outcome, Placement) for c in claims_of(r, outcome)]
    )
    assert not any(isinstance(outcome, Placement) and outcome.evict for _, outcome in planned)


class Ledger(RuleBasedStateMachine):
    """Loads, unloads, crashes and other programs: the ledger is always what lives, and never promises too much."""

    @initialize(devices=inventories(plain=True, observed=False))
    def start(self, devices: list[Device]) -> None:
        self.devices = devices
        self.claims: list[Claim] = []
        self.live: dict[str, tuple[Request, tuple[Device, ...], bool]] = {}
        self.loads = 0

    @rule(data=st.data(), evictable=st.booleans(), evict=st.booleans())
    def load(self, data: st.DataObject, evictable: bool, evict: bool) -> None:
        self.loads += 1
        request = data.draw(wishes(self.devices, f"m{self.loads}/0"))
        outcome = plan(self.devices, self.claims, request, evict=evict)
        if isinstance(outcome, Placement):
            for owner in outcome.evict:
                assert self.live[owner][2]
                self.end(owner)
            self.live[request.owner] = (request, outcome.devices, evictable)
            self.claims += claims_of(request, outcome, evictable=evictable, last_used=float(self.loads))

    @rule(which=st.integers(0, 50))
    def unload_or_crash(self, which: int) -> None:
        if self.live:
            self.end(sorted(self.live)[which % len(self.live)])

    @rule(which=st.integers(0, 50), free=st.none() | st.integers(0, 80))
    def observe(self, which: int, free: int | None) -> None:
        if self.devices:
            at = which % len(self.devices)
            seen = None if free is None else min(free * GIB, self.devices[at].total)
            self.devices[at] = replace(self.devices[at], free=seen)

    def end(self, owner: str) -> None:
        del self.live[owner]
        self.claims = [claim for claim in self.claims if claim.owner != owner]

    @invariant()
    def the_ledger_is_what_lives(self) -> None:
        held = {(claim.owner, claim.device) for claim in self.claims}
        assert held == {(owner, d.id) for owner, (_, devices, _) in self.live.items() for d in devices}
        assert_sound(self.devices, self.claims)


Ledger.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
test_the_ledger_equals_the_live_replicas_through_loads_crashes_and_evictions = Ledger.TestCase
