"""What work costs in CPU time, in a process that did other things before, on a machine that does other things beside.

Seconds say as much of the machine as of the work: a bound in seconds is ten times and more of what the work takes on an
idle machine, and what is too close to a bad way for that is compared with other work of the same moment.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from math import inf


def seconds(work: Callable[[], object]) -> float:
    """CPU time of this thread."""
    was_on = gc.isenabled()
    gc.disable()  # it would look at all that a long session of tests holds
    try:
        begun = time.thread_time()
        work()
        return time.thread_time() - begun
    finally:
        if was_on:
            gc.enable()


def least_seconds(work: Callable[[], object], enough: float, tries: int = 5) -> float:
    """The shortest of several tries, of which one below `enough` is the last."""
    least = inf
    for _ in range(tries):
        least = min(least, seconds(work))
        if least < enough:
            break
    return least


def least_ratio(work: Callable[[], object], other: Callable[[], object], enough: float, tries: int = 30) -> float:
    """How many times as long as the other work it takes: the least of several tries, each of both.

    One below `enough` is the last: work that is as dear as it must not be is so each time.
    """
    least = inf
    for _ in range(tries):
        least = min(least, seconds(work) / max(seconds(other), 1e-9))
        if least < enough:
            break
    return least
