"""A client that does not take what waits for it is cut off; one that takes it slowly is not."""

from __future__ import annotations

import asyncio
import socket
import struct

SOME = 16 * 1024  # bytes of what waits that must be taken in each span: less would hold an answer for ever
SEND_TIMEOUT = "send_timeout"  # the code of being cut off, which no client is ever told
ACKNOWLEDGED = struct.Struct("120xQ")  # Linux' struct tcp_info up to tcpi_bytes_acked


class Stall:
    """Begins when a connection takes no more, and is cancelled when it does again. Until then it must get on.

    It also begins when a connection is closed, which ends when what waits is taken.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, span: float) -> None:
        self._transport, self._loop, self._span = transport, loop, span
        # Below TLS an answer may wait of which its transport does not say: what is written at once goes through it.
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
        """Bytes that the client has taken; only the difference of two counts means something."""
        if not self._is_encrypted:
            return -self._transport.get_write_buffer_size()
        sock = self._transport.get_extra_info("socket")
        try:
            taken: int = ACKNOWLEDGED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ACKNOWLEDGED.size))[0]
        except (AttributeError, OSError):  # it has just been lost, and its timer is about to be cancelled
            return 0
        return taken

    def cancel(self) -> None:
        self._timer.cancel()
