"""Disconnect clients that do not read the data sent to them. Slow clients may continue."""

from __future__ import annotations

import asyncio
import socket
import struct

SOME = 16 * 1024  # bytes that the client must read in each span; with less, an answer could take forever
SEND_TIMEOUT = "send_timeout"  # the error code in logs and metrics; clients never get it
ACKNOWLEDGED = struct.Struct("120xQ")  # Linux' struct tcp_info up to tcpi_bytes_acked


class Stall:
    """A timer that aborts a connection whose client reads less than SOME bytes in a span.

    It starts when the write buffer is full and is cancelled when there is room again. It also starts when a connection
    is closed, which is done when the buffer is empty.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, span: float) -> None:
        self._transport, self._loop, self._span = transport, loop, span
        # With TLS, data may be buffered below the transport, which does not report it.
        self._is_encrypted = transport.get_extra_info("sslcontext") is not None
        self.has_cut_off = False
        self._watch()

    def _watch(self) -> None:
        self._taken = self._count_taken()
        self._timer = self._loop.call_later(self._span, self._look)

    def _look(self) -> None:
        if self._count_taken() - self._taken < SOME:
            self.has_cut_off = True
            self._transport.abort()
        else:
            self._watch()

    def _count_taken(self) -> int:
        """Return bytes that the client has read. Only the difference between two counts is meaningful."""
        if not self._is_encrypted:
            return -self._transport.get_write_buffer_size()
        sock = self._transport.get_extra_info("socket")
        try:
            taken: int = ACKNOWLEDGED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ACKNOWLEDGED.size))[0]
        except (AttributeError, OSError):  # the connection was just lost, and the timer is about to be cancelled
            return 0
        return taken

    def cancel(self) -> None:
        self._timer.cancel()
