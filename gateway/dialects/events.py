"""The one vocabulary that every model output is turned into, once, and that every dialect encodes.

    Text(i, s) · Reasoning(i, s) · Refusal(i, s) · ToolCall(i, k, id?, name?, part) · Logprobs(i, […])
    Finish(i, reason, stop_sequence?) · Usage(…) · Head(id?, created?, fingerprint?) · Failed(error)

i is the choice, k the call within it. Text, Reasoning, Refusal and the arguments of a ToolCall are pieces, never the
whole so far. Failed ends the stream. What a value means is the table in docs/outputs.md; an unknown shape is
InvalidOutput, never a guess.
"""

from __future__ import annotations

import codecs
import secrets
from typing import Any, Literal

import msgspec

from ..errors import GatewayError, HTTPError, InvalidOutput
from ..wire import Structured

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


class Event(msgspec.Struct, gc=False):
    """Base of all events."""


class Text(Event):
    choice: int
    text: str


class Reasoning(Event):
    choice: int
    text: str


class Refusal(Event):
    choice: int
    text: str


class ToolCall(Event):
    """The first piece of a call has id and name, later ones have neither."""

    choice: int
    call: int
    id: str | None
    name: str | None
    arguments: str


class Logprobs(Event):
    choice: int
    content: list[Any]


class Finish(Event):
    choice: int
    reason: str
    stop_sequence: str | None = None


class Usage(Event):
    prompt: int
    completion: int
    total: int
    cached: int = 0
    reasoning: int = 0


class Head(Event):
    """What the model's own first dict fixed for the whole answer."""

    id: str | None
    created: int | None
    fingerprint: str | None
    extra: dict[str, Any]


class Failed(msgspec.Struct):
    error: GatewayError


AnyEvent = Text | Reasoning | Refusal | ToolCall | Logprobs | Finish | Usage | Head | Failed

SHORTHAND = frozenset(
    "content reasoning_content reasoning refusal tool_calls function_call logprobs finish_reason usage "
    "stop_sequence".split()
)
ENVELOPE = frozenset("id object created model system_fingerprint choices usage service_tier".split())
RAW_STARTS = ("data:", "event:")

encode_json = msgspec.json.encode


class Normalizer:
    """Turns the values of one run into events. `choice` is where they belong, `width` how many choices the run has."""

    def __init__(self, choice: int = 0, width: int = 1) -> None:
        self._choice, self._width = choice, width
        self._first = True
        self._decoder: codecs.IncrementalDecoder | None = None
        self._calls: dict[int, list[tuple[str | None, str | None]]] = {}  # choice → (id, name) of its calls
        self._lines: str | None = None  # raw SSE whose last line is not complete
        self.is_raw = False  # the first item was SSE text: the model frames its own events

    def feed(self, value: Any) -> list[AnyEvent]:
        """The events of one returned or yielded value.

        Raises:
            InvalidOutput: the value is none of those that the table knows.
        """
        if isinstance(value, str):
            if self._first:
                self._first = False
                self.is_raw = value.startswith(RAW_STARTS)
            if self.is_raw:
                return self._raw(value)
            return [Text(self._choice, value)] if value else []
        if isinstance(value, bytes):
            return self.feed(self._decode(value))
        if value is None:
            return []
        if isinstance(value, Structured):
            known = not SHORTHAND.isdisjoint(value.fields) or "choices" in value.fields
            return self._dict(value.fields) if known else [Text(self._choice, value.json)]
        if isinstance(value, dict):
            self._first = False
            return self._dict(value)
        if isinstance(value, list) and self._width > 1 and len(value) == self._width:
            return self._choices(value)
        raise InvalidOutput(f"the model returned {_what(value)}, which is no chat answer")

    def end(self) -> list[AnyEvent]:
        """What is left when the values have ended: half a character becomes a replacement mark."""
        rest = self._decoder.decode(b"", True) if self._decoder is not None else ""
        if self.is_raw:
            return self._raw(rest + "\n\n")
        return [Text(self._choice, rest)] if rest else []

    def _decode(self, value: bytes) -> str:
        if self._decoder is None:
            self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return self._decoder.decode(value)

    def _choices(self, values: list[Any]) -> list[AnyEvent]:
        """A list of n items answers n choices."""
        found: list[AnyEvent] = []
        for index, value in enumerate(values):
            for event in Normalizer(self._choice + index).feed(value):
                found.append(event)
        return found

    # ── dicts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _dict(self, value: dict[str, Any]) -> list[AnyEvent]:
        if value.get("error"):
            return [Failed(_error(value))]
        if isinstance(value.get("choices"), list):
            return self._envelope(value)
        if SHORTHAND.isdisjoint(value):
            raise InvalidOutput(f"the model returned a dict with the keys {sorted(value)[:10]}, none of which is known")
        events = self._message(self._choice, value)
        events += self._finish(self._choice, value)
        if isinstance(value.get("usage"), dict):
            events.append(usage_of(value["usage"]))
        return events

    def _envelope(self, value: dict[str, Any]) -> list[AnyEvent]:
        extra = {key: item for key, item in value.items() if key not in ENVELOPE}
        created = value.get("created")
        events: list[AnyEvent] = [
            Head(
                _text(value.get("id")),
                created if isinstance(created, int) else None,
                _text(value.get("system_fingerprint")),
                extra,
            )
        ]
        for position, choice in enumerate(value["choices"]):
            if not isinstance(choice, dict):
                raise InvalidOutput(f"choices[{position}] is {_what(choice)}, not a dict")
            index = choice.get("index")
            index = self._choice + (index if isinstance(index, int) else position)
            message = choice.get("message") or choice.get("delta")
            if isinstance(message, dict):
                events += self._message(index, message)
            elif isinstance(choice.get("text"), str) and choice["text"]:
                events.append(Text(index, choice["text"]))
            if choice.get("logprobs"):
                events += self._logprobs(index, choice["logprobs"])
            events += self._finish(index, choice)
        if isinstance(value.get("usage"), dict):
            events.append(usage_of(value["usage"]))
        return events

    def _message(self, choice: int, message: dict[str, Any]) -> list[AnyEvent]:
        events: list[AnyEvent] = []
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        if isinstance(reasoning, str) and reasoning:
            events.append(Reasoning(choice, reasoning))
        content = _content(message.get("content"))
        if content:
            events.append(Text(choice, content))
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal:
            events.append(Refusal(choice, refusal))
        legacy = message.get("function_call")
        calls = message.get("tool_calls") or ([{"function": legacy}] if isinstance(legacy, dict) else [])
        if not isinstance(calls, list):
            raise InvalidOutput(f"tool_calls is {_what(calls)}, not a list")
        for position, call in enumerate(calls):
            events.append(self._tool_call(choice, position, call))
        if message.get("logprobs"):
            events += self._logprobs(choice, message["logprobs"])
        return events

    def _tool_call(self, choice: int, position: int, call: Any) -> ToolCall:
        if not isinstance(call, dict):
            raise InvalidOutput(f"tool_calls[{position}] is {_what(call)}, not a dict")
        function = call.get("function")
        function = function if isinstance(function, dict) else call  # {"name", "arguments"} without the wrapper
        name, given = _text(function.get("name")), _text(call.get("id"))
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            arguments = encode_json(arguments).decode()
        known = self._calls.setdefault(choice, [])
        index = call.get("index")
        if not isinstance(index, int):
            index = len(known) if name and (not known or given not in (None, known[-1][0])) else max(len(known) - 1, 0)
            if name and given is None and known and position >= len(known):
                index = len(known)
        while len(known) <= index:
            known.append((None, None))
        known_id, known_name = known[index]
        if known_name is None and name is not None:
            known[index] = (given or known_id or f"call_{secrets.token_hex(16)}", name)
            return ToolCall(choice, index, known[index][0], name, arguments or "")
        # A repeated id or name would be appended to the first by the client's accumulator.
        return ToolCall(choice, index, None, None, arguments or "")

    def _logprobs(self, choice: int, value: Any) -> list[AnyEvent]:
        content = value.get("content") if isinstance(value, dict) else value
        return [Logprobs(choice, content)] if isinstance(content, list) else []

    def _finish(self, choice: int, value: dict[str, Any]) -> list[AnyEvent]:
        reason = value.get("finish_reason")
        if reason is None:
            return []
        if reason not in REASONS:
            raise InvalidOutput(f"finish_reason {reason!r} is none of {', '.join(sorted(REASONS))}")
        reason = "tool_calls" if reason == "function_call" else reason
        return [Finish(choice, reason, _text(value.get("stop_sequence")))]

    # ── raw SSE ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _raw(self, text: str) -> list[AnyEvent]:
        """The `data:` lines of SSE that the model framed itself, read as chunk dicts."""
        *lines, self._lines = ((self._lines or "") + text).split("\n")
        events: list[AnyEvent] = []
        for line in lines:
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data and data != "[DONE]":
                try:
                    value = msgspec.json.decode(data)
                except msgspec.DecodeError as error:
                    raise InvalidOutput(f"the model yielded SSE whose data is not JSON: {error}") from error
                if not isinstance(value, dict):
                    raise InvalidOutput(f"the model yielded SSE whose data is {_what(value)}")
                events += self._dict(value)
        return events


def usage_of(value: dict[str, Any]) -> Usage:
    """Token counts in OpenAI's names or the short ones; a missing total is the sum."""
    prompt = _count(value, "prompt_tokens", "input_tokens")
    completion = _count(value, "completion_tokens", "output_tokens")
    cached = _count(value.get("prompt_tokens_details") or {}, "cached_tokens")
    reasoning = _count(value.get("completion_tokens_details") or {}, "reasoning_tokens")
    return Usage(prompt, completion, _count(value, "total_tokens") or prompt + completion, cached, reasoning)


def estimate_tokens(size: int) -> int:
    """What is said of a text of `size` UTF-8 bytes when nobody counted: a quarter, rounded up."""
    return -(-size // 4)


def _count(value: dict[str, Any], *names: str) -> int:
    return next((int(value[name]) for name in names if isinstance(value.get(name), int | float)), 0)


def _content(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in value]
        if all(isinstance(part, str) for part in parts):
            return "".join(part for part in parts if isinstance(part, str))
    raise InvalidOutput(f"content is {_what(value)}, neither a string nor a list of text parts")


def _error(value: dict[str, Any]) -> GatewayError:
    """A dict with `error`: the model says itself that the call failed."""
    error = value["error"]
    body = error if isinstance(error, dict) else {"message": str(error)}
    status = next((source[key] for source in (value, body) for key in ("status", "status_code") if key in source), 500)
    status = status if isinstance(status, int) and 400 <= status <= 599 else 500
    message = str(body.get("message") or "the model reported an error")
    return HTTPError(status, message, code=_text(body.get("code")), param=_text(body.get("param")))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _what(value: Any) -> str:
    return f"a {type(value).__name__}"
