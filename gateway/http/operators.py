"""Accept connections on the admin socket. The peer of each is checked before it becomes a connection, one at a time.

Processes that the gateway started may try to connect without end. A refused connection is never read from, does not
count against any limit and is kept only among the last few. The check runs off the loop.
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

from ..system.background import patiently
from ..system.socket_peers import may_operate
from .refused_connections import Refused, refusal

log = logging.getLogger("gateway.http")

T = TypeVar("T")
REST = 0.005  # seconds of pause after a refusal; a client behind many refused ones waits that long for each
RETRY = 1.0  # seconds until the next accept after a lack of file descriptors or memory
LAST = 8  # refused connections kept open: closing at once would reset them and lose the answer
PARTING = 1.0  # maximum seconds for closing those that are left; see `_let_go`


class Operators:
    """Accepts connections on the admin socket until it is closed."""

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
                self._turned_away.append(connection)  # until the check is done; it is closed in any case
                if await _beside(partial(may_operate, connection.fileno())):
                    self._turned_away.pop()
                    await self._loop.connect_accepted_socket(self._protocol, connection)
                    continue
            except OSError as error:
                log.warning("cannot accept connections on the admin socket for %g s: %s", RETRY, error.strerror)
                await asyncio.sleep(RETRY)
            else:
                self._turn_away(connection)
            if len(self._turned_away) > LAST:
                await self._let_go(self._turned_away.popleft())
            await asyncio.sleep(REST)

    def _turn_away(self, connection: socket.socket) -> None:
        request_id = f"{random.getrandbits(128):032x}"
        self._refused.note("not_operator", "admin-socket", request_id)
        with contextlib.suppress(OSError):  # the peer has disconnected
            connection.send(refusal(403, request_id.encode()))
            connection.shutdown(socket.SHUT_WR)

    async def _let_go(self, *sockets: socket.socket) -> None:
        """Close sockets off the loop: closing one may block while open files that were sent over it are closed."""
        await _beside(lambda: _close(sockets))


async def _beside(work: Callable[[], T]) -> T:
    try:
        return await patiently(work)
    except RuntimeError:  # no thread can start: models use all that the system allows, which an operator can change
        return work()


def _close(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
