"""The worker's end of the channel, to which the threads of slots may write as well.

An answer that a thread writes by itself needs no turn of the event loop, which would first have to be woken.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable
from typing import Any

from ..wire.channel import Channel
from ..wire.frames import HEADER


class ThreadChannel(Channel):
    """Frames of a thread and of the event loop never mix: a thread writes only while the loop has nothing to write."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._rest = b""  # of a frame that did not fit into the socket
        self.descriptor = -1  # of the socket
        self._loop: asyncio.AbstractEventLoop | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._write, self._write_all = self._write_after_rest, self._write_all_after_rest
        self._loop = asyncio.get_running_loop()
        self.descriptor = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        with self._lock:
            self.descriptor = -1
        super().connection_lost(exc)

    def send_now(self, kind: int, call: int, payload: bytes) -> bool:
        """Write one payload of at most MAX_FRAME bytes from a thread. False if the event loop has to write it."""
        with self._lock:
            if self._rest or self._soon or self.descriptor < 0 or self.transport.is_closing():
                return False
            if self.transport.get_write_buffer_size():
                return False
            frame = HEADER.pack(len(payload), kind, call) + payload
            try:
                sent = os.write(self.descriptor, frame)
            except OSError:  # the socket is full, or the gateway is gone
                return False
            if sent < len(frame):
                self._rest = frame[sent:]
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._write_rest)
            return True

    def _write_rest(self) -> None:
        """Write on the event loop what a thread could not."""
        if not self.transport.is_closing():
            self._write_all(())

    def _write_after_rest(self, frame: bytes) -> None:
        with self._lock:
            if self._rest:
                self.transport.writelines((self._rest, frame))
                self._rest = b""
            else:
                self.transport.write(frame)

    def _write_all_after_rest(self, frames: Iterable[bytes | memoryview]) -> None:
        with self._lock:
            rest, self._rest = self._rest, b""
            self.transport.writelines((rest, *frames) if rest else frames)
