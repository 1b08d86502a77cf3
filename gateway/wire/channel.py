"""One end of the socketpair between the gateway and a worker: sends and receives frames.

Splits and joins payloads but does not interpret them. Both sides use the same class.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from time import thread_time as clock
from typing import cast

from .frames import END, GIVING_UP, HEADER, KIND, MAX_FRAME, MAX_PENDING, MEMFD, MORE, RESP, name_of
from .values import WireError

READ_BUFFER = 2 * MAX_FRAME  # one whole frame always fits behind a half-read one
WRITE_HIGH = 1 << 20
# In one turn of the event loop, so that frames do not delay other work:
TURN = 256  # frames
SPENT = 0.01  # seconds of CPU time; what took longer is followed by a rest of the same length, at most of REST
REST = 0.05
FRAMES = range(TURN)
LARGE = 16 * 1024  # bytes; after such a frame the clock is read, and after every sixteenth: smaller ones cost little
HEADER_SIZE = HEADER.size  # cached: the struct computes it on each access
OF_A_SPLIT = 512  # overhead in bytes of a split payload, which may be empty
UNBOUNDED = 1 << 62


class Room:
    """The bytes of incomplete split payloads that all channels of a gateway may hold together."""

    def __init__(self, most: int = MAX_PENDING) -> None:
        self.most, self.held = most, 0
        self.channels: set[Channel] = set()  # those that hold some

    def free(self) -> None:
        """Drop the largest payload of the channel that holds most, until there is room again."""
        while self.held > self.most:
            payer = max(self.channels, key=lambda channel: channel.pending)
            if not payer.give_up_largest():
                return  # only payloads of the channels themselves are left, which are small


class _Split:
    """A payload that arrives in parts; `parts` is None once it has been dropped."""

    __slots__ = ("kind", "parts")

    def __init__(self, kind: int) -> None:
        self.kind = kind
        self.parts: bytearray | None = bytearray()


class Channel(asyncio.BufferedProtocol):
    """Call `on_frame(kind, call, payload)` for every complete payload, and `on_lost(error)` once at the end.

    A payload view of at most MAX_FRAME bytes is valid only during the call: copy what you keep. A larger one has been
    joined and is yours. An exception from `on_frame`, or a frame that breaks the rules, ends the channel with that
    error.

    `max_pending` bounds the bytes of all incomplete split payloads together. `limits` bounds one payload by kind; kinds
    not in it may not be larger than a frame. `is_wanted(kind, call)` is asked before a new split payload is kept; parts
    of an unwanted one are dropped, and `on_frame` gets only its last part. Without `limits` and `is_wanted` the peer is
    trusted.

    When `room` is full, the largest payload of the channel that holds most is dropped. `on_dropped(call)` reports it;
    if it was an answer that still completes, `on_frame` gets an `end` instead.
    """

    def __init__(
        self,
        on_frame: Callable[[int, int, memoryview], None],
        on_lost: Callable[[Exception | None], None],
        max_pending: int = MAX_PENDING,
        limits: Mapping[int, int] | None = None,
        is_wanted: Callable[[int, int], bool] = lambda kind, call: True,
        room: Room | None = None,
        on_dropped: Callable[[int], None] = lambda call: None,
    ) -> None:
        self._on_frame, self._on_lost, self._max_pending, self._limits = on_frame, on_lost, max_pending, limits
        self._is_wanted, self._on_dropped = is_wanted, on_dropped
        self._room = Room(UNBOUNDED) if room is None else room
        self._buffer = bytearray(READ_BUFFER)
        self._view = memoryview(self._buffer)
        self._read = self._written = 0
        self._parts: dict[int, _Split] = {}  # by call id
        self.pending = 0  # bytes in `_parts`
        self._error: Exception | None = None
        # An Event, not a shared Future: cancelling one of several waiters would cancel the Future for all of them.
        self._writable = asyncio.Event()
        self._writable.set()
        self._soon: list[bytes] = []  # frames of this turn of the event loop
        self._soon_size = 0
        self.transport: asyncio.Transport
        self._write: Callable[[bytes], None]
        self._write_all: Callable[[Iterable[bytes | memoryview]], None]

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._write, self._write_all = self.transport.write, self.transport.writelines
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)

    def get_buffer(self, sizehint: int) -> memoryview:
        if len(self._buffer) - self._written < MAX_FRAME // 2 and self._read:
            pending = self._written - self._read
            self._buffer[:pending] = self._buffer[self._read : self._written]
            self._read, self._written = 0, pending
        return self._view[self._written :]

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on the frames in the buffer, as many as a turn of the event loop may have.

        If the buffer is full, there is more, which the loop would read within the same turn.
        """
        if self._error is not None:  # data that arrives after the end
            return
        self._written = written = self._written + nbytes
        read, is_over = self._read, nbytes > 0 and written == len(self._buffer)
        began = clock() if written - read > LARGE else 0.0
        try:
            for number in FRAMES:
                start = read + HEADER_SIZE
                if start > written:
                    break
                size, kind, call = HEADER.unpack_from(self._buffer, read)
                if size > MAX_FRAME:
                    raise WireError(f"frame of {size} bytes, at most {MAX_FRAME} allowed")
                if start + size > written:
                    break
                self._read = read = start + size
                payload = self._view[start:read]
                if kind > KIND or call in self._parts:
                    self._join(kind, call, payload)
                else:
                    self._on_frame(kind, call, payload)
                if began and (size > LARGE or number & 15 == 15) and clock() - began > SPENT:
                    is_over = True
                    break
            else:
                is_over = is_over or read < written
        except Exception as error:
            self.fail(error)
            return
        if read == written:
            self._read = self._written = 0
        if is_over and self._error is None:
            self._end_turn(clock() - began if began else 0.0)

    def _end_turn(self, spent: float) -> None:
        """Read on in the next turn, or after a rest: without one, the next frames would come first again."""
        self.transport.pause_reading()
        loop = asyncio.get_running_loop()
        if spent > SPENT:
            loop.call_later(min(spent, REST), self._go_on)
        else:
            loop.call_soon(self._go_on)

    @property
    def is_between_frames(self) -> bool:
        """Whether everything that was read has been passed on."""
        return self._read == self._written and not self._parts

    def feed(self, data: bytes) -> None:
        """Pass on data that was read elsewhere, between two frames. It is smaller than a frame."""
        self.get_buffer(len(data))[: len(data)] = data
        self.buffer_updated(len(data))

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self.buffer_updated(0)

    def _join(self, flags: int, call: int, payload: memoryview) -> None:
        """Handle a part of a split payload, or a frame that aborts one."""
        kind = flags & KIND
        if flags & MEMFD:
            raise WireError("memfd payloads are reserved")
        entry = self._parts.get(call)
        if entry is not None and entry.kind != kind:
            if kind not in GIVING_UP:
                raise WireError(f"{name_of(kind)} frame inside a split {name_of(entry.kind)}")
            self._forget(call)
            entry = None
        if entry is None:
            if not flags & MORE:
                self._on_frame(kind, call, payload)
                return
            if not self._is_wanted(kind, call):
                return
            entry = self._parts[call] = _Split(kind)
            self._count(OF_A_SPLIT)
        if entry.parts is not None:
            self._add(entry, payload)
        if flags & MORE:
            return
        parts = entry.parts
        self._forget(call)
        if parts is not None:
            self._on_frame(kind, call, memoryview(parts))
        elif kind == RESP:
            self._on_frame(END, call, memoryview(b""))

    def _add(self, entry: _Split, payload: memoryview) -> None:
        parts = entry.parts
        assert parts is not None
        self._count(len(payload))
        if self.pending > self._max_pending:
            raise WireError(f"split payloads of more than {self._max_pending} bytes")
        if self._limits is not None and len(parts) + len(payload) > (limit := self._limits.get(entry.kind, MAX_FRAME)):
            raise WireError(f"{name_of(entry.kind)} payload of more than {limit} bytes")
        parts += payload
        if self._room.held > self._room.most:
            self._room.free()

    def _count(self, size: int) -> None:
        self.pending += size
        self._room.held += size
        if self.pending:
            self._room.channels.add(self)
        else:
            self._room.channels.discard(self)

    def _forget(self, call: int) -> None:
        parts = self._parts.pop(call).parts
        self._count(-OF_A_SPLIT - (len(parts) if parts is not None else 0))

    def give_up_largest(self) -> bool:
        """Drop the largest payload of a call, and the parts still to come. False if there is none."""
        sizes = {call: len(entry.parts) for call, entry in self._parts.items() if call and entry.parts}
        if not sizes:
            return False
        call = max(sizes, key=sizes.__getitem__)
        self._parts[call].parts = None
        self._count(-sizes[call])
        self._on_dropped(call)
        return True

    def fail(self, error: Exception) -> None:
        """End the channel with `error`, which is passed to `on_lost`."""
        self._error = self._error or error
        self._read = self._written = 0
        self._forget_all()
        self.transport.abort()

    def _forget_all(self) -> None:
        self._parts.clear()
        self._count(-self.pending)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_all()
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
        # On a closed transport, uvloop's write() raises RuntimeError, asyncio's only warns.
        if self.transport.is_closing():
            raise ConnectionError("the worker's channel is closed")
        if self._soon:
            self._write_soon()
        self._write(HEADER.pack(len(payload), kind, call) + payload)

    def send_soon(self, kind: int, call: int, payload: bytes = b"") -> None:
        """Write one payload of at most MAX_FRAME bytes, together with others of this turn of the event loop.

        For frames that nobody waits for at once: one write for several is much cheaper.

        Raises:
            ConnectionError: the channel is closed.
        """
        if self.transport.is_closing():
            raise ConnectionError("the worker's channel is closed")
        if not self._soon:
            asyncio.get_running_loop().call_soon(self._write_soon)
        self._soon.append(HEADER.pack(len(payload), kind, call) + payload)
        self._soon_size += len(payload)
        if self._soon_size > MAX_FRAME:
            self._write_soon()

    def _write_soon(self) -> None:
        if self._soon:
            frames, self._soon, self._soon_size = self._soon, [], 0
            if not self.transport.is_closing():
                self._write_all(frames)

    def send_split(self, kind: int, call: int, payload: bytes) -> None:
        """Write a payload of any size without waiting. The caller must bound what it sends in another way."""
        if len(payload) <= MAX_FRAME:
            self.send(kind, call, payload)
            return
        view = memoryview(payload)
        for start in range(0, len(view), MAX_FRAME):
            self._send_part(kind, call, view[start : start + MAX_FRAME], start + MAX_FRAME < len(view))

    async def send_large(
        self, kind: int, call: int, payload: bytes, is_wanted: Callable[[], bool] = lambda: True, head: bytes = b""
    ) -> bool:
        """Write a payload of any size; other frames may go between its parts. False if it was aborted.

        `is_wanted` is called before every part. If it returns False, the caller must tell the peer with a frame of
        `GIVING_UP`. `head` precedes the payload and is smaller than a frame; joining the two would copy them in one
        turn of the event loop.
        """
        view, start, end = memoryview(payload), 0, MAX_FRAME - len(head)
        while True:
            await self.drain()
            if not is_wanted():
                return False
            part = view[start:end]
            self._send_part(kind, call, memoryview(head + part) if head else part, end < len(view))
            if end >= len(view):
                return True
            head, start, end = b"", end, end + MAX_FRAME

    def _send_part(self, kind: int, call: int, part: memoryview, more: bool) -> None:
        if self.transport.is_closing():
            raise ConnectionError("the worker's channel is closed")
        if self._soon:
            self._write_soon()
        flags = kind | MORE if more else kind
        self._write_all((HEADER.pack(len(part), flags, call), part))

    async def drain(self) -> None:
        """Wait until the peer has read most of what was written."""
        if not self._writable.is_set():
            await self._writable.wait()
        if self.transport.is_closing():
            raise ConnectionError("the worker's channel is closed")
