"""Predict: what a small unary request costs the gateway, against a bare uvicorn echo of the same body."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from .load import Load, Seen, drive
from .processes import Server, floor, gateway
from .report import Row

BODY = '{"inputs": [1, 2, 3], "text": "a small body, as most requests have"}'
CONNECTIONS = 64
MODELS = {
    "plain/model.py": "class Model:\n    async def predict(self, x):\n        return x\n",
    "plain/config.yaml": f"runtime:\n  predict_concurrency: {CONNECTIONS}\n",
    "sync/model.py": "class Model:\n    def predict(self, x):\n        return x\n",
    "sync/config.yaml": f"runtime:\n  predict_concurrency: {CONNECTIONS}\n",
    "one/model.py": "class Model:\n    def predict(self, x):\n        return x\n",
    "one-async/model.py": "class Model:\n    async def predict(self, x):\n        return x\n",
}
NAMES = {"plain": "async", "sync": "sync", "one_async": "async, one slot", "one": "sync, one slot"}
CPU_RATIO, ADDED_P50 = 2.0, 0.35  # times the floor; milliseconds


@dataclass
class Round:
    """One turn of every contestant; a ratio is taken within a turn, so that a slow minute hits both sides."""

    floor: Seen
    plain: Seen
    sync: Seen
    one_async: Seen
    one: Seen
    floor_alone: Seen
    plain_alone: Seen


def run(quick: bool) -> list[Row]:
    rounds = []
    with floor("echo") as bare, gateway(MODELS) as ours:
        for _ in range(1 if quick else 9):
            rounds.append(_round(bare, ours, seconds=0.3 if quick else 2.0))
    middle = statistics.median
    bare_us = middle(r.floor.cpu_us for r in rounds)
    rows = []
    for kind, name in NAMES.items():
        seen: list[Seen] = [getattr(r, kind) for r in rounds]
        ratio = middle(s.cpu_us / r.floor.cpu_us for s, r in zip(seen, rounds, strict=True))
        cpu = middle(s.cpu_us for s in seen)
        rows.append(
            Row(
                f"gateway CPU a predict ({name}) ≤ {CPU_RATIO}x the floor",
                f"{cpu:.0f} µs",
                ratio,
                f"bare echo, {bare_us:.0f} µs",
                ratio <= CPU_RATIO,
            )
        )
        for what, figure in (("requests/s", "rate"), ("p50, ms", "p50"), ("p99, ms", "p99")):
            pairs = [(getattr(s, figure), getattr(r.floor, figure)) for s, r in zip(seen, rounds, strict=True)]
            rows.append(_compared(f"  {what}", pairs))
    added = middle(r.plain_alone.p50 - r.floor_alone.p50 for r in rounds)
    p50 = middle(r.plain_alone.p50 for r in rounds)
    rows.append(
        Row(
            f"added p50, 1 client, idle machine ≤ {ADDED_P50} ms",
            f"{added:.2f} ms ({p50:.2f} in all)",
            added / ADDED_P50,
            f"{ADDED_P50} ms",
            added <= ADDED_P50,
        )
    )
    return rows


def _round(bare: Server, ours: Server, seconds: float) -> Round:
    def load(server: Server, path: str, connections: int) -> Seen:
        return drive(
            Load(port=server.port, pid=server.pid, path=path, body=BODY, connections=connections, seconds=seconds)
        )

    return Round(
        floor=load(bare, "/", CONNECTIONS),
        plain=load(ours, "/v1/models/plain:predict", CONNECTIONS),
        sync=load(ours, "/v1/models/sync:predict", CONNECTIONS),
        one_async=load(ours, "/v1/models/one-async:predict", CONNECTIONS),
        one=load(ours, "/v1/models/one:predict", CONNECTIONS),
        floor_alone=load(bare, "/", 1),
        plain_alone=load(ours, "/v1/models/plain:predict", 1),
    )


def _compared(name: str, pairs: list[tuple[float, float]]) -> Row:
    seen, bare = (statistics.median(values) for values in zip(*pairs, strict=True))
    return Row(name, _short(seen), statistics.median(a / b for a, b in pairs), f"bare echo, {_short(bare)}")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
