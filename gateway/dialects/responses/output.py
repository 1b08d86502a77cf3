"""The output items of an answer on /v1/responses, and their events, one item at a time.

    message, reasoning   output_item.added, content_part.added, ….delta*, ….done, content_part.done, output_item.done
    function_call        output_item.added, function_call_arguments.delta*, ….done, output_item.done
    custom_tool_call     output_item.added, custom_tool_call_input.delta, ….done, output_item.done

A model may write several tool calls at once, in pieces. Output for another item is held back until the current call is
done: its arguments are a complete object, or the answer has ended. Text after a call is a new message. The input of a
custom tool is known only when its call is done, because the model writes it inside JSON.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import Any, Literal

from ...errors import InvalidOutput
from ...wording import a_type
from ..events import ChoiceEvent, Logprobs, Reasoning, Refusal, Text, ToolCall, encode_json, unwrap
from ..json_pieces import ObjectPieces
from .items import new_id
from .tools import NONE, Tools, input_of

Kind = Literal["output_text", "refusal", "reasoning_text", "function_call_arguments", "custom_tool_call_input"]
_CALLS = ("function_call_arguments", "custom_tool_call_input")
_ITEMS = {"output_text": "message", "refusal": "message", "reasoning_text": "reasoning"}
_TOLD = {  # fields in the event that ends an item or a part
    "output_text": ("text", "logprobs"),
    "refusal": ("refusal",),
    "reasoning_text": ("text",),
    "function_call_arguments": ("arguments", "name"),
    "custom_tool_call_input": ("input",),
}
Piece = tuple[str, list[Any]]  # text and the logprobs of its tokens


def part_of(kind: str, text: str, logprobs: list[Any]) -> dict[str, Any]:
    if kind == "output_text":
        return {"type": kind, "text": text, "annotations": [], "logprobs": logprobs}
    return {"type": kind, "refusal" if kind == "refusal" else "text": text}


class _Item:
    """One item in progress. `value` is the item without the content in `pieces`."""

    __slots__ = ("is_done", "is_open", "kind", "logprobs", "pieces", "unsent", "value")

    def __init__(self, kind: Kind, value: dict[str, Any]) -> None:
        self.kind, self.value = kind, value
        self.pieces = ObjectPieces()
        self.logprobs: list[Any] = []
        self.unsent: list[Piece] = []
        self.is_open = self.is_done = False

    def write(self, text: str, logprobs: list[Any]) -> None:
        self.pieces.add(text)
        self.logprobs += logprobs
        self.unsent.append((text, logprobs))

    @property
    def may_end(self) -> bool:
        """Whether the item can end, now that another item has begun."""
        return self.kind not in _CALLS or self.pieces.whole is not None

    def finished(self, status: str) -> dict[str, Any]:
        """Return the final item."""
        text = self.pieces.text
        if self.kind == "function_call_arguments":
            return {**self.value, "arguments": text, "status": status}
        if self.kind == "custom_tool_call_input":
            return {**self.value, "input": input_of(text), "status": status}
        value = {**self.value, "content": [part_of(self.kind, text, self.logprobs)]}
        return value if self.kind == "reasoning_text" else {**value, "status": status}


class Output:
    """The output of one answer. `items` are done. Without `stream` no events are made. `tools` are the request's."""

    def __init__(self, stream: bool, tools: Tools = NONE) -> None:
        self.items: list[dict[str, Any]] = []
        self._tools = tools.offered
        self._stream, self._sequence = stream, 2  # response.created and response.in_progress have 0 and 1
        self._under_way: deque[_Item] = deque()  # all but the first are held back
        self._calls: dict[int, _Item] = {}
        self._call_ids: set[str] = set()
        self._logprobs: list[Any] = []  # logprobs of text that follows

    @property
    def is_empty(self) -> bool:
        return not self.items and not self._under_way

    def event(self, name: str, /, **fields: Any) -> bytes:
        """Return an event with the next sequence number."""
        if not self._stream:
            return b""
        self._sequence += 1
        return framed(name, self._sequence - 1, fields)

    # ── incoming events ──────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, event: ChoiceEvent) -> bytes:
        """Return the events that can be sent now.

        Raises:
            InvalidOutput: it adds to something that is complete.
        """
        if isinstance(event, Text):
            logprobs, self._logprobs = self._logprobs, []
            return self._write("output_text", event.text, logprobs)
        if isinstance(event, Reasoning):
            return self._write("reasoning_text", event.text, [])
        if isinstance(event, Refusal):
            return self._write("refusal", event.text, [])
        if isinstance(event, ToolCall):
            return self._call(event)
        if isinstance(event, Logprobs):
            self._logprobs += [_logprob(entry) for entry in event.content]
        return b""

    def end(self, status: str = "completed") -> bytes:
        """Return the remaining events after the last input. The last item gets the status."""
        out = [self._advance()] if self._under_way else []
        while self._under_way:
            last = self._under_way[-1] is self._under_way[0]
            if last and self._under_way[0].kind == "output_text":
                self._under_way[0].logprobs += self._logprobs
            out.append(self._close(status if last else "completed"))
            if self._under_way:
                out.append(self._advance())
        return b"".join(out)

    def add(self, item: dict[str, Any]) -> bytes:
        """Add a complete item from a response that the model made itself. No other item may be in progress."""
        kind, index = str(item.get("type")), len(self.items)
        value = {**item, "id": item.get("id") or new_id(kind)}
        if kind in ("message", "function_call"):
            value["status"] = item.get("status") or "completed"
        begun = {**value, "status": "in_progress"} if "status" in value else value
        at = {"item_id": value["id"], "output_index": index}
        if kind == "function_call":
            text = value["arguments"] = str(item.get("arguments") or "{}")
            value["call_id"] = item.get("call_id") or f"call_{secrets.token_hex(16)}"
            added = {**begun, "call_id": value["call_id"], "arguments": ""}
            out = [self.event("response.output_item.added", output_index=index, item=added)]
            out += [
                self._delta("function_call_arguments", at, text, []),
                self._done("function_call_arguments", at, value),
            ]
        elif kind in ("message", "reasoning"):
            if kind == "reasoning":
                value["summary"] = item.get("summary") or []
            value["content"] = parts = [_filled(unwrap(part)) for part in _parts(item)]
            out = [self.event("response.output_item.added", output_index=index, item={**begun, "content": []})]
            out += [self._part(part, {**at, "content_index": number}) for number, part in enumerate(parts)]
        else:
            out = [self.event("response.output_item.added", output_index=index, item=begun)]
        out.append(self.event("response.output_item.done", output_index=index, item=value))
        self.items.append(value)
        return b"".join(out)

    # ── items in progress ────────────────────────────────────────────────────────────────────────────────────────────

    def _write(self, kind: Kind, text: str, logprobs: list[Any]) -> bytes:
        if not self._under_way or self._under_way[-1].kind != kind:
            value: dict[str, Any] = {"type": _ITEMS[kind], "id": new_id(_ITEMS[kind])}
            if kind == "reasoning_text":
                value["summary"] = []
            else:
                value["role"] = "assistant"
            self._under_way.append(_Item(kind, value))
        self._under_way[-1].write(text, logprobs)
        return self._advance()

    def _call(self, event: ToolCall) -> bytes:
        if event.name is not None:
            tool = self._tools.get(event.name)
            kind = "custom_tool_call" if tool is not None and tool.is_custom else "function_call"
            value = {"type": kind, "id": new_id(kind), "name": event.name if tool is None else tool.name}
            if tool is not None and tool.namespace is not None:
                value["namespace"] = tool.namespace
            value["call_id"] = self._call_id(event.id)
            item = _Item("custom_tool_call_input" if kind == "custom_tool_call" else "function_call_arguments", value)
            self._calls[event.call] = item
            self._under_way.append(item)
        item = self._calls[event.call]
        if item.is_done:
            if event.arguments.strip():
                raise InvalidOutput("the model added to the arguments of a tool call that were a complete object")
            return b""
        if event.arguments:
            item.write(event.arguments, [])
        return self._advance()

    def _call_id(self, given: str | None) -> str:
        """Return a unique id: clients identify calls by it."""
        identity = given if given and given not in self._call_ids else f"call_{secrets.token_hex(16)}"
        self._call_ids.add(identity)
        return identity

    def _advance(self) -> bytes:
        """Return new events of the first item, and of the next ones once it can be closed."""
        out: list[bytes] = []
        while True:
            item = self._under_way[0]
            if not item.is_open:
                item.is_open = True
                out.append(self._begin(item))
            at = self._at(item)
            if item.kind != "custom_tool_call_input":
                out += [self._delta(item.kind, at, text, logprobs) for text, logprobs in item.unsent if text]
            item.unsent.clear()
            if len(self._under_way) == 1 or not item.may_end:
                return b"".join(out)
            out.append(self._close("completed"))

    def _at(self, item: _Item) -> dict[str, Any]:
        at = {"item_id": item.value["id"], "output_index": len(self.items)}
        return at if item.kind in _CALLS else {**at, "content_index": 0}

    def _begin(self, item: _Item) -> bytes:
        index, value = len(self.items), item.value
        if item.kind in _CALLS:
            field = "arguments" if item.kind == "function_call_arguments" else "input"
            begun = {**value, field: "", "status": "in_progress"}
            return self.event("response.output_item.added", output_index=index, item=begun)
        begun = {**value, "content": []}
        if item.kind != "reasoning_text":
            begun["status"] = "in_progress"
        part = part_of(item.kind, "", [])
        return self.event("response.output_item.added", output_index=index, item=begun) + self.event(
            "response.content_part.added", **self._at(item), part=part
        )

    def _close(self, status: str) -> bytes:
        item = self._under_way.popleft()
        item.is_done = True
        value, at, index = item.finished(status), self._at(item), len(self.items)
        if item.kind == "custom_tool_call_input":
            told = self._delta(item.kind, at, value["input"], []) if value["input"] else b""
            out = told + self._done(item.kind, at, value)
        elif item.kind == "function_call_arguments":
            out = self._done(item.kind, at, value)
        else:
            out = self._done(item.kind, at, value["content"][0])
            out += self.event("response.content_part.done", **at, part=value["content"][0])
        self.items.append(value)
        return out + self.event("response.output_item.done", output_index=index, item=value)

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _part(self, part: Any, at: dict[str, Any]) -> bytes:
        """Return the events of a complete part."""
        kind = _kind(part)
        if kind not in _ITEMS:
            begun = self.event("response.content_part.added", **at, part=part)
            return begun + self.event("response.content_part.done", **at, part=part)
        name = "refusal" if kind == "refusal" else "text"
        out = self.event("response.content_part.added", **at, part={**part, name: ""})
        if part[name]:
            out += self._delta(kind, at, part[name], part.get("logprobs") or [])
        return out + self._done(kind, at, part) + self.event("response.content_part.done", **at, part=part)

    def _delta(self, kind: str, at: dict[str, Any], text: str, logprobs: list[Any]) -> bytes:
        more = {"logprobs": logprobs} if kind == "output_text" else {}
        return self.event(f"response.{kind}.delta", **at, delta=text, **more)

    def _done(self, kind: str, at: dict[str, Any], value: dict[str, Any]) -> bytes:
        fields = {name: value.get(name) for name in _TOLD[kind]}
        return self.event(f"response.{kind}.done", **at, **fields)


def framed(name: str, number: int, fields: dict[str, Any]) -> bytes:
    """Return an event in SSE format. Its name is also in the data."""
    data = encode_json({"type": name, "sequence_number": number, **fields})
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _parts(item: dict[str, Any]) -> list[Any]:
    parts = item.get("content") or []
    if not isinstance(parts, list):
        raise InvalidOutput(f"the model returned {a_type(parts)} as the content of an item, not a list")
    return parts


def _kind(part: dict[str, Any]) -> str:
    kind = part.get("type")
    return kind if isinstance(kind, str) else ""


def _filled(part: Any) -> dict[str, Any]:
    """Return a part of a complete item with the fields that clients need."""
    if not isinstance(part, dict):
        raise InvalidOutput(f"the model returned {a_type(part)} as a part of an item, not a dict")
    kind = _kind(part)
    if kind not in _ITEMS:
        return part
    name = "refusal" if kind == "refusal" else "text"
    if not isinstance(part.get(name), str):
        raise InvalidOutput(f"the model returned a part of type {kind} without its {name}")
    given = {key: value for key, value in part.items() if value is not None}
    return {**part_of(kind, part[name], []), **given}


def _logprob(value: Any) -> dict[str, Any]:
    """Return one token with all fields that clients of this route require, including bytes and alternatives."""
    alternatives = unwrap(value).get("top_logprobs") if isinstance(unwrap(value), dict) else None
    if not isinstance(alternatives, list | None):
        raise InvalidOutput("the model returned logprobs whose top_logprobs are not a list")
    return {**_token(value), "top_logprobs": [_token(alternative) for alternative in alternatives or []]}


def _token(value: Any) -> dict[str, Any]:
    entry = unwrap(value)
    token = entry.get("token") if isinstance(entry, dict) else None
    if not isinstance(token, str) or not isinstance(entry.get("logprob"), int | float):
        raise InvalidOutput("the model returned logprobs whose entries lack a token or its logprob")
    size = entry.get("bytes")
    return {"token": token, "logprob": entry["logprob"], "bytes": list(token.encode()) if size is None else size}
