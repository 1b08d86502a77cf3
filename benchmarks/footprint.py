"""Footprint: starting the command, memory at rest, and what a thousand registered models cost a request."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from .load import Load, Seen, drive
from .processes import ROOT, Server, gateway, resident_mb, workers_of
from .report import Row, at_most

PLAIN = "class Model:\n    async def predict(self, x):\n        return x\n"
CONFIG = "runtime:\n  predict_concurrency: 16\n"
MANY = 1000
HELP_MS, GATEWAY_MB, WORKER_MB = 200.0, 90.0, 35.0
SAME = 1.1  # times the cost of a request with one model: what noise makes of "the same"


def run(quick: bool) -> list[Row]:
    runs = [_help() for _ in range(3 if quick else 15)]
    of_many = _with_models(100 if quick else MANY, quick)
    with gateway({"plain/model.py": PLAIN}) as ours:
        time.sleep(0.5)
        own, worker = resident_mb(ours.pid), resident_mb(workers_of(ours.pid)[0])
    return [
        # CPU, for the clock of a busy machine counts the others' work too
        at_most(f"`gateway --help`, CPU ≤ {HELP_MS:g} ms", (cpu for _, cpu in runs), HELP_MS, "ms"),
        Row("  by the clock", f"{statistics.median(wall for wall, _ in runs):.0f} ms"),
        at_most(f"gateway RSS idle ≤ {GATEWAY_MB:g} MB", [own], GATEWAY_MB, "MB"),
        at_most(f"worker RSS without a framework ≤ {WORKER_MB:g} MB", [worker], WORKER_MB, "MB"),
        *of_many,
    ]


def _help() -> tuple[float, float]:
    """Milliseconds by the clock and of CPU."""
    began, process = (
        time.perf_counter(),
        subprocess.Popen([sys.executable, "-m", "gateway", "--help"], stdout=subprocess.DEVNULL, cwd=ROOT),
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"gateway --help ended with {process.returncode}")
    return wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3


def _with_models(count: int, quick: bool) -> list[Row]:
    """A request's cost with one model, and with many more that are registered and not loaded."""
    one = {"plain/model.py": PLAIN, "plain/config.yaml": CONFIG}
    many = {**one, **{f"lazy-{number}/model.py": PLAIN for number in range(1, count)}}
    settings = "".join(f'[models.lazy-{number}]\nload = "lazy"\n' for number in range(1, count))
    pairs: list[tuple[Seen, Seen]] = []
    with gateway(one) as small, gateway(many, settings) as large:
        for _ in range(2 if quick else 7):
            pairs.append((_load(small, quick), _load(large, quick)))
        memory = resident_mb(large.pid) - resident_mb(small.pid)
    ratio = statistics.median(b.cpu_us / a.cpu_us for a, b in pairs)
    alone, among = (statistics.median(seen.cpu_us for seen in side) for side in zip(*pairs, strict=True))
    return [
        Row(
            f"gateway CPU a predict with {count:,} models, as with 1 (≤ {SAME}x)",
            f"{among:.0f} µs",
            ratio,
            f"1 model, {alone:.0f} µs",
            ratio <= SAME,
        ),
        Row(f"  memory of {count - 1:,} more models", f"{memory:.0f} MB"),
    ]


def _load(ours: Server, quick: bool) -> Seen:
    path, seconds = "/v1/models/plain:predict", 0.3 if quick else 2.0
    return drive(Load(port=ours.port, pid=ours.pid, path=path, body="{}", connections=16, seconds=seconds))
