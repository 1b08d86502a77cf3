"""The door of the admin socket: who has connected is looked at before there is a connection, and one after the other.

What the gateway has started may connect without end. Whoever is refused is never read from, counts for no bound and
holds nothing but a place among the last few; and looking at it leaves the loop to others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from ..beside import patiently
from ..peers import may_operate
from .protocol import refusal
from .refused import Refused

log = logging.getLogger("gateway.http")

T = TypeVar("T")
REST = 0.005  # seconds after one was refused; who waits behind very many of them waits as many times as long
RETRY = 1.0  # seconds until the next is accepted after there was no file or memory for one
LAST = 8  # refused ones that stay open: whoever is still sending would learn of a reset, and not of the answer
PARTING = 1.0  # seconds in which those that are left are closed; see `_let_go`


class Operators:
    """Accepts on the admin socket until it is closed."""

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol], refused: Refused) -> None:
        self._listener, self._protocol, self._refused = listener, protocol, refused
        self._loop = asyncio.get_running_loop()
        self._turned_away: deque[socket.socket] = deque()
        self._accepting = self._loop.create_task(self._accept(), name="the admin socket")

    async def close(self) -> None:
        self._accepting.cancel()
        await asyncio.wait([self._accepting])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PARTING):
                await self._let_go(self._listener, *self._turned_away)

    async def _accept(self) -> None:
        while True:
            try:
                connection, _ = await self._loop.sock_accept(self._listener)
                self._turned_away.append(connection)  # until it is known to be an operator's: it is closed in any case
                if await _beside(partial(may_operate, connection.fileno())):
                    self._turned_away.pop()
                    await self._loop.connect_accepted_socket(self._protocol, connection)
                    continue
            except OSError as error:
                log.warning("no connection of the admin socket can be accepted for %g s: %s", RETRY, error.strerror)
                await asyncio.sleep(RETRY)
            else:
                self._turn_away(connection)
            if len(self._turned_away) > LAST:
                await self._let_go(self._turned_away.popleft())
            await asyncio.sleep(REST)

    def _turn_away(self, connection: socket.socket) -> None:
        request_id = f"{random.getrandbits(128):032x}"
        self._refused.note("not_operator", "admin-socket", request_id)
        with contextlib.suppress(OSError):  # it has gone
            connection.send(refusal(403, request_id.encode()))
            connection.shutdown(socket.SHUT_WR)

    async def _let_go(self, *sockets: socket.socket) -> None:
        """Beside the loop: where the system lets them hand over open files, this may wait until those are closed."""
        await _beside(lambda: _close(sockets))


async def _beside(work: Callable[[], T]) -> T:
    try:
        return await patiently(work)
    except RuntimeError:  # no thread begins: models have taken all that there may be, and who ends one is an operator
        return work()


def _close(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
