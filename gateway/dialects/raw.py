"""Server-sent events that a Model frames itself, or passes on from another server.

Where they are in the words of the route they go out as they are, in whole events with LF, but for what breaks clients:
`id` and `retry`, events without data, a byte order mark. An error among them is for the dialect to say. `Opening` finds
out whether they are; `Ending` is how a dialect tells a stream that was cut from one that has ended.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

import msgspec

from ..errors import GatewayError, InvalidOutput
from ..wording import a_type
from .event_stream import EventStream, Sent, is_complete, one_line, starts_events
from .line_items import LineItems
from .reported import error_in

Protocol = Literal["", "chat", "completions", "responses", "messages"]
Shown = Literal["pass", "read"]
PING = b": ping\n\n"
MAX_IDLE = 1000  # events that may say nothing before the first that says what a stream is
NAMED_PING = b'event: ping\ndata: {"type": "ping"}\n\n'
# Events that need no look but one for their end: clients may have them as they are.
_PLAIN = re.compile(rb"(?:(?:event: ?+(?!(?:ping|error)\n).++\n)?data: ?+\{.++\n\n)++")  # with no CR in them


class Ending:
    """Where the stream of one answer ends. A dialect says in `read` which event that is.

    Without a dialect's word any event is an answer.
    """

    hint: ClassVar[re.Pattern[bytes]] = re.compile(rb"")  # an event without it is not the last, and is not read
    closing: ClassVar[bytes] = b""  # what is sent behind a whole answer that was not closed
    has_pings: ClassVar[bool] = False  # clients of the dialect know an event of the name `ping`

    is_whole = False  # nothing that a client needs is missing
    is_closed = False  # nothing that comes now belongs to it
    is_failed = False  # it says so itself

    def __init__(self, choices: int = 1) -> None:
        self._choices = choices

    def read(self, name: str, data: bytes) -> None:
        self.is_whole = True

    def close(self, *, failed: bool = False) -> None:
        self.is_whole = self.is_closed = True
        self.is_failed = failed


class RawStream:
    """The bytes of one such stream."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._stream = EventStream()
        self._lines = LineItems()
        self.failure: GatewayError | None = None  # what came behind the events that were returned last

    @property
    def is_failed(self) -> bool:
        """It says itself that it failed."""
        return self._ending.is_failed

    def feed(self, items: list[Any]) -> bytes:
        """The events that are complete by now; a write never tears one."""
        parts: list[bytes] = []
        for item in items:
            if isinstance(item, bytes | str):
                part = item if isinstance(item, bytes) else item.encode()
                parts.append(part if self._lines.are_pieces else self._lines.feed(part))
            elif item is not None:
                self.failure = InvalidOutput(f"the model yielded {a_type(item)} within SSE that it frames itself")
                break
        try:
            return self._pass(b"".join(parts))
        except InvalidOutput as error:
            self.failure = error
            return b""

    def finish(self) -> bytes:
        """What is left, and what the dialect closes a stream with. Sets `failure` when the stream was cut."""
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
        if sent.name == "ping":  # some servers send it with {}, which clients that check types do not take
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
    """What the first items of a stream are: `pass`, events in the words of the route; `read`, anything else.

    None while that shows only when more has come. Every byte is looked at once, for a first event may be large.
    """

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._lead = b""
        self._lines = LineItems()
        self._events: EventStream | None = None  # from when it is known to be events
        self._idle = 0  # events so far that say nothing

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
            self._lead += data
            begins = starts_events(self._lead)
            if not begins:
                return None if begins is None else "read"
            if not self._protocol:
                return "pass"
            self._events, data = EventStream(), self._lead
        return next(filter(None, map(self._shown, self._events.feed(data))), None)

    def end(self) -> Shown:
        """Nothing more will come."""
        if (shown := self._take(self._lines.end())) is not None:
            return shown
        last = self._events.end() if self._events is not None else None
        return (self._shown(last) if last is not None else None) or "read"

    def _shown(self, event: Sent) -> Shown | None:
        """None for what says nothing, such as a ping. All of that is held back, and so there may be only so much."""
        if event.data is None or event.name == "ping" or not event.data.strip():
            return self._says_nothing()
        if error_in(event.name, event.data) is not None or not is_complete(event.data):
            return "read"
        protocol = protocol_of(event.name, event.data)
        if not protocol and fields_of(event.data).get("choices") == []:  # Azure's first one says this and no more
            return self._says_nothing()
        fits = protocol == self._protocol and _is_worded(protocol, event.name, event.data)
        return "pass" if fits or not protocol else "read"

    def _says_nothing(self) -> Shown | None:
        self._idle += 1
        return "read" if self._idle > MAX_IDLE else None


def _is_worded(protocol: Protocol, name: str, data: bytes) -> bool:
    """Whether clients find in an event what they look for: its kind in its data, Anthropic's in its name too."""
    if protocol == "chat":
        return "delta" in fields_of(data)["choices"][0]  # a whole answer as an event is no chunk
    if protocol == "completions":
        return True
    kind = fields_of(data).get("type")
    return kind == name if protocol == "messages" else kind is not None


def protocol_of(name: str, data: bytes) -> Protocol:
    """In whose words an event is; "" is that of none."""
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


def fields_of(data: bytes) -> dict[str, Any]:
    """An event's data as an object; empty when it is none."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def cut() -> InvalidOutput:
    return InvalidOutput("the server-sent events of the model broke off: no finish reason came, and no last event")
