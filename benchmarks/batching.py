"""Batching: requests per second of a class with `predict_batch`, against ideal batches and servers with batches.

The class sleeps as long as a device would compute, so that the figures say how full the batches are, and how soon one
follows another. Ideal is the class alone, called with full batches one after the other. Every round asks each side;
a ratio is taken within a round.
"""

from __future__ import annotations

import statistics
import time

from .load import Load, drive
from .peers.answers import BATCH, computed, is_echo
from .peers.asking import Question
from .peers.rounds import serving
from .peers.sides import OF_BATCHES, TITLES, Side, ours, peers
from .peers.unary import SMALL
from .processes import Server
from .report import Row

QUESTION = Question("batch", SMALL, is_echo)
CLIENTS = 64  # with two batches of them on their way, the next one is complete when one ends
COMPARED = ("LitServe", "BentoML", "MLServer")
SHARE, BEST = 0.95, 3.0  # of ideal batches, and of the best of those compared


def run(quick: bool) -> list[Row]:
    found, missing = peers()
    rates: dict[str, list[float]] = {}
    with serving(QUESTION, [ours(), *found]) as served:
        for _ in range(3 if quick else 5):
            rates.setdefault("ideal", []).append(_ideal(quick))
            for side, server in served:
                rates.setdefault(side.name, []).append(_rate(side, server, quick))
    ideal, own, *others = rates.items()
    told = f"{CLIENTS} clients, batches of {BATCH}"
    rows = [_row(f"{told} ≥ {SHARE}x ideal ones: requests/s", own, ideal, SHARE)]
    named = [other for other in others if other[0].partition(" ")[0] in COMPARED]
    best = max(named, key=lambda other: statistics.median(other[1]), default=None)
    for other in others:
        promised = BEST if other is best else None
        rows.append(_row(f"  the best of {len(named)} ≥ {BEST:g}x" if promised else "  beside", own, other, promised))
    left_out = [name for name in OF_BATCHES if name in missing]
    return rows + [Row(f"{TITLES[name]} is left out", f"run: make bench-peers PEERS={name}") for name in left_out]


def _row(told: str, own: tuple[str, list[float]], other: tuple[str, list[float]], least: float | None) -> Row:
    ratio = statistics.median(mine / theirs for mine, theirs in zip(own[1], other[1], strict=True))
    against = f"{other[0]}, {statistics.median(other[1]):,.0f}"
    return Row(told, f"{statistics.median(own[1]):,.0f}", ratio, against, None if least is None else ratio >= least)


def _seconds(quick: bool) -> float:
    return 1.0 if quick else 3.0


def _ideal(quick: bool) -> float:
    """Requests per second of the class alone."""
    batch = [None] * BATCH
    began, count = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < _seconds(quick):
        count += len(computed(batch))
    return count / took


def _rate(side: Side, server: Server, quick: bool) -> float:
    path, body = side.paths[QUESTION.kind], side.asked(QUESTION).body
    load = Load(port=server.port, path=path, body=body, connections=CLIENTS, seconds=_seconds(quick))
    return drive(load).rate
