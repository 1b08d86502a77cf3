"""Restart delays for lost replicas: exponential back-off, and a breaker that slows down crash loops.

Pure functions of time: they take timestamps and return pauses in seconds.
"""

from __future__ import annotations

import random
from collections import deque

FIRST_PAUSE, MAX_PAUSE = 0.5, 30.0  # seconds before a restart, doubling
HEALTHY_AFTER = 60.0  # seconds a replica must live for its pause to start small again
CRASH_WINDOW = 120.0  # seconds in which crashes are counted
MAX_TRIAL = 60.0  # seconds; the pauses before trial starts double from one second up to this


class Breaker:
    """Count the crashes of one model, over all its replicas.

    While it is open, it allows a trial start after 1, 2, 4 … 60 s, until a replica has lived long enough.
    """

    def __init__(self, crashes: int) -> None:
        self.crashes = crashes  # this many crashes within CRASH_WINDOW open the breaker
        self._crashes: deque[float] = deque(maxlen=crashes)
        self._trials = 0

    def note(self, now: float, *, was_healthy: bool) -> None:
        """Record a crash; `was_healthy` means that the replica had lived for HEALTHY_AFTER."""
        self._crashes.append(now)
        if was_healthy:
            self._trials = 0
        if self._trials or (len(self._crashes) == self.crashes and self.spread < CRASH_WINDOW):
            self._trials += 1

    @property
    def is_open(self) -> bool:
        """Whether the last crash was one of a crash loop."""
        return self._trials > 0

    @property
    def pause(self) -> float:
        """Return the seconds until the next trial start."""
        return float(min(MAX_TRIAL, 2 ** min(self._trials - 1, 10)))

    @property
    def spread(self) -> float:
        """Return the seconds between the first and the last counted crash."""
        return self._crashes[-1] - self._crashes[0] if self._crashes else 0.0


def pause(failures: int) -> float:
    """Return the seconds to wait after this many failures. Jitter keeps several models from restarting in step."""
    return float(min(MAX_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10)) * random.uniform(0.8, 1.2))
