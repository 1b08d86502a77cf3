"""From a model's resources to requests, from placements to claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.devices.claims import Claim, Placement, Request, claims_of, to_requests
from gateway.devices.device import GIB, Device
from gateway.errors import ConfigError
from gateway.spec import ModelSpec, Resources


def model(replicas: int = 1, **resources: Any) -> ModelSpec:
    return ModelSpec(name="chat", target="x:X", root=Path(), replicas=replicas, resources=Resources(**resources))


def test_each_replica_asks_for_itself() -> None:
    requests = to_requests(model(2, gpus=2, accelerator="H100"))
    assert requests == [
        Request(owner="chat/0", count=2, accelerator="H100"),
        Request(owner="chat/1", count=2, accelerator="H100"),
    ]


def test_a_model_without_gpus_wants_none() -> None:
    assert to_requests(model()) == [Request(owner="chat/0", count=0)]


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        ({"accelerator": "L4"}, 1),
        ({"accelerator": "L4:4"}, 4),
        ({"accelerator": "L4:4", "gpus": 2}, 2),
        ({"pin": (("0", "1"),)}, 2),
        ({"gpu_memory": "5GiB"}, 1),
    ],
)
def test_whatever_speaks_of_gpus_makes_a_gpu_model(resources: dict[str, Any], count: int) -> None:
    [request] = to_requests(model(**resources))
    assert request.count == count


def test_gpu_memory_is_bytes_or_a_share_of_each_device() -> None:
    [in_bytes] = to_requests(model(gpus=1, gpu_memory="20GiB"))
    [in_percent] = to_requests(model(gpus=1, gpu_memory=" 12.5% "))
    assert (in_bytes.memory, in_bytes.share) == (20 * GIB, None)
    assert (in_percent.memory, in_percent.share) == (None, 0.125)
    assert in_percent.on(Device(id="GPU-0", total=80 * GIB)) == 10 * GIB
    assert not in_bytes.exclusive
    assert not in_percent.exclusive


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-5%", "nan%", "%", "half", "20", "1e9GiB", "20GiB each"])
def test_gpu_memory_that_makes_no_sense_names_the_model_and_the_key(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^model 'chat': gpu_memory: "):
        to_requests(model(gpus=1, gpu_memory=text))


def test_one_pin_is_for_every_replica_and_a_list_of_pins_is_one_each() -> None:
    assert [r.pin for r in to_requests(model(2, gpus=1, pin=(("0",),)))] == [("0",), ("0",)]
    assert [r.pin for r in to_requests(model(2, gpus=1, pin=(("0",), ("1",))))] == [("0",), ("1",)]


def test_one_list_for_all_replicas_together_is_shared_out() -> None:
    requests = to_requests(model(2, gpus=2, pin=(("0", "1", "2", "3"),)))
    assert [request.pin for request in requests] == [("0", "1"), ("2", "3")]


def test_pins_for_another_number_of_replicas_are_refused() -> None:
    with pytest.raises(ConfigError, match="gpus pins 2 replicas, but it has 3"):
        to_requests(model(3, gpus=1, pin=(("0",), ("1",))))


def test_an_exclusive_claim_counts_the_whole_device() -> None:
    device = Device(id="GPU-0", total=80 * GIB)
    [claim] = claims_of(Request(owner="chat/0"), Placement(devices=(device,)), evictable=True, last_used=3)
    assert claim == Claim(owner="chat/0", device="GPU-0", exclusive=True, memory=80 * GIB, evictable=True, last_used=3)
    assert Claim(owner="a/0", device="GPU-0", exclusive=True).on(device) == 80 * GIB


def test_a_model_on_the_cpu_claims_nothing() -> None:
    assert claims_of(Request(owner="chat/0"), Placement()) == []
