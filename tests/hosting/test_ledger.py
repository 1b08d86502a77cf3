"""What each replica claims: all that a model needs or nothing, and never more than there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.devices.device import parse_devices
from gateway.hosting.ledger import Ledger
from gateway.settings.schema import PlacementSettings
from gateway.spec import ModelSpec, Resources


def model(name: str, replicas: int = 1, **resources: Any) -> ModelSpec:
    return ModelSpec(name=name, target="x:X", root=Path(), replicas=replicas, resources=Resources(**resources))


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(parse_devices("2xL4:24GiB"), PlacementSettings())


def test_a_model_gets_all_its_devices_or_none(ledger: Ledger) -> None:
    assert ledger.place([model("three", 3, gpus=1)]).keys() == {"three"}
    assert (ledger.devices_of("three"), ledger.places_of("three").by_owner) == ([], {})


def test_what_is_claimed_is_busy_until_it_is_given_back(ledger: Ledger) -> None:
    assert ledger.place([model("a", 2, gpus=1)]) == {}
    assert ledger.place([model("b", gpus=1)])["b"][0] == "busy"
    held = ledger.held_by("a")
    assert len(held) == 2
    ledger.give_back(held[:1])
    assert ledger.place([model("b", gpus=1)]) == {}
    assert len(ledger.held_by("a")) == len(ledger.held_by("b")) == 1


def test_a_device_that_no_machine_part_is_will_never_be_free(ledger: Ledger) -> None:
    state, why = ledger.place([model("h", gpus=1, accelerator="H100")])["h"]
    assert state == "impossible" and "H100" in why


def test_equal_claims_of_a_reload_are_told_apart(ledger: Ledger) -> None:
    """The old replicas keep theirs until they have ended, and only theirs go then."""
    spec = model("a", gpus=1, gpu_memory="8GiB")
    ledger.place([spec])
    old = ledger.held_by("a")
    ledger.place([spec])
    assert len(ledger.held_by("a")) == 2
    ledger.give_back(old)
    (left,) = ledger.held_by("a")
    assert left is not old[0]
    ledger.hold(old)
    assert len(ledger.held_by("a")) == 2


def test_a_name_that_begins_like_another_holds_nothing_of_it(ledger: Ledger) -> None:
    ledger.place([model("a/b", gpus=1), model("a", gpus=1)])
    assert {claim.owner for claim in ledger.held_by("a")} == {"a/0"}
    assert {claim.owner for claim in ledger.held_by("a/b")} == {"a/b/0"}


def test_places_of_a_failed_reload_are_put_back_and_forgotten_with_the_model(ledger: Ledger) -> None:
    ledger.place([model("a", gpus=1)])
    before = ledger.places_of("a")
    ledger.give_back(ledger.held_by("a"))
    ledger.place([model("a", 2, gpus=1)])
    assert len(ledger.devices_of("a")) == 2
    ledger.put_back("a", before)
    assert ledger.devices_of("a") == list(before.shown)
    ledger.forget("a")
    assert ledger.devices_of("a") == [] and not ledger.placement_of("a", 0).devices


def test_a_model_without_devices_is_shown_on_the_cpu(ledger: Ledger) -> None:
    assert ledger.place([model("a", 2)]) == {}
    assert ledger.devices_of("a") == ["cpu", "cpu"]
    assert ledger.held_by("a") == []
