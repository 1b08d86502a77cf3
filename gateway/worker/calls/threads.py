"""Thread pools for model code, and the way back from them to the event loop.

There is a pool for each purpose: as many threads as slots for code that holds a slot, and others for hooks and health
checks, so that these never wait for predicts.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import queue
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")
Begun = tuple[float, tuple[Any, ...]]  # start time by `monotonic`, and the arguments
Job = Callable[..., tuple[Any, ...] | None]
Found = tuple[Job, tuple[Any, ...]]  # with its arguments


class Outbox:
    """Schedule callbacks on the event loop from any thread, with one wake-up for all that are queued."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._entries: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def put(self, callback: Callable[..., None], *args: Any) -> None:
        with self._lock:
            first = not self._entries
            self._entries.append((callback, args))
        if first:
            self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        with self._lock:
            entries, self._entries = self._entries, []
        for callback, args in entries:
            try:
                callback(*args)
            except Exception as error:  # other callbacks must still run
                self._loop.call_exception_handler({"message": f"{callback} failed", "exception": error})


class Pool:
    """At most `size` daemon threads, started when first needed.

    A thread that has done its job calls `seek`, which may wait for another one and return it. While it waits, no jobs
    may be submitted.
    """

    def __init__(self, size: int, name: str, outbox: Outbox, seek: Callable[[], Found | None] = lambda: None) -> None:
        self._size, self._name, self._outbox, self._seek = size, name, outbox, seek
        self._jobs: queue.SimpleQueue[Found] = queue.SimpleQueue()
        self._threads = 0
        self._idle: collections.deque[None] = collections.deque()  # one for each idle thread; threads add theirs
        self.begun: dict[int, Begun] = {}  # the jobs of the threads that are not idle

    def submit(self, job: Job, *args: Any) -> None:
        """Run `job` on a thread; it must not raise. Call this on the event loop's thread only.

        A job may return the arguments with which it is run again, at once and on the same thread.
        """
        if self._idle:
            self._idle.pop()
        elif self._threads < self._size:
            self._start()
        self._jobs.put((job, args))

    def _start(self) -> None:
        name = f"{self._name}-{self._threads + 1}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:  # thread limit reached: the existing ones do the work
            if not self._threads:
                raise
        else:
            self._threads += 1

    def _work(self) -> None:
        begun, thread = self.begun, threading.get_ident()
        found = self._jobs.get()
        while True:
            job, args = found
            following: tuple[Any, ...] | None = args
            while following is not None:
                begun[thread] = (monotonic(), following)
                following = job(*following)
            # Otherwise an idle thread would keep the last request's data alive.
            del found, job, args, following, begun[thread]
            found = self._seek() or self._rest()

    def _rest(self) -> Found:
        """Wait for the next job."""
        if len(self._idle) < self._threads:
            self._idle.append(None)
        return self._jobs.get()

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """Run the function on a thread and return its result.

        A cancelled caller still waits: the code cannot be stopped.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def job() -> None:
            try:
                result = context.run(function, *args)
            except StopIteration as error:  # futures cannot carry it, coroutines cannot raise it
                failure = RuntimeError("StopIteration was raised")
                failure.__cause__ = error
                self._outbox.put(_settle, future, None, failure)
            except BaseException as error:
                self._outbox.put(_settle, future, None, error)
            else:
                self._outbox.put(_settle, future, result, None)

        self.submit(job)
        return await finish(future)


async def finish(future: asyncio.Future[T]) -> T:
    """Return the future's result. If the task is cancelled, wait for the future first, then raise the cancellation."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.shield(future)
        except asyncio.CancelledError as error:
            if future.cancelled():
                raise
            cancelled = error
        except BaseException:
            break
    if cancelled is not None:
        if not future.cancelled():
            future.exception()
        raise cancelled
    return future.result()


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
