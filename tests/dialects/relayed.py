"""Another server's event stream in every form that the WHATWG's standard allows, cut into any pieces."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

TEXT = "one\u2028two \U0001f600 \u00e9"
CHAT: list[Any] = [
    {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    for choices in (
        [{"index": 0, "delta": {"role": "assistant", "content": "one\u2028"}, "finish_reason": None}],
        [{"index": 0, "delta": {"content": "two \U0001f600 \u00e9"}, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "length"}],
    )
]
COMPLETIONS: list[Any] = [
    {"id": "c", "object": "text_completion", "created": 1, "model": "m", "choices": choices}
    for choices in (
        [{"index": 0, "text": "one\u2028", "finish_reason": None}],
        [{"index": 0, "text": "two \U0001f600 \u00e9", "finish_reason": "length"}],
    )
]
MESSAGES: list[Any] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 5, "output_tokens": 0},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "max_tokens", "stop_sequence": None}, "usage": {}},
    {"type": "message_stop"},
]
_RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "model": "m",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "error": None,
}
_PART = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}
_ITEM = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [_PART]}
_AT = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
RESPONSES: list[Any] = [
    {**event, "sequence_number": number}
    for number, event in enumerate(
        (
            {"type": "response.created", "response": {**_RESPONSE, "status": "in_progress"}},
            {"type": "response.output_item.added", "output_index": 0, "item": {**_ITEM, "content": []}},
            {"type": "response.content_part.added", **_AT, "part": {**_PART, "text": ""}},
            {"type": "response.output_text.delta", **_AT, "delta": TEXT, "logprobs": []},
            {"type": "response.output_text.done", **_AT, "text": TEXT, "logprobs": []},
            {"type": "response.output_item.done", "output_index": 0, "item": _ITEM},
            {"type": "response.completed", "response": {**_RESPONSE, "status": "completed", "output": [_ITEM]}},
        )
    )
]
STREAMS: dict[str, list[Any]] = {
    "chat": [*CHAT, "[DONE]"],
    "completions": [*COMPLETIONS, "[DONE]"],
    "responses": RESPONSES,
    "messages": MESSAGES,
}


def framed(events: list[Any], end: str = "\n") -> str:
    """Events as most servers write them."""
    return "".join(_frame(event, end) for event in events)


def _frame(event: Any, end: str) -> str:
    name = f"event: {event['type']}{end}" if isinstance(event, dict) and "type" in event else ""
    return f"{name}data: {_text(event)}{end}{end}"


def _text(event: Any, indent: int | None = None) -> str:
    return event if isinstance(event, str) else json.dumps(event, ensure_ascii=False, indent=indent)


_words = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=5)


@st.composite
def written(draw: st.DrawFn, events: list[Any]) -> bytes:
    """These events, and nothing that means anything besides."""
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    out = [draw(st.sampled_from(["", "\ufeff"]))]
    for event in events:
        out += draw(st.lists(_between(), max_size=2))
        space = draw(st.sampled_from([" ", ""]))
        lines = [f"data:{space}{line}" for line in _text(event, draw(st.sampled_from([None, 1]))).split("\n")]
        if isinstance(event, dict) and "type" in event:
            lines.append(f"event:{space}{event['type']}")
        if event is not events[0]:  # before the first data only what cannot be text
            lines += draw(st.lists(_words.map(lambda word: f"x{word}"), max_size=1))
        lines += draw(st.lists(_beside(), max_size=2))
        kept = [line for line in lines if line.startswith("data:")]
        others = draw(st.permutations([line for line in lines if not line.startswith("data:")]))
        at = draw(st.integers(0, len(kept)))
        out.append("\n".join([*kept[:at], *others, *kept[at:], "", ""]))
    out += draw(st.lists(_between(), max_size=2))
    return "".join(out).replace("\n", end).encode()


def _beside() -> st.SearchStrategy[str]:
    """A line that may stand in any event."""
    return st.one_of(
        _words.map(lambda word: f":{word}"),
        _words.map(lambda word: f"id: {word}"),
        st.sampled_from(["id", "retry: 1000", "retry:x", "retry"]),
    )


def _between() -> st.SearchStrategy[str]:
    """Lines that stand between two events."""
    silent = st.sampled_from(["event: ping\ndata: {}", "event: ping", "event: none", "data:", "event: ping\ndata"])
    return st.one_of(st.just(""), _beside(), silent).map(lambda lines: f"{lines}\n" + ("\n" if lines else ""))


@st.composite
def pieces(draw: st.DrawFn, stream: bytes) -> list[list[Any]]:
    """A stream in any pieces, as str where they can be, each alone or all in one batch as they come from a worker."""
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    if draw(st.booleans()):
        cuts = list(range(1, len(stream)))  # byte by byte
    items: list[Any] = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    if draw(st.booleans()):
        items = [_as_text(item) for item in items]
    return [items] if draw(st.booleans()) else [[item] for item in items]


def _as_text(piece: bytes) -> str | bytes:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return piece
