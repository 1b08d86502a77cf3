"""The table that `gateway plan` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.devices import parse_devices
from gateway.errors import ConfigError
from gateway.planning import plan_request, plan_table
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
    assert column(rows, "evict") == [[]] * 7
    assert json.loads(json.dumps(rows)) == rows


def test_every_row_says_why() -> None:
    why = column(plan_table(SPECS, DEVICES), "why")
    assert why[0] == "echo/0 runs on the CPU"
    assert why[1] == "chat/0 gets GPU 0 (H100, 80GiB) to itself"
    assert why[4].endswith("0B available, 40GiB wanted, held by chat/0 (alone)")
    assert why[5].startswith("old/0 cannot run here: 1 × A10G wanted, 0 present; have 1 × H100, 1 × L4")
    assert why[6].startswith("model 'odd': gpu_memory: 'lots' is not a size")


def test_unmatched_models_may_run_anywhere() -> None:
    [row] = plan_table([model("old", gpus=1, accelerator="A10G")], DEVICES, unmatched="any")
    assert (row["state"], row["devices"]) == ("placed", ["GPU-fake-1"])
    [row] = plan_table([model("old", gpus=1, accelerator="A10G")], DEVICES, unmatched="cpu")
    assert (row["state"], row["memory"]) == ("cpu", None)


def test_a_busy_row_says_whom_a_request_would_stop() -> None:
    rows = plan_table(SPECS, DEVICES, evict=True, evictable={"chat"})
    row = rows[4]
    assert (row["state"], row["evict"], row["devices"]) == ("busy", ["chat/0"], [])
    assert row["why"] == "other/0 shares GPU 0 (H100, 80GiB) and may use 40GiB, once chat/0 is stopped"


def test_a_lazy_model_leaves_the_start_to_the_others() -> None:
    specs = [model("a", gpus=1), model("b", gpus=1)]
    one = parse_devices("1x24GiB")
    assert column(plan_table(specs, one), "state") == ["placed", "busy"]
    rows = plan_table(specs, one, lazy={"a"})
    assert column(rows, "state") == ["busy", "placed"]
    [row] = plan_table(specs[:1], one, lazy={"a"})
    assert row["why"] == "at the first request, a/0 gets GPU 0 (cuda, 24GiB) to itself"


def test_replicas_of_one_lazy_model_do_not_take_the_same_device() -> None:
    rows = plan_table([model("a", 2, gpus=1)], parse_devices("2x24GiB"), lazy={"a"})
    assert column(rows, "devices") == [["GPU-fake-0"], ["GPU-fake-1"]]
    rows = plan_table([model("a", 2, gpus=1)], parse_devices("1x24GiB"), lazy={"a"})
    assert column(rows, "state") == ["placed", "busy"]


def test_a_request_for_one_model_says_what_it_would_evict_when_the_others_are_loaded() -> None:
    [row] = plan_request("chat", SPECS, DEVICES, evictable={"other", "embed"})
    assert row["evict"] == ["other/0"]
    [row] = plan_request("chat", SPECS, DEVICES)
    assert (row["state"], row["evict"]) == ("busy", [])
    assert "held by other/0 (40GiB)" in row["why"]


def test_an_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"no model named 'cat' \(have: echo, chat, "):
        plan_request("cat", SPECS, DEVICES)
