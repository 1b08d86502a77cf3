"""What a worker's environment says of devices and threads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.devices.claims import Placement
from gateway.devices.device import GIB, Device
from gateway.devices.visibility import (
    device_environment,
    thread_count,
    thread_environment,
    usable_cores,
    worker_environment,
)


def device(id: str, index: int = 0, kind: str = "cuda") -> Device:
    return Device(id=id, index=index, kind=kind, total=GIB)


def test_a_cuda_worker_sees_its_devices_by_id() -> None:
    environment = device_environment([device("GPU-aa"), device("GPU-bb", 1)])
    assert environment == {"CUDA_VISIBLE_DEVICES": "GPU-aa,GPU-bb", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_a_cpu_worker_sees_no_device() -> None:
    assert device_environment([])["CUDA_VISIBLE_DEVICES"] == ""


def test_a_rocm_worker_gets_one_variable_only() -> None:
    assert device_environment([device("GPU-x", 1, "rocm"), device("GPU-y", 3, "rocm")]) == {
        "HIP_VISIBLE_DEVICES": "1,3"
    }


def test_mps_has_no_variable() -> None:
    assert device_environment([device("mps:0", kind="mps")]) == {}


def test_every_thread_count_is_set_and_openmp_sleeps() -> None:
    assert thread_environment(2) == {
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "RAYON_NUM_THREADS": "2",
        "TOKENIZERS_PARALLELISM": "true",
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
    }
    assert thread_environment(1)["TOKENIZERS_PARALLELISM"] == "false"


@pytest.mark.parametrize(
    ("cpu", "replicas", "threads"),
    [(None, 1, 8), (None, 3, 2), (None, 20, 1), (None, 0, 8), (2.0, 20, 2), (2.9, 1, 2), (0.5, 1, 1), (64.0, 1, 8)],
)
def test_threads_are_what_the_model_asks_for_or_its_even_share(cpu: float | None, replicas: int, threads: int) -> None:
    assert thread_count(cpu, replicas=replicas, cores=8) == threads


def test_the_models_own_values_beat_thread_counts_but_not_devices() -> None:
    own = {"OMP_NUM_THREADS": "7", "CUDA_VISIBLE_DEVICES": "0,1,2", "MY_FLAG": "on"}
    environment = worker_environment(Placement(devices=(device("GPU-aa"),)), cpu=2, cores=4, environment=own)
    assert environment["OMP_NUM_THREADS"] == "7"
    assert environment["MKL_NUM_THREADS"] == "2"
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-aa"
    assert environment["MY_FLAG"] == "on"


def cgroup(root: Path, **limits: str) -> Path:
    """A made-up machine whose process is in /pod/box."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("1:cpu:/elsewhere\n0::/pod/box\n")
    for name, limit in limits.items():
        group = root / "sys/fs/cgroup" / {"top": "", "pod": "pod", "box": "pod/box"}[name]
        group.mkdir(parents=True, exist_ok=True)
        (group / "cpu.max").write_text(limit + "\n")
    return root


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({}, 16),
        ({"box": "max 100000"}, 16),
        ({"box": "400000 100000"}, 4),
        ({"box": "max 100000", "pod": "250000 100000"}, 2),
        ({"box": "400000 100000", "top": "300000 100000"}, 3),
        ({"box": "50000 100000"}, 1),
        ({"box": "9900000 100000"}, 16),
        ({"box": "nonsense"}, 16),
    ],
)
def test_usable_cores_obey_the_quota_of_every_group_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert usable_cores(cgroup(tmp_path, **limits)) == cores


def test_usable_cores_fall_back_to_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores(tmp_path) == 6


def test_usable_cores_of_this_machine_are_at_least_one() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
