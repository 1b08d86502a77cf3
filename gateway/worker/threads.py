"""Threads that run model code, and the one way back from them to the loop.

A pool of our own for each purpose: as many threads as slots for code that holds one, a second pool for hooks and
health checks, so that these never wait behind predicts.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")
Begun = tuple[float, tuple[Any, ...]]  # when, by `monotonic`, and with what


class Outbox:
    """Callbacks for the loop, from any thread; one wake-up for everything that piled up."""

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
            except Exception as error:  # one of several calls; the others must still hear of theirs
                self._loop.call_exception_handler({"message": f"{callback} failed", "exception": error})


class Pool:
    """At most `size` daemon threads, started when first needed."""

    def __init__(self, size: int, name: str, outbox: Outbox) -> None:
        self._size, self._name, self._outbox = size, name, outbox
        self._jobs: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        self.begun: dict[int, Begun] = {}  # what each thread does that does anything

    def submit(self, job: Callable[..., None], *args: Any) -> None:
        """Run `job` on a thread; it must not raise. From the loop's thread only."""
        if self._idle > 0:
            self._idle -= 1
        elif self._threads < self._size:
            self._start()
        self._jobs.put((job, args))

    def _start(self) -> None:
        name = f"{self._name}-{self._threads + 1}"
        try:
            threading.Thread(target=self._work, name=name, daemon=True).start()
        except RuntimeError:  # the system gives no more; those that are there do the work in turn
            if not self._threads:
                raise
        else:
            self._threads += 1

    def _work(self) -> None:
        begun, thread = self.begun, threading.get_ident()
        while True:
            job, args = self._jobs.get()
            begun[thread] = (monotonic(), args)
            job(*args)
            del job, args, begun[thread]  # or an idle thread would keep the last request's data alive
            self._outbox.put(self._rest)

    def _rest(self) -> None:
        self._idle = min(self._idle + 1, self._threads)

    async def run(self, function: Callable[..., T], *args: Any) -> T:
        """The function's result. A cancelled caller still waits for the thread, for the code cannot be stopped."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        context = contextvars.copy_context()

        def job() -> None:
            try:
                result = context.run(function, *args)
            except StopIteration as error:  # which no future can carry, nor a coroutine raise
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
    """The future's result, waited for even when the waiting task is cancelled; then the cancellation goes on."""
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
