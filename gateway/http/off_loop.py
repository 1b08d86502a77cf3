"""Run work whose duration depends on a client's or model's data without blocking other requests.

Small work runs at once, on the loop. Larger work goes to one thread, one item after the other. Python's threads take
turns, so the loop waits some milliseconds for one busy thread, and much longer for many. Very large work has a second
thread, so that other work does not wait for it.

A single C call that holds the GIL blocks the loop from a thread too. Such calls are made in pieces or bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..runners.pending import ClientLeft
from .exchange import Exchange

AT_ONCE = 64 << 10  # bytes: reading, checking or writing this much takes tens of milliseconds at most
LIGHT = 1 << 20  # bytes: more may take seconds
TINY = 4 << 10  # bytes: not counted, because any request takes longer than that
A_TURN = 4 * AT_ONCE  # bytes done in one turn of the loop: all steps of one request, and not of many at the same time

T = TypeVar("T")


class Beside:
    """The two worker threads of one gateway."""

    def __init__(self) -> None:
        self._light = ThreadPoolExecutor(1, thread_name_prefix="light")
        self._heavy = ThreadPoolExecutor(1, thread_name_prefix="heavy")
        self._in_turn = 0  # bytes

    async def do(self, exchange: Exchange | None, size: int, work: Callable[[], T], at_once: int = AT_ONCE) -> T:
        """Return the result of `work`, which handles `size` bytes. Above `at_once` bytes it runs in a thread.

        So does what comes when much has been done in the same turn of the loop, for many requests.

        Without an exchange, the work is done even if no client waits for it.

        Raises:
            ClientLeft: the client had disconnected when its turn came.
        """
        if size <= at_once and self._has_room(size):
            return work()

        def for_somebody() -> T:
            if exchange is not None and exchange.client_is_gone:
                raise ClientLeft
            return work()

        thread = self._light if size <= LIGHT else self._heavy
        return await asyncio.get_running_loop().run_in_executor(thread, for_somebody)

    def _has_room(self, size: int) -> bool:
        if size <= TINY:
            return True
        if not self._in_turn:
            asyncio.get_running_loop().call_soon(self._end_turn)
        self._in_turn += size
        return self._in_turn <= A_TURN

    def _end_turn(self) -> None:
        self._in_turn = 0
