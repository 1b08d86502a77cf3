"""Server-sent events that a Model frames itself or relays from another server.

If they use the protocol of the route, they are passed on in whole events with LF, without parts that break clients:
`id` and `retry`, events without data, a byte order mark. The dialect handles errors in them. `Opening` detects the
protocol. `Ending` tells a dialect's complete stream from a cut one.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

from ..errors import GatewayError, InvalidOutput
from ..wording import a_type
from .event_stream import EventStream, Lead, Sent, is_complete, one_line
from .events import fields_of
from .line_items import LineItems
from .relayed_errors import error_in

Protocol = Literal["", "chat", "completions", "responses", "messages"]
Shown = Literal["pass", "read"]
PING = b": ping\n\n"
MAX_IDLE = 1000  # events without content before the first that identifies the stream
NAMED_PING = b'event: ping\ndata: {"type": "ping"}\n\n'
# Events that need only a check for the end, and are otherwise passed on unchanged.
_PLAIN = re.compile(rb"(?:(?:event: ?+(?!(?:ping|error)\n).++\n)?data: ?+\{.++\n\n)++")  # without CR


class Ending:
    """Detects the end of one answer's stream. A dialect defines in `read` which event ends it.

    By default any event completes the answer.
    """

    hint: ClassVar[re.Pattern[bytes]] = re.compile(rb"")  # an event without a match is not the last, and is not read
    closing: ClassVar[bytes] = b""  # sent after a complete answer that was not closed
    has_pings: ClassVar[bool] = False  # clients of the dialect support an event named `ping`

    is_whole = False  # clients have everything they need
    is_closed = False  # further events are not part of it
    is_failed = False  # it reports its own failure

    def __init__(self, choices: int = 1) -> None:
        self._choices = choices

    def read(self, name: str, data: bytes) -> None:
        self.is_whole = True

    def close(self, *, failed: bool = False) -> None:
        self.is_whole = self.is_closed = True
        self.is_failed = failed


class RawStream:
    """Passes on the bytes of such a stream."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._stream = EventStream()
        self._lines = LineItems()
        self.failure: GatewayError | None = None  # an error that followed the events returned last

    @property
    def is_failed(self) -> bool:
        """Whether the stream reports its own failure."""
        return self._ending.is_failed

    @property
    def held(self) -> int:
        """Bytes that were fed and are read with what follows."""
        return self._stream.held + self._lines.held

    def feed(self, items: list[Any]) -> bytes:
        """Return the complete events. An event is never split between writes."""
        parts: list[bytes] = []
        try:
            for item in items:
                if isinstance(item, bytes | str):
                    part = item if isinstance(item, bytes) else item.encode()
                    parts.append(part if self._lines.are_pieces else self._lines.feed(part))
                elif item is not None:
                    raise InvalidOutput(f"the model yielded {a_type(item)} within SSE that it frames itself")
        except InvalidOutput as error:  # what came before is sent first
            self.failure = error
        try:
            return self._pass(b"".join(parts))
        except InvalidOutput as error:
            self.failure = error
            return b""

    def finish(self) -> bytes:
        """Return the rest and the dialect's closing bytes. Sets `failure` if the stream was cut."""
        out = self._pass(self._lines.end())
        last = self._stream.end()
        if last is not None and last.data is not None and (last.name == "error" or is_complete(last.data)):
            out += self._event(last)
        if not self._ending.is_whole:
            self.failure = cut()
        elif not self._ending.is_closed:
            out += self._ending.closing
        return out

    def _pass(self, data: bytes) -> bytes:
        out = b""
        if not self._stream.is_between:
            end = data.find(b"\n\n") + 2
            begun, data = (data[:end], data[end:]) if end > 1 else (data, b"")
            out = self._read(begun)
        is_open = self._stream.is_between and not self._ending.is_closed
        if is_open and data.find(b"\r") < 0 and (plain := _PLAIN.match(data)) is not None:
            data = data[plain.end() :]
            out += self._read(plain[0]) if self._ending.hint.search(plain[0]) else one_line(plain[0])
        return out + self._read(data) if data else out

    def _read(self, data: bytes) -> bytes:
        return b"".join([self._event(sent) for sent in self._stream.feed(data)])

    def _event(self, sent: Sent) -> bytes:
        if self._ending.is_closed:
            return b""
        if sent.data is None:
            return PING
        if sent.name == "ping":  # some servers send it with {}, which strict clients reject
            return NAMED_PING if self._ending.has_pings else PING
        if not sent.data.strip():
            return b""
        if (error := error_in(sent.name, sent.data)) is not None:
            self.failure = error
            self._ending.close(failed=True)
            return b""
        self._ending.read(sent.name, sent.data)
        written = b"\n".join(sent.lines) + b"\n\n"
        return one_line(written) if sent.data.lstrip().startswith(b"{") else written


class Opening:
    """Decides what the first items of a stream are: `pass`, events in the protocol of the route; `read`, anything else.

    The result is None while more items are needed. Every byte is read once, because the first event may be large.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._lead, self._beginning = Lead(), list[bytes]()
        self._lines = LineItems()
        self._events: EventStream | None = None  # set once it is known to be events
        self._idle = 0  # events without content so far

    def feed(self, items: list[Any]) -> Shown | None:
        for item in items:
            if isinstance(item, str | bytes):
                data = self._lines.feed(item.encode() if isinstance(item, str) else item)
                if (shown := self._take(data)) is not None:
                    return shown
            elif item is not None:
                return "read"
        return None

    def _take(self, data: bytes) -> Shown | None:
        if self._events is None:
            self._beginning.append(data)
            begins = self._lead.feed(data)
            if not begins:
                return None if begins is None else "read"
            if not self._protocol:
                return "pass"
            self._events, data = EventStream(), b"".join(self._beginning)
        return next(filter(None, map(self._shown, self._events.feed(data))), None)

    def end(self) -> Shown:
        """Decide after the last item."""
        if (shown := self._take(self._lines.end())) is not None:
            return shown
        last = self._events.end() if self._events is not None else None
        return (self._shown(last) if last is not None else None) or "read"

    def _shown(self, event: Sent) -> Shown | None:
        """Return None for events without content, such as a ping. They are held back, so their number is limited."""
        if event.data is None or event.name == "ping" or not event.data.strip():
            return self._says_nothing()
        if error_in(event.name, event.data) is not None or not is_complete(event.data):
            return "read"
        protocol = protocol_of(event.name, event.data)
        if not protocol and fields_of(event.data).get("choices") == []:  # Azure's first event has nothing else
            return self._says_nothing()
        fits = protocol == self._protocol and _is_worded(protocol, event.name, event.data)
        return "pass" if fits or not protocol else "read"

    def _says_nothing(self) -> Shown | None:
        self._idle += 1
        return "read" if self._idle > MAX_IDLE else None


def _is_worded(protocol: Protocol, name: str, data: bytes) -> bool:
    """Whether an event has the fields that clients check: its type in the data, for Anthropic also as the name."""
    if protocol == "chat":
        return "delta" in fields_of(data)["choices"][0]  # a whole answer as an event is not a chunk
    if protocol == "completions":
        return True
    kind = fields_of(data).get("type")
    return kind == name if protocol == "messages" else kind is not None


def protocol_of(name: str, data: bytes) -> Protocol:
    """Return the protocol of an event, or "" if unknown."""
    value = fields_of(data)
    kind, choices = value.get("type", name), value.get("choices")
    if isinstance(kind, str) and kind.startswith("response."):
        return "responses"
    if isinstance(kind, str) and kind.startswith(("message_", "content_block_")):
        return "messages"
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict):
        return ""
    return "chat" if "delta" in first or "message" in first else "completions" if "text" in first else ""


def cut() -> InvalidOutput:
    return InvalidOutput("the server-sent events of the model broke off: no finish reason came, and no last event")
