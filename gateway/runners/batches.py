"""Calls that run together in one batch of a worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .call import Call


class Batch:
    """Its calls, and when it began (by `time.monotonic`)."""

    __slots__ = ("began", "calls")

    def __init__(self, calls: Sequence[Call]) -> None:
        self.began, self.calls = time.monotonic(), calls
        for call in calls:
            call.batch = self
            call.batched_at = call.batched_at or self.began

    @property
    def overdue(self) -> float:
        """When the last of its calls that has not ended will have exhausted its time limit and its grace.

        The code runs for all of them. Until then it must not be killed because one of them is too late.
        """
        running = [call for call in self.calls if not call.ended]
        return max((_overdue(call) for call in running), default=0.0)


def _overdue(call: Call) -> float:
    return call.deadline + call.limits.cancel_grace if call.is_wanted else call.overdue
