"""The slots of this replica, first come, first served.

A slot is held from before a method is called until its code has stopped: a generator is exhausted or closed, a
cancelled coroutine has really ended.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from .run import NEVER, Run


class Slots:
    """`tell` hears of every slot given, and of a call that gets none yet; `on_late` of a call that gets none any more.

    That is one which waited for longer than `timeout` seconds, or than its client wants to.
    """

    def __init__(
        self,
        count: int,
        timeout: float,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[[Run], None] | None,
        on_late: Callable[[Run], None],
    ) -> None:
        self._free, self._timeout, self._loop = count, timeout, loop
        self._tell, self._on_late = tell, on_late
        self._queue: deque[Run] = deque()

    def acquire(self, run: Run, go: Callable[[], None]) -> None:
        """Call `go` with the slot, now or later; never, if the run ends before."""
        if self._free > 0 and not self._queue:
            self._give(run, go)
        else:
            self._line_up(run, go)

    async def wait(self, run: Run) -> None:
        """The same for a task, which may be cancelled meanwhile, and is when it is too late."""
        at_once = self._free > 0 and not self._queue
        if at_once and self._take(run):
            return
        granted: asyncio.Future[None] = self._loop.create_future()

        def grant() -> None:
            if not granted.done():
                granted.set_result(None)

        if not at_once:
            self._line_up(run, grant)
        await granted

    def _line_up(self, run: Run, go: Callable[[], None]) -> None:
        run.go = go
        run.timer = self._loop.call_at(min(self._loop.time() + self._timeout, run.until), self._on_late, run)
        self._queue.append(run)
        if self._tell is not None:
            self._tell(run)

    def forget(self, run: Run) -> None:
        """It does not wait any more."""
        run.go = None
        if run.timer is not None:
            run.timer.cancel()
            run.timer = None

    def release(self, run: Run) -> None:
        """Give back what the run holds, if it does, and hand it to the next in line."""
        if not run.holds_slot:
            return
        run.holds_slot = False
        self._free += 1
        while self._free > 0 and self._queue:
            following = self._queue.popleft()
            go = following.go
            self.forget(following)
            if go is not None:
                self._give(following, go)

    def _give(self, run: Run, go: Callable[[], None]) -> None:
        if self._take(run):
            go()

    def _take(self, run: Run) -> bool:
        """Give it a slot, unless it is too late."""
        if run.until != NEVER and run.until <= self._loop.time():
            self._on_late(run)
            return False
        self._free -= 1
        run.holds_slot = True
        if self._tell is not None:
            self._tell(run)
        return True
