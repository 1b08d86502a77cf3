"""The slots of this replica, first come, first served.

A slot is held from before a method is called until its code has stopped: a generator has been exhausted or closed, a
cancelled coroutine has ended.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from .run import NEVER, Run


class Slots:
    """`mark` is called with the id of each run that gets a slot, `on_late` with each that has waited too long.

    Too long is past its client's deadline. If there is `tell`, which is called when a run gets a slot or begins to wait
    for one, more than `timeout` seconds are too long as well; otherwise the gateway knows which runs wait, and cancels
    them in time.
    """

    def __init__(
        self,
        count: int,
        timeout: float,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[[Run], None] | None,
        on_late: Callable[[Run], None],
        mark: Callable[[int], None],
    ) -> None:
        self._free, self._timeout, self._loop = count, timeout, loop
        self._tell, self._on_late, self._mark = tell, on_late, mark
        self._queue: deque[Run] = deque()  # some have left it: their `go` is None
        self._lock = threading.Lock()  # the threads of the slots use the queue too

    def acquire(self, run: Run, go: Callable[[], None]) -> None:
        """Call `go` when the run has a slot, now or later; never if the run ends first."""
        if run.until != NEVER and self._is_late(run):
            self._on_late(run)
            return
        with self._lock:
            is_free = self._free > 0 and not self._queue
            if is_free:
                self._free -= 1
                self._mark(run.id)
            else:
                run.go = go
                self._queue.append(run)
        if is_free:
            self._give(run, go)
        elif self._tell is not None:
            run.timer = self._loop.call_at(min(self._loop.time() + self._timeout, run.until), self._on_late, run)
            self._tell(run)

    def take(self, run: Run) -> bool:
        """Give the run a slot if one is free and nobody waits. On any thread."""
        with self._lock:
            if self._tell is not None or self._queue or not self._free:
                return False
            self._free -= 1
            self._mark(run.id)
        run.holds_slot = True
        return True

    async def wait(self, run: Run) -> None:
        """Like `acquire`, for a task. The task may be cancelled meanwhile, and is when it is too late."""
        granted: asyncio.Future[None] = self._loop.create_future()

        def grant() -> None:
            if not granted.done():
                granted.set_result(None)

        self.acquire(run, grant)
        await granted

    def leave(self, run: Run) -> bool:
        """Take the run out of the queue. Return False if it is not there."""
        with self._lock:
            waited, run.go = run.go is not None, None
        if run.timer is not None:
            run.timer.cancel()
            run.timer = None
        return waited

    def release(self, run: Run) -> None:
        """Release the run's slot, if it has one, and give it to the next in the queue."""
        if not run.holds_slot:
            return
        run.holds_slot = False
        with self._lock:
            self._free += 1
            if not self._queue:
                return
        while (entry := self._pop()) is not None:
            following, go = entry
            self.leave(following)
            self._give(following, go)

    def pass_on(self, run: Run) -> Run | None:
        """Give the slot of a run whose code has stopped to the next in the queue, if that is a job too.

        This is for the slot's thread, which then need not wait for the event loop between two runs. The last frame of
        the run must be put into the outbox afterwards, and before any frame of the next run.
        """
        if self._tell is not None:
            return None
        with self._lock:
            while self._queue:
                following = self._queue[0]
                if following.go is not None and not (following.is_job and not self._is_late(following)):
                    return None  # the loop's turn
                del self._queue[0]
                if following.go is not None:
                    following.go = None
                    run.holds_slot, following.holds_slot = False, True
                    self._mark(following.id)
                    return following
        return None

    def leave_free(self, run: Run) -> bool:
        """Release the run's slot on a thread. False if others wait for it, so that it must be released on the loop."""
        with self._lock:
            if self._queue:
                return False
            run.holds_slot = False
            self._free += 1
            return True

    def _pop(self) -> tuple[Run, Callable[[], None]] | None:
        """Take a slot for the next run that waits and is not too late."""
        while True:
            with self._lock:
                if not self._free or not self._queue:
                    return None
                run = self._queue.popleft()
                go, run.go = run.go, None
                is_late = go is not None and self._is_late(run)
                if go is not None and not is_late:
                    self._free -= 1
                    self._mark(run.id)
                    return run, go
            if is_late:
                self._on_late(run)

    def _give(self, run: Run, go: Callable[[], None]) -> None:
        run.holds_slot = True
        if self._tell is not None:
            self._tell(run)
        go()

    def _is_late(self, run: Run) -> bool:
        return run.until != NEVER and run.until <= self._loop.time()
