"""Neighbour: how long a light model takes to answer while another one burns all cores but one.

The light load is paced and far from filling a core, so that what is seen is waiting, not a lack of machine.
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
MODELS = {
    "light/model.py": "class Model:\n    async def predict(self, x):\n        return x\n",
    "light/config.yaml": "runtime:\n  predict_concurrency: 8\n",
    "burn/model.py": """
import time

class Model:
    def predict(self, body):
        until, count = time.monotonic() + body["seconds"], 0
        while time.monotonic() < until:
            count += sum(range(1000))
        return {"count": count}
""",
}
SETTINGS = f"[models.burn]\nreplicas = {BURNING}\n"
CLIENTS, PAUSE = 4, 0.01  # about 350 requests a second
TIMES = 2.0


def run(quick: bool) -> list[Row]:
    seconds = 1.0 if quick else 4.0
    idle, busy = [], []
    with gateway(MODELS, SETTINGS) as ours:
        for _ in range(2 if quick else 7):
            idle.append(_light(ours, seconds))
            burners = [threading.Thread(target=_burn, args=(ours, seconds + 1.5)) for _ in range(BURNING)]
            for burner in burners:
                burner.start()
            busy.append(_light(ours, seconds))
            for burner in burners:
                burner.join()
    return [
        _row(f"p99 beside {BURNING} burning core{'s' * (BURNING > 1)} ≤ {TIMES:g}x idle", "p99", idle, busy, TIMES),
        _row("  p50", "p50", idle, busy),
    ]


def _light(ours: Server, seconds: float) -> Seen:
    return drive(
        Load(port=ours.port, path="/models/light/predict", body="{}", connections=CLIENTS, pause=PAUSE, seconds=seconds)
    )


def _burn(ours: Server, seconds: float) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=seconds + 30)
    connection.request("POST", "/models/burn/predict", json.dumps({"seconds": seconds}))
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(answer.read().decode(errors="replace"))
    connection.close()


def _row(name: str, figure: str, idle: list[Seen], busy: list[Seen], times: float | None = None) -> Row:
    quiet, loud = ([getattr(seen, figure) for seen in side] for side in (idle, busy))
    middle = statistics.median
    ratio = middle(b / a for a, b in zip(quiet, loud, strict=True))
    kept = None if times is None else ratio <= times
    return Row(name, f"{middle(loud):.2f} ms", ratio, f"idle, {middle(quiet):.2f} ms", kept)
