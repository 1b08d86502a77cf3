"""Counters of a model's loads, restarts and batches since the gateway started."""

from __future__ import annotations

from ..telemetry.histogram import Histogram
from ..wire import frames
from .supervisor import Event, Loaded, NotLoaded

LOADS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800)  # bucket bounds in seconds


SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # items
WAITS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # seconds


class Batches:
    """The batches of one model: their sizes, the seconds that each item waited, and how many were run item by item."""

    def __init__(self) -> None:
        self.sizes, self.waits = Histogram(SIZES), Histogram(WAITS)
        self.isolations = 0

    def add(self, batch: frames.Batch) -> None:
        if batch.is_again:
            self.isolations += 1
            return
        self.sizes.add(len(batch.waits))
        for wait in batch.waits:
            self.waits.add(wait)


class History:
    """Load and restart counts of one model, and its batches.

    `loads` are the durations of successful loads in seconds, `last_load` is the last of them; `results` counts loads by
    "ok" and "error".
    """

    def __init__(self) -> None:
        self.loads = Histogram(LOADS)
        self.last_load: float | None = None
        self.results: dict[str, int] = {}
        self.batches = Batches()
        self.restart_reasons: dict[str, int] = {}  # crash, cancel, frozen

    @property
    def restarts(self) -> int:
        return sum(self.restart_reasons.values())

    def note(self, event: Event) -> None:
        match event:
            case Loaded(seconds=seconds):
                self.loads.add(seconds)
                self.last_load = seconds
                self.results["ok"] = self.results.get("ok", 0) + 1
            case NotLoaded():
                self.results["error"] = self.results.get("error", 0) + 1

    def restarts_for(self, why: str) -> None:
        self.restart_reasons[why] = self.restart_reasons.get(why, 0) + 1
