"""Values that a class's own `responses` may return in addition to chat's: OpenAI's own objects.

dict with `object: response`    a whole response; its items are passed on, missing fields are filled in dict of OpenAI's
stream         `response.created`, `response.output_text.delta` and others: the same in pieces Pydantic instance of
these      as a dict raw SSE                         passed on if a stream was requested, otherwise its data is read as
above
"""

from __future__ import annotations

from typing import Any

import msgspec

from ...wire.values import Structured
from ...wording import a_type
from ..events import ChoiceEvent, Failed, Logprobs, Reasoning, Refusal, Text, ToolCall, unwrap
from ..normalize import Normalizer
from ..output_paths import Odd
from ..relayed_errors import error_of

Events = list[Any]  # events of events.py, and the two below
_PIECES = {
    "response.output_text.delta": Text,
    "response.reasoning_text.delta": Reasoning,
    "response.reasoning.delta": Reasoning,  # the name in Open Responses
    "response.reasoning_summary_text.delta": Reasoning,
    "response.refusal.delta": Refusal,
}
_BEGUN = ("response.created", "response.in_progress", "response.queued")
_ENDED = ("response.completed", "response.incomplete")
_TOLD = ("message", "function_call", "reasoning")  # items that arrive in pieces
_OPEN = frozenset("status output usage error incomplete_details completed_at".split())  # known only at the end


class Made(msgspec.Struct):
    """The fields of a Model's response object. `items` is None if they arrive as events."""

    fields: dict[str, Any]
    items: list[Any] | None = None


class Given(msgspec.Struct):
    """An output item that is sent as the Model made it."""

    item: dict[str, Any]


class ResponseValues(Normalizer):
    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[int | None, int] = {}  # numbers of tool calls by output_index
        self._told = False  # a part of an item has arrived

    def feed(self, value: Any) -> Events:
        if isinstance(value, Structured) and _is_known(value.fields):
            return self._fields(value.fields)
        return super().feed(value)

    def _dict(self, value: dict[str, Any]) -> Events:
        if not _is_known(value):
            return super()._dict(value)
        if value.get("object") == "response":
            return [_whole(value)]
        kind = value["type"]
        if kind in _PIECES:
            return self._piece(_PIECES[kind], value)
        if kind == "response.output_item.added":
            return self._added(value)
        if kind == "response.function_call_arguments.delta":
            return self._arguments(value)
        if kind == "response.output_item.done":
            item = _item(value)
            return [] if item["type"] in _TOLD else [Given(item)]
        if kind in _BEGUN:
            return [Made({name: field for name, field in _object(value).items() if name not in _OPEN})]
        if kind in _ENDED:
            response = _object(value)
            return [Made({**response, "output": None}) if self._told else _whole(response)]
        if kind in ("response.failed", "error"):
            failed = _object(value) if kind == "response.failed" else {"error": value}
            return [Failed(error_of({"error": failed.get("error") or "the model reported an error"}))]
        return []  # the other events repeat earlier ones

    def _is_name(self, name: str) -> bool:
        return name.startswith("response.")

    def _closes(self, value: dict[str, Any]) -> bool:
        return value.get("type") in _ENDED or value.get("object") == "response"

    def _piece(self, kind: Any, value: dict[str, Any]) -> Events:
        self._told = True
        text, logprobs = value.get("delta"), value.get("logprobs")
        if not isinstance(text, str):
            raise Odd(f"the model gave an event {value['type']} without a delta", value if text is None else text)
        beside = [Logprobs(0, logprobs, [])] if kind is Text and isinstance(logprobs, list) and logprobs else []
        return [kind(0, text), *beside]

    def _added(self, value: dict[str, Any]) -> Events:
        item = _item(value)
        self._told = True
        if item["type"] != "function_call":
            return []
        name, call = item.get("name"), item.get("call_id")
        if not isinstance(name, str) or not isinstance(call, str | None):
            raise Odd("the model gave a function_call without a name", item)
        number = self._numbers[_index(value)] = len(self._numbers)
        return [ToolCall(0, number, call, name, "")]

    def _arguments(self, value: dict[str, Any]) -> Events:
        number, text = self._numbers.get(_index(value)), value.get("delta")
        if number is None or not isinstance(text, str):
            raise Odd("the model gave arguments of a tool call that it never started", value)
        return [ToolCall(0, number, None, None, text)]


def said(item: dict[str, Any], number: int) -> list[ChoiceEvent]:
    """Return the content of a given item as events, for counting only."""
    if item["type"] == "function_call":
        return [ToolCall(0, number, item["call_id"], str(item.get("name")), item["arguments"])]
    parts = item.get("content") if item["type"] in ("message", "reasoning") else None
    events: list[ChoiceEvent] = []
    for part in parts or []:
        if part.get("type") == "output_text":
            events.append(Text(0, part["text"]))
        elif part.get("type") == "reasoning_text":
            events.append(Reasoning(0, part["text"]))
        elif part.get("type") == "refusal":
            events.append(Refusal(0, part["refusal"]))
    return events


def _is_known(value: dict[str, Any]) -> bool:
    kind = value.get("type")
    is_event = isinstance(kind, str) and (kind.startswith("response.") or kind == "error")
    return is_event or value.get("object") == "response"


def _whole(response: dict[str, Any]) -> Made:
    output = response.get("output")
    if not isinstance(output, list | None):
        raise Odd(f"the output of the model's response is {a_type(output)}, not a list", output)
    return Made({**response, "output": None}, [_checked(unwrap(item)) for item in output or []])


def _object(value: dict[str, Any]) -> dict[str, Any]:
    response = unwrap(value.get("response"))
    if not isinstance(response, dict):
        raise Odd(
            f"the model gave an event {value['type']} without a response", value if response is None else response
        )
    return response


def _item(value: dict[str, Any]) -> dict[str, Any]:
    return _checked(unwrap(value.get("item")))


def _index(value: dict[str, Any]) -> int | None:
    index = value.get("output_index")
    return index if isinstance(index, int) else None


def _checked(item: Any) -> dict[str, Any]:
    if not isinstance(item, dict) or not isinstance(item.get("type"), str):
        raise Odd("the model gave an output item that is not a dict with a type", item)
    return item
