"""What the gateway holds of stored conversations, from before they are read until their calls have bodies that count.

A small request may continue a large conversation. Each waits here, still small, until there is room: all together have
a quarter of the limit for bodies. They go first in, first out, and nothing but work of the gateway is waited for. One
conversation may be larger, if no other is held.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .shares import Shares


class Conversations:
    """The conversations of one gateway."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self.size = 0  # bytes; also part of `shares.bytes`
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        return sum(not waiter.done() for _, waiter in self._line)

    async def hold(self, size: int) -> None:
        """Count a conversation as soon as there is room for it."""
        if not self._line and self._fits(size):
            self._add(size)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line.append((size, waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.let_go(size)
            else:
                self._serve()
            raise

    def let_go(self, size: int) -> None:
        self._add(-size)
        self._serve()

    def _fits(self, size: int) -> bool:
        return not self.size or self.size + size <= self._shares.max_bytes // 4

    def _add(self, size: int) -> None:
        self.size += size
        self._shares.bytes += size

    def _serve(self) -> None:
        while self._line and (self._line[0][1].done() or self._fits(self._line[0][0])):
            size, waiter = self._line.popleft()
            if not waiter.done():
                self._add(size)
                waiter.set_result(None)
