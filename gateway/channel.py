"""One end of the socketpair between the gateway and a worker: frames in, frames out.

Splits and joins payloads; knows nothing of what they mean. The same class serves both sides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from .wire import CANCEL, HEADER, KIND, MAX_FRAME, MAX_PAYLOAD, MEMFD, MORE, NAMES, WireError

READ_BUFFER = 2 * MAX_FRAME  # one whole frame always fits behind a half-read one
WRITE_HIGH = 1 << 20


class Channel(asyncio.BufferedProtocol):
    """Calls `on_frame(kind, call, payload)` for every complete payload and `on_lost(error)` once at the end.

    The payload view is valid during the call only: copy what you keep. An exception out of `on_frame`, or a frame that
    breaks the rules, ends the channel with that error.
    """

    def __init__(
        self,
        on_frame: Callable[[int, int, memoryview], None],
        on_lost: Callable[[Exception | None], None],
        max_payload: int = MAX_PAYLOAD,
    ) -> None:
        self._on_frame, self._on_lost, self._max_payload = on_frame, on_lost, max_payload
        self._buffer = bytearray(READ_BUFFER)
        self._view = memoryview(self._buffer)
        self._read = self._written = 0
        self._parts: dict[int, tuple[int, bytearray]] = {}  # call id → kind, payload so far
        self._error: Exception | None = None
        # An Event, not a shared Future: cancelling one of several waiters would cancel the Future for all.
        self._writable = asyncio.Event()
        self._writable.set()
        self.transport: asyncio.Transport

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)

    def get_buffer(self, sizehint: int) -> memoryview:
        if len(self._buffer) - self._written < MAX_FRAME // 2 and self._read:
            pending = self._written - self._read
            self._buffer[:pending] = self._buffer[self._read : self._written]
            self._read, self._written = 0, pending
        return self._view[self._written :]

    def buffer_updated(self, nbytes: int) -> None:
        self._written += nbytes
        unpack, view, buffer = HEADER.unpack_from, self._view, self._buffer
        try:
            while self._written - self._read >= HEADER.size:
                size, kind, call = unpack(buffer, self._read)
                if size > MAX_FRAME:
                    raise WireError(f"frame of {size} bytes, at most {MAX_FRAME} allowed")
                end = self._read + HEADER.size + size
                if end > self._written:
                    break
                payload = view[self._read + HEADER.size : end]
                self._read = end
                if kind > KIND or call in self._parts:
                    self._join(kind, call, payload)
                else:
                    self._on_frame(kind, call, payload)
        except Exception as error:
            self.fail(error)
            return
        if self._read == self._written:
            self._read = self._written = 0

    def _join(self, flags: int, call: int, payload: memoryview) -> None:
        kind = flags & KIND
        if flags & MEMFD:
            raise WireError("memfd payloads are reserved")
        if kind == CANCEL:  # the sender gave up in the middle of a body
            self._parts.pop(call, None)
            self._on_frame(kind, call, payload)
            return
        known, parts = self._parts.setdefault(call, (kind, bytearray()))
        if known != kind:
            raise WireError(f"{NAMES[kind]} frame inside a split {NAMES[known]}")
        parts += payload
        if len(parts) > self._max_payload:
            raise WireError(f"payload over {self._max_payload} bytes")
        if not flags & MORE:
            del self._parts[call]
            self._on_frame(kind, call, memoryview(parts))

    def fail(self, error: Exception) -> None:
        """End the channel because of `error`, which `on_lost` is then told."""
        self._error = self._error or error
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        self._on_lost(self._error or exc)

    def eof_received(self) -> bool:
        return False

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    @property
    def is_writable(self) -> bool:
        return self._writable.is_set()

    def send(self, kind: int, call: int, payload: bytes = b"") -> None:
        """Write one payload of at most MAX_FRAME bytes.

        Raises:
            ConnectionError: the channel is closed.
        """
        # uvloop's write() raises RuntimeError on a closed transport, asyncio's only warns.
        if self.transport.is_closing():
            raise ConnectionError("the worker's channel is closed")
        self.transport.write(HEADER.pack(len(payload), kind, call) + payload)

    def send_split(self, kind: int, call: int, payload: bytes) -> None:
        """Write a payload of any size at once, without waiting; for senders that are bounded by credit."""
        if len(payload) <= MAX_FRAME:
            self.send(kind, call, payload)
            return
        view = memoryview(payload)
        for start in range(0, len(view), MAX_FRAME):
            self._send_part(kind, call, view, start)

    async def send_large(self, kind: int, call: int, payload: bytes) -> None:
        """Write a payload of any size, letting other frames in between its parts."""
        view = memoryview(payload)
        for start in range(0, len(view), MAX_FRAME):
            await self.drain()
            self._send_part(kind, call, view, start)

    def _send_part(self, kind: int, call: int, view: memoryview, start: int) -> None:
        part = view[start : start + MAX_FRAME]
        if self.transport.is_closing():
            raise ConnectionError("the worker's channel is closed")
        flags = kind | MORE if start + MAX_FRAME < len(view) else kind
        self.transport.writelines((HEADER.pack(len(part), flags, call), part))

    async def drain(self) -> None:
        """Wait until the peer has taken what was written."""
        if not self._writable.is_set():
            await self._writable.wait()
        if self.transport.is_closing():
            raise ConnectionError("the worker's channel is closed")
