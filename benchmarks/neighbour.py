"""Neighbour: how long a light model takes to answer while another one burns all cores but one, or all of them.

Where all cores burn, a model with a `nice` value is compared with one without. The light load is paced and far from
filling a core, so that what is seen is waiting, not a lack of machine.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import threading

from .load import Load, Seen, drive
from .processes import Server, gateway
from .report import Row

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
BURNING = max(1, CORES - 1)
NICE = 10
BURN = """
import time

class Model:
    def predict(self, body):
        until, count = time.monotonic() + body["seconds"], 0
        while time.monotonic() < until:
            count += sum(range(1000))
        return {"count": count}
"""
MODELS = {
    "light/model.py": "class Model:\n    async def predict(self, x):\n        return x\n",
    "light/config.yaml": "runtime:\n  predict_concurrency: 8\n",
    "burn/model.py": BURN,
    "nice/model.py": BURN,
}
SETTINGS = f"[models.burn]\nreplicas = {CORES}\n[models.nice]\nreplicas = {CORES}\nnice = {NICE}\n"
CLIENTS, PAUSE = 4, 0.01  # about 350 requests a second
TIMES = 2.0


def run(quick: bool) -> list[Row]:
    seconds = 1.0 if quick else 4.0
    idle, busy, full, niced = [], [], [], []
    with gateway(MODELS, SETTINGS) as ours:
        for _ in range(2 if quick else 7):
            idle.append(_light(ours, seconds))
            busy.append(_beside(ours, "burn", BURNING, seconds))
            full.append(_beside(ours, "burn", CORES, seconds))
            niced.append(_beside(ours, "nice", CORES, seconds))
    return [
        _row(f"p99 beside {BURNING} burning core{'s' * (BURNING > 1)} ≤ {TIMES:g}x idle", "p99", idle, busy, TIMES),
        _row("  p50", "p50", idle, busy),
        _row(f"p99 beside {CORES} burning cores with nice = {NICE}", "p99", full, niced, beside="without"),
        _row("  p50", "p50", full, niced, beside="without"),
    ]


def _beside(ours: Server, model: str, number: int, seconds: float) -> Seen:
    """Load the light model while that many replicas of another one compute."""
    burners = [threading.Thread(target=_burn, args=(ours, model, seconds + 1.5)) for _ in range(number)]
    for burner in burners:
        burner.start()
    seen = _light(ours, seconds)
    for burner in burners:
        burner.join()
    return seen


def _light(ours: Server, seconds: float) -> Seen:
    return drive(
        Load(port=ours.port, path="/models/light/predict", body="{}", connections=CLIENTS, pause=PAUSE, seconds=seconds)
    )


def _burn(ours: Server, model: str, seconds: float) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=seconds + 30)
    connection.request("POST", f"/models/{model}/predict", json.dumps({"seconds": seconds}))
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(answer.read().decode(errors="replace"))
    connection.close()


def _row(
    name: str, figure: str, before: list[Seen], after: list[Seen], times: float | None = None, beside: str = "idle"
) -> Row:
    first, then = ([getattr(seen, figure) for seen in side] for side in (before, after))
    middle = statistics.median
    ratio = middle(b / a for a, b in zip(first, then, strict=True))
    kept = None if times is None else ratio <= times
    return Row(name, f"{middle(then):.2f} ms", ratio, f"{beside}, {middle(first):.2f} ms", kept)
