"""When a lost replica is started again: soon, then later; after a crash loop at once, then ever later, up to a minute.

Pure: times come in, pauses go out.
"""

from __future__ import annotations

import random
from collections import deque

FIRST_PAUSE, MAX_PAUSE = 0.5, 30.0  # seconds before a restart, doubling
HEALTHY_AFTER = 60.0  # seconds a replica must live for its pause to start small again
CRASH_WINDOW = 120.0  # seconds in which crashes are counted
MAX_TRIAL = 60.0  # seconds; the pauses before trial starts double from one second up to this


class Breaker:
    """The crashes of one model, of all its replicas together.

    Open, it lets a trial start through after 1, 2, 4 … 60 s, until a replica has lived for long enough.
    """

    def __init__(self, crashes: int) -> None:
        self.crashes = crashes  # so many within CRASH_WINDOW open it
        self._crashes: deque[float] = deque(maxlen=crashes)
        self._trials = 0

    def note(self, now: float, *, was_healthy: bool) -> None:
        """One has crashed; `was_healthy` if it had lived for HEALTHY_AFTER."""
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
        """Seconds until the next trial start."""
        return float(min(MAX_TRIAL, 2 ** min(self._trials - 1, 10)))

    @property
    def spread(self) -> float:
        """Seconds in which the counted crashes happened."""
        return self._crashes[-1] - self._crashes[0] if self._crashes else 0.0


def pause(failures: int) -> float:
    """Seconds to wait after so many failures before, jittered so that several models do not come back in step."""
    return float(min(MAX_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10)) * random.uniform(0.8, 1.2))
