"""TLS handshakes with a deadline. They count as connections, and above the limit none is started.

asyncio's own servers count a connection only after its handshake. `protocol.py` handles everything after the handshake.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable, Set

from .protocol import GOODBYE
from .refused_connections import Refused

log = logging.getLogger("gateway.http")

TURN = 64  # connections accepted in one turn of the loop
FAREWELL = 24 * 3600.0  # seconds; asyncio's default of 30 would cut off slow readers; `Stall` acts earlier
RETRY = 1.0  # seconds until the next accept after a lack of file descriptors or memory
SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Handshakes:
    """Accepts TLS connections on listeners. `connections` are the protocols after their handshake, of all listeners."""

    def __init__(
        self,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        connections: Set[object],
        max_connections: int,
        timeout: float,
        refused: Refused,
    ) -> None:
        self._context, self._protocol, self._connections = context, protocol, connections
        self._max_connections, self._timeout, self._refused = max_connections, timeout, refused
        self._loop = asyncio.get_running_loop()
        self._listeners: list[socket.socket] = []
        self._retries: dict[socket.socket, asyncio.TimerHandle] = {}
        self.pending: dict[asyncio.Protocol, asyncio.Task[None]] = {}

    def listen(self, listener: socket.socket) -> None:
        """Start accepting on a non-blocking listener."""
        self._listeners.append(listener)
        self._loop.add_reader(listener, self._on_readable, listener)

    async def close(self) -> None:
        """Close the listeners. Handshakes under way may finish, because a request may be on its way."""
        while self._listeners:
            listener = self._listeners.pop()
            self._loop.remove_reader(listener)
            while self._has_room() and self._accept(listener):
                pass
            if listener in self._retries:
                self._retries.pop(listener).cancel()
            listener.close()
        if self.pending:
            await asyncio.wait(list(self.pending.values()), timeout=GOODBYE)
        for task in self.pending.values():
            task.cancel()

    def _on_readable(self, listener: socket.socket) -> None:
        for _ in range(TURN):
            if not self._accept(listener):
                return

    def _accept(self, listener: socket.socket) -> bool:
        """Accept one connection. Return False if there is none now."""
        try:
            connection, address = listener.accept()
        except OSError as error:
            if error.errno in SCARCE:
                log.warning("cannot accept connections for %g s: %s", RETRY, error.strerror)
                self._loop.remove_reader(listener)  # the listener stays readable, so this would be called in a loop
                self._retries[listener] = self._loop.call_later(
                    RETRY, self._loop.add_reader, listener, self._on_readable, listener
                )
            return False
        if self._has_room():
            protocol = self._protocol()
            task = self._loop.create_task(self._shake_hands(protocol, connection, address[0]))
            self.pending[protocol] = task
            task.add_done_callback(lambda _: self.pending.pop(protocol))
        else:
            self._refused.note("too_many_connections", address[0])
            connection.close()  # no answer can be sent before the handshake
        return True

    def _has_room(self) -> bool:
        """A protocol that has just finished its handshake is in both sets and counts once."""
        return len(self._connections | self.pending.keys()) < self._max_connections

    async def _shake_hands(self, protocol: asyncio.Protocol, connection: socket.socket, client: str) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._context,
                ssl_handshake_timeout=self._timeout,
                ssl_shutdown_timeout=FAREWELL,
            )
        except OSError as error:  # caused by the client, or its disconnect
            self._refused.note("tls_handshake", client)
            log.debug("a TLS handshake failed: %s", error)
