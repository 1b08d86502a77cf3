"""The gateway's end of the socket to the keeper of a strict worker, see `gateway/worker/sandbox/keeper.py`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable


class Keeper:
    """A process that ends all that a worker has started, when it is told to or when this process dies."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._watching: asyncio.Task[bool] | None = None
        self._is_told = False

    def watch(self, on_lost: Callable[[], None]) -> None:
        """Call `on_lost` if it has begun and ends before it is told to. The process has its end of the socket."""
        self.theirs.close()
        self._watching = asyncio.create_task(self._watch(on_lost))

    async def _watch(self, on_lost: Callable[[], None]) -> bool:
        if not await self._hear():  # the worker was not confined, and has ended
            return False
        is_done = await self._hear()
        if not self._is_told:
            on_lost()
        return is_done

    async def _hear(self) -> bool:
        try:
            return bool(await asyncio.get_running_loop().sock_recv(self._ours, 1))
        except OSError:
            return False

    async def end(self, patience: float) -> bool:
        """Let it kill everything. Returns whether nothing is left; if not within `patience` seconds, it goes on."""
        if self._watching is None:
            return False
        self._is_told = True
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_WR)
        done, _ = await asyncio.wait([self._watching], timeout=patience)
        return bool(done) and self._watching.result()

    def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self.theirs.close()
        self._ours.close()
