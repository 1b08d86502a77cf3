"""One end of the socketpair between the gateway and a worker: frames in, frames out.

Splits and joins payloads; knows nothing of what they mean. The same class serves both sides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import cast

from .wire import GIVING_UP, HEADER, KIND, MAX_FRAME, MAX_PENDING, MEMFD, MORE, WireError, name_of

READ_BUFFER = 2 * MAX_FRAME  # one whole frame always fits behind a half-read one
WRITE_HIGH = 1 << 20
TURN = 256  # frames in one turn of the loop: a peer that floods us with small ones must not keep others waiting
FRAMES = range(TURN)
OF_A_SPLIT = 512  # bytes that a split payload takes beside its own, which may be none


class Channel(asyncio.BufferedProtocol):
    """Calls `on_frame(kind, call, payload)` for every complete payload and `on_lost(error)` once at the end.

    The payload view is valid during the call only: copy what you keep. An exception out of `on_frame`, or a frame that
    breaks the rules, ends the channel with that error. `max_pending` bounds the bytes of split payloads that are not
    complete yet, of all calls together; `limits` those of one, by kind, and what is not in it may not be larger than a
    frame. `is_wanted(kind, call)` is asked before a part is kept: what nobody waits for is dropped, and `on_frame` has
    its last part alone. Without these two the peer is trusted.
    """

    def __init__(
        self,
        on_frame: Callable[[int, int, memoryview], None],
        on_lost: Callable[[Exception | None], None],
        max_pending: int = MAX_PENDING,
        limits: Mapping[int, int] | None = None,
        is_wanted: Callable[[int, int], bool] = lambda kind, call: True,
    ) -> None:
        self._on_frame, self._on_lost, self._max_pending, self._limits = on_frame, on_lost, max_pending, limits
        self._is_wanted = is_wanted
        self._buffer = bytearray(READ_BUFFER)
        self._view = memoryview(self._buffer)
        self._read = self._written = 0
        self._parts: dict[int, tuple[int, bytearray]] = {}  # call id → kind, payload so far
        self._pending = 0  # bytes in `_parts`
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
        """Hand on the frames that are there; more than a turn's worth of them in the next turn."""
        if self._error is not None:  # what still comes after the end
            return
        self._written += nbytes
        unpack, view, buffer = HEADER.unpack_from, self._view, self._buffer
        try:
            for _ in FRAMES:
                if self._written - self._read < HEADER.size:
                    break
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
            else:
                self.transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._go_on)
        except Exception as error:
            self.fail(error)
            return
        if self._read == self._written:
            self._read = self._written = 0

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self.buffer_updated(0)

    def _join(self, flags: int, call: int, payload: memoryview) -> None:
        """A part of a split payload, or the end of one that will not be completed."""
        kind = flags & KIND
        if flags & MEMFD:
            raise WireError("memfd payloads are reserved")
        entry = self._parts.get(call)
        if entry is not None and entry[0] != kind:
            if kind not in GIVING_UP:
                raise WireError(f"{name_of(kind)} frame inside a split {name_of(entry[0])}")
            self._pending -= len(entry[1]) + OF_A_SPLIT
            del self._parts[call]
            entry = None
        if entry is None:
            if not flags & MORE:
                self._on_frame(kind, call, payload)
                return
            if not self._is_wanted(kind, call):
                return
            entry = self._parts[call] = kind, bytearray()
            self._pending += OF_A_SPLIT
        parts = entry[1]
        self._pending += len(payload)
        if self._pending > self._max_pending:
            raise WireError(f"split payloads of more than {self._max_pending} bytes")
        if self._limits is not None and len(parts) + len(payload) > (limit := self._limits.get(kind, MAX_FRAME)):
            raise WireError(f"{name_of(kind)} payload of more than {limit} bytes")
        parts += payload
        if not flags & MORE:
            del self._parts[call]
            self._pending -= len(parts) + OF_A_SPLIT
            self._on_frame(kind, call, memoryview(parts))

    def fail(self, error: Exception) -> None:
        """End the channel because of `error`, which `on_lost` is then told."""
        self._error = self._error or error
        self._read = self._written = 0
        self._parts.clear()
        self._pending = 0
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
        """Write a payload of any size at once, without waiting; for senders that are bounded by something else."""
        if len(payload) <= MAX_FRAME:
            self.send(kind, call, payload)
            return
        view = memoryview(payload)
        for start in range(0, len(view), MAX_FRAME):
            self._send_part(kind, call, view, start)

    async def send_large(
        self, kind: int, call: int, payload: bytes, is_wanted: Callable[[], bool] = lambda: True
    ) -> bool:
        """Write a payload of any size, letting other frames in between its parts; False if it was given up.

        `is_wanted` is asked before every part. Who makes it false tells the peer, with a frame of `GIVING_UP`.
        """
        view = memoryview(payload)
        for start in range(0, len(view), MAX_FRAME):
            await self.drain()
            if not is_wanted():
                return False
            self._send_part(kind, call, view, start)
        return True

    def _send_part(self, kind: int, call: int, view: memoryview, start: int) -> None:
        part = view[start : start + MAX_FRAME]
        if self.transport.is_closing():
            raise ConnectionError("the worker's channel is closed")
        flags = kind | MORE if start + MAX_FRAME < len(view) else kind
        self.transport.writelines((HEADER.pack(len(part), flags, call), part))

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was written."""
        if not self._writable.is_set():
            await self._writable.wait()
        if self.transport.is_closing():
            raise ConnectionError("the worker's channel is closed")
