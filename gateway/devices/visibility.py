"""Environment variables that limit a worker to its devices and to its share of threads.

They must be set before the worker's Python starts, because importing torch reads them once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from .claims import Placement
from .device import Device

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def worker_environment(
    placement: Placement,
    *,
    cpu: float | None = None,
    replicas: int = 1,
    environment: Mapping[str, str] | None = None,
    cores: int | None = None,
) -> dict[str, str]:
    """Return the variables for devices and threads, combined with the model's own `environment`.

    The model's values override our thread counts, but not the devices. `cpu` is the model's `resources.cpu`, `replicas`
    the number of live replicas that share the machine, `cores` is for tests.
    """
    threads = thread_count(cpu, replicas=replicas, cores=cores)
    return {**thread_environment(threads), **(environment or {}), **device_environment(placement.devices)}


def device_environment(devices: Iterable[Device]) -> dict[str, str]:
    """Return the variables that show exactly these devices to a process; none for a CPU model.

    The value is "" rather than unset: otherwise a small model could take half a gigabyte of context on the first GPU.
    """
    devices = tuple(devices)
    kinds = {device.kind for device in devices}
    if kinds <= {"cuda"}:
        # CUDA numbers devices by speed by default; nvidia-smi, which users read, numbers them by bus
        return {
            "CUDA_VISIBLE_DEVICES": ",".join(device.id for device in devices),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }
    if kinds == {"rocm"}:
        # HIP's own variable takes indices; with ROCR_VISIBLE_DEVICES set as well, they would refer to that list
        return {"HIP_VISIBLE_DEVICES": ",".join(str(device.index) for device in devices)}
    return {}  # mps has no such variable


def thread_environment(threads: int) -> dict[str, str]:
    """Return thread counts for numeric libraries, and settings that let OpenMP threads sleep at a barrier.

    Spinning slows down a busy machine: two threads on two busy cores gave 0.2 tokens/s with a 135 M model, against 4.8
    with one thread and 8.2 with two that sleep.
    """
    count = str(threads)
    return {
        **dict.fromkeys(THREAD_VARIABLES, count),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
    }


def thread_count(cpu: float | None = None, *, replicas: int = 1, cores: int | None = None) -> int:
    """Return the threads for a replica: its requested cores, or an even share; from one to all usable cores."""
    cores = usable_cores() if cores is None else cores
    wanted = cores // max(replicas, 1) if cpu is None else int(cpu)
    return max(1, min(wanted, cores))


def usable_cores(root: Path = Path("/")) -> int:
    """Return the cores that this process may use: the least of cgroup quota, affinity and cores of the machine."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    return max(1, min([cores, *_quotas(root)]))


def _quotas(root: Path) -> list[int]:
    """Return the whole cores of `cpu.max` in our cgroup and each parent; a fraction of a core is rounded down."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    path = next((Path(line[3:].lstrip("/")) for line in lines if line.startswith("0::")), None)
    quotas = []
    for group in (path, *path.parents) if path is not None else ():
        try:
            quota, period = (root / "sys/fs/cgroup" / group / "cpu.max").read_text().split()
            quotas.append(int(quota) // int(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue  # no controller here, or "max"
    return quotas
