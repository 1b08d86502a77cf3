"""Run work that may never end on a thread of its own, so that giving up leaves no pool thread blocked."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar, cast

T = TypeVar("T")


async def patiently(work: Callable[[], T]) -> T:
    """Run `work` on a daemon thread and return its result.

    For work that may take forever, such as reading a file of terabytes. If the caller is cancelled, the thread is left
    behind; it does not delay the exit of the gateway.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: Exception | None) -> None:
        if found.done():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(cast(T, result))

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, result, error)

    threading.Thread(target=run, daemon=True).start()
    return await found


async def beside(work: Callable[[], T]) -> T:
    """Run `work` as `patiently` does, or on the loop if the system has no more threads.

    For signals: sending one takes as long as there are processes and threads, whose number models decide. It may end
    those that use up the threads.
    """
    try:
        return await patiently(work)
    except RuntimeError:
        return work()
