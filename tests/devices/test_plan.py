"""The table that `gateway plan` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.devices.claims import Placement
from gateway.devices.device import parse_devices
from gateway.devices.placement import plan_models
from gateway.devices.plan import plan_table
from gateway.spec import ModelSpec, Resources

DEVICES = parse_devices("1xH100:80GiB,1xL4:24GiB")


def model(name: str, replicas: int = 1, **resources: Any) -> ModelSpec:
    return ModelSpec(name=name, target="x:X", root=Path(), replicas=replicas, resources=Resources(**resources))


def column(rows: list[dict[str, Any]], key: str) -> list[Any]:
    return [row[key] for row in rows]


SPECS = [
    model("echo"),
    model("chat", gpus=1, accelerator="H100"),
    model("embed", 2, gpus=1, accelerator="L4", gpu_memory="10GiB"),
    model("other", gpus=1, accelerator="H100", gpu_memory="50%"),
    model("old", gpus=1, accelerator="A10G"),
    model("odd", gpus=1, gpu_memory="lots"),
]


def test_every_replica_has_a_row_in_the_order_of_the_models() -> None:
    rows = plan_table(SPECS, DEVICES)
    assert column(rows, "model") == ["echo", "chat", "embed", "embed", "other", "old", "odd"]
    assert column(rows, "replica") == [0, 0, 0, 1, 0, 0, 0]
    assert column(rows, "state") == ["cpu", "placed", "placed", "placed", "busy", "impossible", "impossible"]
    assert column(rows, "devices") == [[], ["GPU-fake-0"], ["GPU-fake-1"], ["GPU-fake-1"], [], [], []]
    assert column(rows, "memory") == [None, "alone", "10GiB", "10GiB", "50%", "alone", None]
    assert json.loads(json.dumps(rows)) == rows


def test_every_row_says_why() -> None:
    why = column(plan_table(SPECS, DEVICES), "why")
    assert why[0] == "echo/0 runs on the CPU"
    assert why[1] == "chat/0 gets GPU 0 (H100, 80GiB) exclusively"
    assert why[4].endswith("0B available, 40GiB wanted, held by chat/0 (alone)")
    assert why[5].startswith("old/0 cannot run here: 1 × A10G wanted, 0 present; have 1 × H100, 1 × L4")
    assert why[6].startswith("odd/0 cannot run here: model 'odd': gpu_memory: 'lots' is not a size")


def test_unmatched_models_may_run_anywhere() -> None:
    [row] = plan_table([model("old", gpus=1, accelerator="A10G")], DEVICES, unmatched="any")
    assert (row["state"], row["devices"]) == ("placed", ["GPU-fake-1"])
    [row] = plan_table([model("old", gpus=1, accelerator="A10G")], DEVICES, unmatched="cpu")
    assert (row["state"], row["memory"]) == ("cpu", None)


def test_a_lazy_model_leaves_the_start_to_the_others() -> None:
    specs = [model("a", gpus=1), model("b", gpus=1)]
    one = parse_devices("1x24GiB")
    assert column(plan_table(specs, one), "state") == ["placed", "busy"]
    rows = plan_table(specs, one, lazy={"a"})
    assert column(rows, "state") == ["busy", "placed"]
    [row] = plan_table(specs[:1], one, lazy={"a"})
    assert row["why"] == "at the first request, a/0 gets GPU 0 (cuda, 24GiB) exclusively"


def test_replicas_of_one_lazy_model_do_not_take_the_same_device() -> None:
    rows = plan_table([model("a", 2, gpus=1)], parse_devices("2x24GiB"), lazy={"a"})
    assert column(rows, "devices") == [["GPU-fake-0"], ["GPU-fake-1"]]
    rows = plan_table([model("a", 2, gpus=1)], parse_devices("1x24GiB"), lazy={"a"})
    assert column(rows, "state") == ["busy", "busy"]


def test_a_model_that_gets_only_some_of_its_replicas_leaves_them_to_the_others() -> None:
    specs, one = [model("a", 2, gpus=1, accelerator="L4"), model("b", gpus=1, accelerator="L4")], "1xL4:24GiB"
    rows = plan_table(specs, parse_devices(one))
    assert column(rows, "state") == ["busy", "busy", "placed"]
    assert column(rows, "devices") == [[], [], ["GPU-fake-0"]]
    assert rows[0]["why"].startswith(
        "a/0 does not fit now: either all replicas are placed or none; a/1 does not fit now: "
    )
    planned = plan_models(parse_devices(one), specs)
    assert [isinstance(outcome, Placement) for _, outcome in planned["a"] + planned["b"]] == [False, False, True]


def test_a_half_placed_model_is_impossible_when_one_of_its_replicas_is() -> None:
    [pinned] = [model("a", 2, gpus=1, pin=(("0",), ("7",)))]
    assert column(plan_table([pinned], parse_devices("1xL4:24GiB")), "state") == ["impossible", "impossible"]
