"""What a class's own `responses` may return beside what chat knows: OpenAI's own objects.

dict with `object: response`    a whole response; its items pass, what it lacks is filled in
dict of OpenAI's stream         `response.created`, `response.output_text.delta` and the rest: the same, piece by piece
Pydantic instance of these      as a dict
raw SSE                         passed on where a stream was asked for, otherwise its data read as above
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..wire import Structured
from ..wording import a_type
from .events import ChoiceEvent, Failed, Logprobs, Reasoning, Refusal, Text, ToolCall, unwrap
from .located import Odd
from .outputs import Normalizer
from .reported import error_of

Events = list[Any]  # of the vocabulary, and the two below
_PIECES = {
    "response.output_text.delta": Text,
    "response.reasoning_text.delta": Reasoning,
    "response.reasoning.delta": Reasoning,  # as Open Responses has it
    "response.reasoning_summary_text.delta": Reasoning,
    "response.refusal.delta": Refusal,
}
_BEGUN = ("response.created", "response.in_progress", "response.queued")
_ENDED = ("response.completed", "response.incomplete")
_TOLD = ("message", "function_call", "reasoning")  # items that come in pieces
_OPEN = frozenset("status output usage error incomplete_details completed_at".split())  # only known at the end


class Made(msgspec.Struct):
    """What a response object of the Model says. `items` is None when they come as events."""

    fields: dict[str, Any]
    items: list[Any] | None = None


class Given(msgspec.Struct):
    """An output item that goes out as the Model made it."""

    item: dict[str, Any]


class ResponseValues(Normalizer):
    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[int | None, int] = {}  # of tool calls, by their output_index
        self._told = False  # something of an item has come

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
        return []  # what is done was told already

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
            raise Odd("the model gave arguments of a tool call that it never began", value)
        return [ToolCall(0, number, None, None, text)]


def said(item: dict[str, Any], number: int) -> list[ChoiceEvent]:
    """What a given item says, as events: for counting only."""
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
        raise Odd("the model gave an output item that is no dict with a type", item)
    return item
