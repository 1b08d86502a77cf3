"""When a lost replica is started again: soon, then later, and after a crash loop once a minute.

Pure: times come in, pauses go out.
"""

from __future__ import annotations

import random
from collections import deque

FIRST_PAUSE, MAX_PAUSE = 0.5, 30.0  # seconds before a restart, doubling
HEALTHY_AFTER = 60.0  # seconds a replica must live for its pause to start small again
CRASH_WINDOW, TRIAL_EVERY = 120.0, 60.0  # seconds: in which crashes are counted, and between two trial starts


class Breaker:
    """The crashes of one model, of all its replicas together. Open, it lets one trial start a minute through."""

    def __init__(self, crashes: int) -> None:
        self.crashes = crashes  # so many within CRASH_WINDOW open it
        self._crashes: deque[float] = deque(maxlen=crashes)

    def note(self, now: float) -> None:
        self._crashes.append(now)

    @property
    def is_open(self) -> bool:
        """Whether the last crash made it a crash loop."""
        return len(self._crashes) == self.crashes and self.spread < CRASH_WINDOW

    @property
    def spread(self) -> float:
        """Seconds in which the counted crashes happened."""
        return self._crashes[-1] - self._crashes[0] if self._crashes else 0.0


def pause(failures: int) -> float:
    """Seconds to wait after so many failures before, jittered so that several models do not come back in step."""
    return float(min(MAX_PAUSE, FIRST_PAUSE * 2 ** min(failures, 10)) * random.uniform(0.8, 1.2))
