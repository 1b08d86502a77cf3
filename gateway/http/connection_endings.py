"""End a connection early: in the middle of an answer, with an unread body, or when the client does not read."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from .slow_clients import Stall

LINGER = 5.0  # seconds for which the rest of a refused body is discarded before the connection is closed
# Seconds between the last bytes of an interrupted answer and the end of the connection. A page in a browser that
# receives both at once never gets the bytes that it has not read yet.
PARTING = 0.1


class EndingProtocol(HttpToolsProtocol):
    """The part of `GuardedProtocol` that ends connections."""

    send_timeout = 30.0  # seconds within which a client must read some of the buffered data
    is_lingering = False  # incoming data is no longer read
    stall: Stall | None = None

    def stop_reading(self) -> None:
        """Drop requests that were read but not answered, and discard further input."""
        raise NotImplementedError

    # For clients that do not read: the transport calls these when its buffer is full, and when there is room again.

    def pause_writing(self) -> None:
        super().pause_writing()
        self.watch_rest()

    def watch_rest(self) -> None:
        """Require that the client reads what is buffered. Also called for a connection that was closed."""
        if self.stall is None:
            self.stall = Stall(self.transport, self.loop, self.send_timeout)

    @property
    def was_cut_off(self) -> bool:
        """Whether the connection was closed because the client read too slowly."""
        return self.stall is not None and self.stall.has_cut_off

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.stall is not None:
            self.stall.cancel()
            self.stall = None

    def linger(self) -> None:
        """Close once the client has stopped sending. Closing at once would reset the connection and lose the answer."""
        self._throw_away()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)

    def break_off(self, cycle: RequestResponseCycle) -> None:
        """Close the connection in the middle of an answer, after the data written so far. Nothing more is written."""
        cycle.disconnected = cycle.response_complete = True
        cycle.message_event.set()
        if self.is_lingering:  # it ends already
            return
        self._throw_away()
        self.watch_rest()
        self.loop.call_later(PARTING, self._part)

    def _part(self) -> None:
        if self.transport.is_closing():
            return
        if self.transport.get_write_buffer_size():  # a slow client has not read it yet
            self.loop.call_later(PARTING, self._part)
        elif self.transport.can_write_eof():
            self.linger()
        else:
            self.transport.close()

    def _throw_away(self) -> None:
        self.is_lingering = True
        self.stop_reading()
