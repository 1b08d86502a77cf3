"""What is read from many connections and takes long for its size: all of them together get a little of each turn of
the event loop, one after the other. A little for each would be seconds where there are a thousand.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import perf_counter

BUDGET = 0.002  # seconds in each turn of the loop; work that has begun goes on to its end


class Turn:
    """Work that waits until it is done or cancelled."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work

    def cancel(self) -> None:
        self.work = None


class Turns:
    """The line of one gateway. What has more to do joins it again, at the end."""

    def __init__(self) -> None:
        self._line: deque[Turn] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None  # which goes on with the line
        self._is_due = False

    def __bool__(self) -> bool:
        """Whether others wait."""
        return bool(self._line)

    def join(self, loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> Turn:
        if self._loop is not loop:  # that of a test has ended
            self._loop, self._is_due = loop, False
            self._line.clear()
        turn = Turn(work)
        self._line.append(turn)
        if not self._is_due:
            self._is_due = True
            loop.call_soon(self._go_on, loop)
        return turn

    def _go_on(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        end = perf_counter() + BUDGET
        try:
            while self._line:
                if (work := self._line.popleft().work) is not None:
                    work()
                    if perf_counter() >= end:
                        return
        finally:
            self._is_due = bool(self._line)
            if self._is_due:
                loop.call_soon(self._go_on, loop)
