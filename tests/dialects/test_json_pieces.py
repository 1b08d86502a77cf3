"""Objects that come in pieces, and answers in very many of them: each piece is looked at once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.dialects.json_pieces import ObjectPieces, decoded
from gateway.dialects.tool_calls import ToolCalls

from . import anthropic_sdk, responses_sdk, sdk

MANY = 50_000
Piece = dict[str, Any]
objects = st.dictionaries(st.text(max_size=3), st.recursive(st.text() | st.integers(), st.lists, max_leaves=4))
texts = st.one_of(objects.map(json.dumps), st.text('{}[]"\\ 1:,\n'), objects.map(lambda value: json.dumps(value) * 2))


@given(st.tuples(st.sampled_from(["", " ", "x"]), texts, st.sampled_from(["", " \n", "}", "{}"])), st.data())
@example(("", '{"\\\\": "\\""}', ""), None)
def test_pieces_are_whole_exactly_when_their_text_is_one_object(parts: tuple[str, str, str], data: Any) -> None:
    text, pieces, at = "".join(parts), ObjectPieces(), 0
    while at < len(text):
        size = 1 if data is None else data.draw(st.integers(1, 4))
        pieces.add(text[at : at + size])
        at += size
        if data is None or data.draw(st.booleans()):
            assert pieces.whole == decoded(text[:at])
    assert (pieces.whole, pieces.text) == (decoded(text), text)


def test_an_object_that_goes_on_is_not_read_again_each_time_that_somebody_asks() -> None:
    """By the square of the length, it would take minutes."""
    pieces, before = ObjectPieces('{"a":["' + "x" * 1_000_000 + '"'), time.process_time()
    for _ in range(20_000):
        pieces.add(",{}")
        assert pieces.whole is None
    pieces.add("]}")
    assert pieces.whole is not None
    assert time.process_time() - before < 5


def call(arguments: str, number: int = 0, name: str | None = None) -> Piece:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {"tool_calls": [{"index": number, **({"id": f"call_{number}"} if name else {}), "function": function}]}


def delta(**fields: Any) -> Piece:
    return {"type": "content_block_delta", "index": 0, "delta": fields}


def block(**fields: Any) -> list[Piece]:
    return [
        {"type": "message_start", "message": {"type": "message", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": fields},
    ]


LONG = "x" * 400
ONE_CALL = [call('{"a":"', name="f"), *[call(LONG)] * MANY, call('"}')]
INPUT = [delta(type="input_json_delta", partial_json=LONG)] * MANY
HELD = {
    "input": [
        *block(type="server_tool_use", id="s", name="web_search", input={}),
        delta(type="input_json_delta", partial_json='{"a":"'),
        *INPUT,
        delta(type="input_json_delta", partial_json='"}'),
    ],
    "text": [
        *block(type="text", text="", citations=[]),
        *[delta(type="text_delta", text=LONG)] * MANY,
    ],
    "citations": [
        *block(type="text", text="", citations=[]),
        *[delta(type="citations_delta", citation={})] * (3 * MANY),
    ],
}
BESIDE = [call('{"a":["' + "x" * 1_000_000 + '",{}', name="f"), *["y", call(",{}")] * 5_000, call("]}")]


def by_messages(method: str) -> Callable[[list[Any]], bytes]:
    return lambda items: anthropic_sdk.encode_whole([items], method)


ANSWERS: dict[str, tuple[list[Any], Callable[[list[Any]], bytes]]] = {
    "arguments of a call, in chat": (ONE_CALL, lambda items: sdk.encode_whole([(0, items)])),
    **{f"a block's {name}": (items, by_messages("messages")) for name, items in HELD.items()},
    "a call beside text, in messages": (BESIDE, by_messages("chat_completions")),
    "a call beside text, in responses": (BESIDE, lambda items: json.dumps(responses_sdk.whole_of(items)).encode()),
}


@pytest.mark.parametrize(("items", "encode"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_in_very_many_pieces_takes_a_time_that_grows_with_their_number(
    items: list[Any], encode: Callable[[list[Any]], bytes]
) -> None:
    """By the square of it, each would take a minute."""
    before = time.process_time()
    assert encode(items)
    assert time.process_time() - before < 15


def test_the_pieces_of_very_many_calls_do_not_ask_all_of_them() -> None:
    def pieces() -> Iterable[Piece]:
        for number in range(20_000):
            yield {"index": number, "id": f"c{number}", "function": {"name": "f", "arguments": "{"}}
            yield {"index": number, "function": {"arguments": "}"}}

    calls, before = ToolCalls(0), time.process_time()
    numbers = [found.call for piece in pieces() if (found := calls.read(piece)) is not None]
    assert numbers == [number for number in range(20_000) for _ in range(2)]
    assert time.process_time() - before < 5
