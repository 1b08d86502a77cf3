"""Values that a class's own `messages` may return in addition to chat's: Anthropic's own objects.

dict with `type: message`       a complete message; missing fields are filled in dict of Anthropic's stream
`message_start`, `content_block_delta` and others: the same in pieces Pydantic instance of these      as a dict raw SSE
passed on if a stream was requested, otherwise its data is read as above
"""

from __future__ import annotations

from typing import Any

from ...errors import InvalidOutput
from ...wire.values import Structured
from ...wording import a_type
from ..events import Event, Finish, Reasoning, Text, checked, encode_json, unwrap, usage_of
from ..fields import echoed
from ..json_pieces import decoded
from ..normalize import Normalizer
from ..output_paths import Odd
from ..partial_json import begun_object
from ..tool_calls import ToolCalls
from .blocks import Given, Signature

REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
SILENT = frozenset({"message_stop", "ping"})
KNOWN = SILENT | {"message", "message_start", "message_delta"}
KNOWN |= {"content_block_start", "content_block_delta", "content_block_stop"}
ENVELOPE = frozenset("id type role model content stop_reason stop_sequence usage".split())
Events = list[Any]  # events of events.py and blocks.py


class MessageValues(Normalizer):
    def __init__(self) -> None:
        super().__init__()
        self.id: str | None = None
        self.extra: dict[str, Any] = {}  # fields of the message that are not in the envelope
        self.usage: dict[str, Any] = {}  # counts with Anthropic's names, besides input and output
        self.stop_reason: str | None = None  # Anthropic's stop reason
        self._held: dict[str, Any] | None = None  # a block of another kind, or with citations, until it is complete
        self._held_pieces: dict[str, list[Any]] = {}  # its pieces by field name, joined once

    def feed(self, value: Any) -> Events:
        if isinstance(value, Structured) and value.fields.get("type") in KNOWN:
            return self._fields(value.fields)
        return super().feed(value)

    def _dict(self, value: dict[str, Any]) -> Events:
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in KNOWN:
            return super()._dict(value)
        if kind in SILENT:
            return []
        if kind == "content_block_delta":
            return self._delta(value.get("index"), _object(value, "delta"))
        if kind == "content_block_stop":
            return self._release()
        if kind == "content_block_start":
            return [*self._release(), *self._block(_object(value, "content_block"), value.get("index"))]
        if kind == "message_delta":
            return [*self._release(), *self._end_of({**_object(value, "delta"), "usage": value.get("usage")})]
        return self._whole(_object(value, "message") if kind == "message_start" else value)

    def end(self) -> Events:
        return [*self._release(), *super().end()]

    def _is_name(self, name: str) -> bool:
        return name in KNOWN

    def _closes(self, value: dict[str, Any]) -> bool:
        return value.get("type") in ("message", "message_stop")

    def _whole(self, message: dict[str, Any]) -> Events:
        if isinstance(given := message.get("id"), str):
            self.id = given
        extra = {name: field for name, field in message.items() if name not in ENVELOPE}
        self.extra.update(checked(extra, "a message"))
        content = message.get("content") or []
        if isinstance(content, str):
            return [Text(0, content), *self._end_of(message)]
        if not isinstance(content, list):
            raise Odd(f"the content of a message is {a_type(content)}, not a list of blocks", content)
        events: Events = []
        for block in map(unwrap, content):
            if not isinstance(block, dict) or not isinstance(block.get("type"), str):
                raise Odd("the content of a message contains something that is not a block with a type", block)
            events += self._tool_use(block, None) if block["type"] == "tool_use" else [_given(block)]
        return [*events, *self._end_of(message)]

    def _block(self, block: dict[str, Any], index: Any) -> Events:
        kind = block.get("type")
        if kind == "tool_use":
            return self._tool_use(block, index)
        if kind == "text" and "citations" not in block:
            return [Text(0, text)] if (text := _string(block, "text")) else []
        if kind == "thinking":
            return [Reasoning(0, text)] if (text := _string(block, "thinking")) else []
        self._held, self._held_pieces = {**block}, {"text": [], "citations": [], "input": []}
        return []

    def _add(self, delta: dict[str, Any]) -> None:
        kind = delta.get("type")
        if kind == "input_json_delta":
            piece = _string(delta, "partial_json")
            self._held_pieces["input"].append(piece)
            self.kept_pieces += len(piece)
        elif kind == "text_delta":
            self._held_pieces["text"].append(_string(delta, "text"))
        elif kind == "citations_delta":
            self._held_pieces["citations"].append(unwrap(delta.get("citation")))

    def _release(self) -> Events:
        held, self._held, self.kept_pieces = self._held, None, 0
        if held is None:
            return []
        pieces = self._held_pieces
        if pieces["text"]:
            held["text"] = "".join((_string(held, "text"), *pieces["text"]))
        if pieces["citations"]:
            given = held.get("citations") or []
            if not isinstance(given, list):
                raise InvalidOutput(f"the citations of a block are {a_type(given)}, not a list")
            held["citations"] = [*given, *pieces["citations"]]
        if text := "".join(pieces["input"]).strip():
            held["input"] = decoded(text) or begun_object(text)
            if held["input"] is None:
                raise InvalidOutput(f"the input of a block {echoed(held.get('type'))} is not a valid JSON object")
        return [_given(held)]

    def _tool_use(self, block: dict[str, Any], index: Any) -> Events:
        given = block.get("input")
        call = {"index": index, "id": block.get("id"), "name": block.get("name"), "arguments": given or None}
        if index is None and isinstance(given, dict):
            call["arguments"] = encode_json(checked(given, "the input of a tool")).decode()
        found = self._known().read(call)
        return [] if found is None else [found]

    def _delta(self, index: Any, delta: dict[str, Any]) -> Events:
        if self._held is not None:
            self._add(delta)
            return []
        kind = delta.get("type")
        if kind == "input_json_delta":
            found = self._known().read({"index": index, "arguments": _string(delta, "partial_json")})
            return [] if found is None else [found]
        makers: dict[Any, tuple[type[Event], str]] = {
            "text_delta": (Text, "text"),
            "thinking_delta": (Reasoning, "thinking"),
            "signature_delta": (Signature, "signature"),
        }
        if not isinstance(kind, str) or kind not in makers:
            return []  # from a later version of the API
        make, name = makers[kind]
        return [make(0, text)] if (text := _string(delta, name)) else []

    def _known(self) -> ToolCalls:
        return self._calls.setdefault(0, ToolCalls(0))

    def _end_of(self, value: dict[str, Any]) -> Events:
        """Return events for the stop reason and the usage in a value."""
        events: Events = []
        counts = unwrap(value.get("usage"))
        if isinstance(counts, dict):
            self.usage.update(checked({name: n for name, n in counts.items() if n is not None}, "usage"))
            if (usage := usage_of(self.usage)) is not None:
                events.append(usage)
        reason, sequence = value.get("stop_reason"), value.get("stop_sequence")
        if isinstance(reason, str):
            self.stop_reason = reason
            known = REASONS.get(reason, "stop")
            events.append(Finish(0, known, sequence if isinstance(sequence, str) else None))
        return events


def _given(block: dict[str, Any]) -> Given:
    for name in ("text", "thinking", "signature"):
        _string(block, name)
    return Given(0, checked(block, "a content block"))


def _object(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = unwrap(value.get(name))
    if not isinstance(found, dict):
        raise Odd(f"'{name}' of an event is {a_type(found)}, not a dict", value if found is None else found)
    return found


def _string(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    if found is None or isinstance(found, str):
        return found or ""
    raise Odd(f"'{name}' of a block is {a_type(found)}, not a string", found)
