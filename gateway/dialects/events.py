"""The events that every model output is converted to once, and that every dialect encodes.

    Text(i, s) · Reasoning(i, s) · Refusal(i, s) · ToolCall(i, k, id?, name?, part) · Logprobs(i, […])
    Finish(i, reason, stop_sequence?) · Usage(…) · Head(id?, created?, fingerprint?) · Failed(error)

i is the choice, k the call within it. Text, Reasoning, Refusal and the arguments of a ToolCall are pieces, never the
whole so far. Failed ends the stream. `normalize.py` defines which values become which events.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ..errors import GatewayError, InvalidOutput
from ..telemetry.counts import whole_number
from ..wire.values import Structured
from ..wording import a_type
from . import model_json
from .output_paths import at

REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


class Event(msgspec.Struct, gc=False):
    """Base class of most events."""


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
    """A piece of a call. Only the first has id and name. Calls are numbered from 0 as they appear."""

    choice: int
    call: int
    id: str | None
    name: str | None
    arguments: str


class Logprobs(Event):
    choice: int
    content: list[Any]
    refusal: list[Any]


class Finish(Event):
    choice: int
    reason: str
    stop_sequence: str | None = None


class Usage(Event):
    """Total counts so far. None is a count that the model did not report."""

    prompt: int | None
    completion: int | None
    total: int | None = None
    cached: int = 0
    reasoning: int = 0


class Head(Event):
    """Values from the model's first dict that apply to the whole answer."""

    id: str | None
    created: int | None
    fingerprint: str | None
    extra: dict[str, Any]


class Failed(msgspec.Struct):
    error: GatewayError


ChoiceEvent = Text | Reasoning | Refusal | ToolCall | Logprobs | Finish
AnyEvent = ChoiceEvent | Usage | Head | Failed


def usage_of(value: dict[str, Any]) -> Usage | None:
    """Return token counts from OpenAI's field names or the short ones, or None if there are none."""
    prompt = _count(value, "prompt_tokens", "input_tokens")
    completion = _count(value, "completion_tokens", "output_tokens")
    if prompt is None and completion is None:
        return None
    cached = _count(value.get("prompt_tokens_details"), "cached_tokens")
    reasoning = _count(value.get("completion_tokens_details"), "reasoning_tokens")
    return Usage(prompt, completion, _count(value, "total_tokens"), cached or 0, reasoning or 0)


def _count(value: Any, *names: str) -> int | None:
    fields = unwrap(value)
    if isinstance(fields, dict):
        return next((count for name in names if (count := whole_number(fields.get(name))) is not None), None)
    return None


def estimate_tokens(size: int) -> int:
    """Estimate the tokens of a text of `size` UTF-8 bytes: a quarter, rounded up."""
    return -(-size // 4)


def fields_of(data: bytes) -> dict[str, Any]:
    """Return the data of a server-sent event as an object, or {} if it is not one.

    Raises:
        InvalidOutput: it would take too long to read.
    """
    try:
        value = model_json.read(data)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def unwrap(value: Any) -> Any:
    """Return the fields of a Pydantic instance as a dict, and anything else unchanged."""
    return value.fields if isinstance(value, Structured) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Structured):
        return value.fields
    raise NotImplementedError(f"{a_type(value)} has no place in JSON")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def encode_json(value: Any) -> bytes:
    """Return compact JSON of a text, or of a value that `checked` has accepted.

    Raises:
        InvalidOutput: a dict has keys that JSON cannot represent.
    """
    try:
        return _encode(value)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InvalidOutput(f"the model's answer cannot be written as JSON: {error}") from error


def checked(value: Any, where: str) -> Any:
    """Return the value if JSON can represent it. msgspec alone would write NaN as null.

    Raises:
        InvalidOutput: it contains NaN, infinity or an array.
    """
    todo = [value]
    while todo:
        item = unwrap(todo.pop())
        if isinstance(item, dict):
            todo += item.values()
        elif isinstance(item, list):
            todo += item
        elif isinstance(item, float):
            if not math.isfinite(item):
                found = at(item, value)
                raise InvalidOutput(f"the model put {item} into {where}{found}, which JSON has no word for")
        elif not isinstance(item, str | int | None):
            found = at(item, value)
            raise InvalidOutput(f"the model put {a_type(item)} into {where}{found}, which has no form in JSON")
    return value
