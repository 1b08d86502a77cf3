"""Convert the values that a Model returns or yields to events. Unknown forms are InvalidOutput, never guessed.

str                        text, or server-sent events framed by the model, if it begins like them bytes
the same, decoded as UTF-8 incrementally None                       nothing dict with `choices`        OpenAI's object
or chunk; its id, created and extra fields are kept dict with `error`          the model reports that the call failed
dict with known keys       shorthand for a message or a delta; `logprobs` in the form of chat or of completions Pydantic
instance          as a dict, or, without a known key, its JSON as text: the answer to a response_format list of n values
n choices, if n > 1 was requested
"""

from __future__ import annotations

import codecs
from typing import Any

import msgspec

from ..errors import InvalidOutput
from ..telemetry.counts import whole_number
from ..wire.values import Structured
from ..wording import a_type, counted, listed
from . import model_json
from .event_stream import DONE, EventStream, Lead, Sent, holds_block
from .events import (
    REASONS,
    AnyEvent,
    Failed,
    Finish,
    Head,
    Logprobs,
    Reasoning,
    Refusal,
    Text,
    checked,
    unwrap,
    usage_of,
)
from .fields import echoed
from .line_items import LineItems
from .output_paths import Odd
from .raw import cut, protocol_of
from .relayed_errors import error_in, error_of
from .tool_calls import ToolCalls

SHORTHAND = frozenset(
    "content reasoning_content reasoning refusal tool_calls function_call logprobs finish_reason usage "
    "stop_sequence".split()
)
ENVELOPE = frozenset("id object created model system_fingerprint choices usage error".split())
_KNOWN = "content, reasoning_content, refusal, tool_calls, logprobs, finish_reason, usage, choices and error"
_AS_TEXT = 'yield {"content": text} for a text that begins with "data:"'
_LOGPROBS = ("content", "refusal")
_OTHER_REASONS = {"eos": "stop", "eos_token": "stop", "model_length": "length", "max_tokens": "length"}  # elsewhere
CHOICE = ("message", "delta", "text", "finish_reason", "logprobs")


class Normalizer:
    """Converts the values of one call to events. `choice` is its first choice, `width` their number."""

    def __init__(self, choice: int = 0, width: int = 1) -> None:
        self._choice, self._width = choice, width
        self._first = True  # it is not known yet whether this is text or events
        self._lines = LineItems()
        self._lead = Lead()
        self._beginning: list[str] = []  # the text until that is known
        self._decoder: codecs.IncrementalDecoder | None = None
        self._calls: dict[int, ToolCalls] = {}  # by choice
        self._parts: dict[int, Normalizer] = {}  # for calls whose items are lists
        self._stream = EventStream()  # for server-sent events framed by the model
        self._finished: set[int] = set()  # choices with a finish reason in these events
        self._is_closed = False  # the last of these events has come
        self.kept_pieces = 0  # bytes of JSON in pieces that is read when it is complete
        self.is_raw = False  # the model frames its own events

    @property
    def held(self) -> int:
        """Bytes that were fed and are read with what follows: of an event in progress, or of an undecided beginning."""
        return self.kept_pieces + self._stream.held + self._lines.held + sum(part.held for part in self._parts.values())

    @property
    def is_plain(self) -> bool:
        """Whether a further str is simply one more piece of text."""
        return not (self._first or self.is_raw or self._decoder is not None)

    def feed(self, value: Any) -> list[AnyEvent]:
        """Return the events of one returned or yielded value.

        Raises:
            InvalidOutput: the value has none of the forms above.
        """
        if isinstance(value, str):  # an empty str may be a blank line; it does not end a split character
            return self._text(self._flush() + value if value else "")
        if isinstance(value, bytes):
            if self._decoder is None:
                self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
            return self._text(self._decoder.decode(value))
        if value is None:
            return []
        if isinstance(value, Structured):
            known = not SHORTHAND.isdisjoint(value.fields) or "choices" in value.fields
            return self._fields(value.fields) if known else [*self._settle(), *self._text(value.json)]
        if isinstance(value, dict):
            return self._fields(value)
        if isinstance(value, list) and self._width > 1:
            return self._list(value)
        raise InvalidOutput(
            f"the model returned {_what(value)}, which is no answer; return a str, or a dict such as "
            '{"content": "Hello"}'
        )

    def end(self) -> list[AnyEvent]:
        """Return the remaining events after the last value. An incomplete character becomes a replacement character.

        Raises:
            InvalidOutput: something was never completed.
        """
        held = self._lines.end().decode("utf-8", "surrogatepass")
        events = self._text(held + self._flush())
        if self._first and holds_block(_bytes("".join(self._beginning))):
            raise cut()
        events += self._settle()
        if self.is_raw:
            events += self._rest()
        for part in self._parts.values():
            events += part.end()
        for calls in self._calls.values():
            calls.check()
        return events

    def _text(self, text: str) -> list[AnyEvent]:
        if not self._lines.are_pieces:
            text = self._lines.feed(text.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
        if not text:
            return []
        if self._first:
            self._beginning.append(text)
            begins = self._lead.feed(_bytes(text))
            if begins is None:
                return []
            self.is_raw, text, self._first = begins, "".join(self._beginning), False
            self._beginning.clear()
        return self._raw(text) if self.is_raw else [Text(self._choice, text)]

    def _settle(self) -> list[AnyEvent]:
        """Treat all further text as text, and return the held back text."""
        self._first = False
        lead = "".join((*self._beginning, self._lines.end().decode("utf-8", "surrogatepass")))
        self._beginning.clear()
        return [Text(self._choice, lead)] if lead else []

    def _flush(self) -> str:
        return self._decoder.decode(b"", True) if self._decoder is not None else ""

    def _list(self, values: list[Any]) -> list[AnyEvent]:
        if len(values) != self._width:
            raise InvalidOutput(f"the model returned a list of {len(values)} for {counted(self._width, 'choice')}")
        events: list[AnyEvent] = []
        for index, value in enumerate(values):
            part = self._parts.setdefault(index, Normalizer(self._choice + index))
            events += part.feed(value)
        return events

    # ── dicts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fields(self, value: dict[str, Any]) -> list[AnyEvent]:
        try:
            return [*self._settle(), *self._dict(value)]
        except Odd as error:
            raise error.within(value) from None

    def _dict(self, value: dict[str, Any]) -> list[AnyEvent]:
        if value.get("error"):
            return [Failed(error_of(value))]
        if "choices" in value:
            return self._envelope(value)
        if SHORTHAND.isdisjoint(value):
            keys = listed(value) or "none"
            raise InvalidOutput(f"the model returned a dict of which no key is known: {keys}; known are {_KNOWN}")
        return [*self._message(self._choice, value), *self._ending(self._choice, value), *_usage(value)]

    def _envelope(self, value: dict[str, Any]) -> list[AnyEvent]:
        choices = value["choices"]
        if not isinstance(choices, list):
            raise Odd(f"choices is {_what(choices)}, not a list", choices)
        extra = {key: item for key, item in value.items() if key not in ENVELOPE}
        events: list[AnyEvent] = [
            Head(
                _string(value.get("id")),
                whole_number(value.get("created")),
                _string(value.get("system_fingerprint")),
                checked(extra, "its answer"),
            )
        ]
        for position, item in enumerate(choices):
            choice = unwrap(item)
            if not isinstance(choice, dict) or not any(key in choice for key in CHOICE):
                raise InvalidOutput(f"choices[{position}] is {_what(choice)} without a message or a delta")
            index = choice.get("index")
            index = self._choice + (index if type(index) is int else position)
            message = unwrap(choice.get("message") or choice.get("delta") or {"content": choice.get("text")})
            if not isinstance(message, dict):
                raise Odd(f"the message of choices[{position}] is {_what(message)}, not a dict", message)
            events += self._message(index, message)
            events += self._ending(index, {"logprobs": message.get("logprobs"), **choice})
        return [*events, *_usage(value)]

    def _message(self, choice: int, message: dict[str, Any]) -> list[AnyEvent]:
        if not self._choice <= choice < self._choice + self._width:
            raise InvalidOutput(f"the model answered choice {choice} where {self._width} were asked")
        events: list[AnyEvent] = []
        name = "reasoning_content" if message.get("reasoning_content") else "reasoning"
        thoughts, said = _thoughts(message.get("content"))
        if reasoning := _piece(message, name) + thoughts:
            events.append(Reasoning(choice, reasoning))
        if content := _content(said):
            events.append(Text(choice, content))
        if refusal := _piece(message, "refusal"):
            events.append(Refusal(choice, refusal))
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list):
            raise Odd(f"tool_calls is {_what(calls)}, not a list", calls)
        if legacy := message.get("function_call"):
            calls = [*calls, {"function": legacy}]
        if calls:
            known = self._calls.setdefault(choice, ToolCalls(choice))
            events += [event for call in calls if (event := known.read(call)) is not None]
        return events

    def _ending(self, choice: int, value: dict[str, Any]) -> list[AnyEvent]:
        """Return events from the fields beside a message: logprobs and the finish reason."""
        events: list[AnyEvent] = []
        if found := value.get("logprobs"):
            events += _logprobs(choice, unwrap(found))
        reason, sequence = value.get("finish_reason"), _string(value.get("stop_sequence"))
        if reason in (None, "") and sequence is None:
            return events
        reason = "stop" if reason in (None, "") else reason
        reason = _OTHER_REASONS.get(reason, reason) if isinstance(reason, str) else reason
        if not isinstance(reason, str) or reason not in REASONS:
            raise Odd(
                f"finish_reason {echoed(reason)} is none of {', '.join(sorted(REASONS))}", value.get("finish_reason")
            )
        return [*events, Finish(choice, "tool_calls" if reason == "function_call" else reason, sequence)]

    # ── raw SSE ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _raw(self, text: str) -> list[AnyEvent]:
        return [event for sent in self._stream.feed(_bytes(text)) for event in self._sent(sent)]

    def _rest(self) -> list[AnyEvent]:
        """Return the last event, which may lack its final blank line.

        Raises:
            InvalidOutput: the stream was cut: it never marked the end of the answer.
        """
        last, events = self._stream.end(), list[AnyEvent]()
        try:
            events = self._sent(last) if last is not None else []
        except InvalidOutput as error:
            if not self._is_over:
                raise cut() from error
        if not self._is_over and not any(isinstance(event, Failed) for event in events):
            raise cut()
        return events

    @property
    def _is_over(self) -> bool:
        return self._is_closed or len(self._finished) >= self._width

    def _sent(self, sent: Sent) -> list[AnyEvent]:
        """Return the events of one server-sent event. Events with unknown names are skipped; our clients ignore them.

        Raises:
            InvalidOutput: the data is invalid, or belongs to another protocol than the method's.
        """
        data, name = (sent.data or b"").strip(), sent.name
        if not data or self._is_closed or name == "ping":
            return []
        if data == DONE:
            self._is_closed = True
            return []
        if (error := error_in(name, data)) is not None:
            return [Failed(error)]
        ours = name in ("", "message") or self._is_name(name)
        try:
            value = model_json.read(data)
        except (msgspec.DecodeError, RecursionError) as broken:
            if ours:
                raise InvalidOutput(f"the model yielded SSE whose data is not JSON ({broken}); {_AS_TEXT}") from broken
            return []
        if not isinstance(value, dict):
            if ours:
                raise InvalidOutput(f"the model yielded SSE whose data is {_what(value)}; {_AS_TEXT}")
            return []
        if self._is_name(name):
            value = {"type": name, **value}
        if not value or value.get("type") == "ping":
            return []
        if not (ours or "choices" in value):
            if value.get("type") == name and (other := protocol_of(name, data)):  # otherwise all would be skipped
                raise InvalidOutput(f"the model yielded events of /v1/{other}: relay them in its method `{other}`")
            return []
        events = self._dict(value)
        self._finished |= {event.choice for event in events if isinstance(event, Finish)}
        self._is_closed = self._closes(value)
        return events

    def _is_name(self, name: str) -> bool:
        """Whether this is the name of an event in a protocol that the values may use."""
        return False

    def _closes(self, value: dict[str, Any]) -> bool:
        """Whether this is the last event of that protocol."""
        return False


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _usage(value: dict[str, Any]) -> list[AnyEvent]:
    fields = unwrap(value.get("usage"))
    if fields is None:
        return []
    if not isinstance(fields, dict):
        raise Odd(f"usage is {_what(fields)}, not a dict", fields)
    usage = usage_of(fields)
    return [] if usage is None else [usage]


def _piece(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if value is None or isinstance(value, str):
        return value or ""
    raise Odd(f"{name} is {_what(value)}, not a string", value)


def _thoughts(content: Any) -> tuple[str, Any]:
    """Return Mistral's thoughts, which are parts of the content, and the other parts."""
    if not isinstance(content, list):
        return "", content
    parts = [unwrap(part) for part in content]
    thoughts: list[Any] = []
    others: list[Any] = []
    for part in parts:
        (thoughts if isinstance(part, dict) and part.get("type") == "thinking" else others).append(part)
    return "".join([_content(part.get("thinking")) for part in thoughts]), others


def _content(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list):
        parts = [unwrap(part) for part in value]
        texts: list[Any] = [part.get("text") if isinstance(part, dict) else part for part in parts]
        if all(isinstance(text, str) for text in texts):
            return "".join(texts)
    raise Odd(f"content is {_what(value)}, neither a string nor a list of text parts", value)


def _logprobs(choice: int, value: Any) -> list[AnyEvent]:
    parts = value if isinstance(value, dict) else {"content": value}
    if "tokens" in parts:
        parts = {"content": _tokens(parts)}
    content, refusal = parts.get("content") or [], parts.get("refusal") or []
    if not isinstance(content, list) or not isinstance(refusal, list) or (parts and parts.keys().isdisjoint(_LOGPROBS)):
        raise Odd(f"logprobs is {_what(value)}, neither a list of tokens nor a dict with such a `content`", value)
    if not content and not refusal:
        return []
    return [Logprobs(choice, checked(content, "logprobs"), checked(refusal, "logprobs"))]


def _tokens(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Convert the four logprobs lists of completions to chat's tokens. Offsets are kept."""
    tokens = value["tokens"]
    blank = [None] * (len(tokens) if isinstance(tokens, list) else 0)
    rest = (value.get(name) or blank for name in ("top_logprobs", "text_offset"))
    columns = [tokens, value.get("token_logprobs"), *rest]
    if any(not isinstance(column, list) or len(column) != len(blank) for column in columns):
        raise Odd("logprobs has `tokens` and other lists that are missing or not as long", value)
    entries = []
    for token, logprob, top, offset in zip(*columns, strict=True):
        entry = {"token": token, "logprob": logprob, "bytes": None}
        if top is None and logprob is None and value.get("top_logprobs"):
            entry["top_logprobs"] = []
        if isinstance(top, dict):
            entry["top_logprobs"] = [{"token": key, "logprob": item, "bytes": None} for key, item in top.items()]
        if type(offset) is int:
            entry["text_offset"] = offset
        entries.append(entry)
    return entries


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _what(value: Any) -> str:
    return a_type(value)
