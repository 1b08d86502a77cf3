"""The helps for authors: pieces of texts that grow, messages without parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import BadRequest
from gateway.chat import deltas, flatten


@given(st.lists(st.text(st.characters(exclude_characters="\ufffd"))))
def test_what_grows_comes_out_in_pieces(pieces: list[str]) -> None:
    growing = ["".join(pieces[: end + 1]) for end in range(len(pieces))]
    found = list(deltas(growing))
    assert "".join(found) == "".join(pieces) and "" not in found

    async def items() -> AsyncIterator[str]:
        for text in growing:
            yield text

    async def collect() -> list[str]:
        return [piece async for piece in deltas(items())]

    assert asyncio.run(collect()) == found


def test_half_a_character_waits_for_its_other_half() -> None:
    assert list(deltas(["a", "a\ufffd", "aé", "aéb"])) == ["a", "é", "b"]
    assert list(deltas(["a\ufffd"])) == ["a", "\ufffd"]


def test_what_is_no_text_passes_and_so_does_what_a_generator_returns() -> None:
    closed = []

    def items() -> Iterator[Any]:
        try:
            yield "a"
            yield {"reasoning_content": "hm"}
            yield "ab"
            return {"usage": {}}
        finally:
            closed.append(True)

    def all_of_it() -> Iterator[Any]:
        yield (yield from deltas(items()))

    assert list(all_of_it()) == ["a", {"reasoning_content": "hm"}, "b", {"usage": {}}]
    stream = deltas(items())
    next(stream)
    stream.close()
    assert closed == [True, True]


def test_an_async_model_is_closed_with_its_pieces() -> None:
    closed = []

    async def items() -> AsyncIterator[str]:
        try:
            yield "a"
            yield "ab"
        finally:
            closed.append(True)

    async def begin() -> None:
        stream: Any = deltas(items())
        assert await anext(stream) == "a"
        await stream.aclose()

    asyncio.run(begin())
    assert closed == [True]


def test_a_text_that_does_not_grow_is_an_error_and_not_a_doubled_answer() -> None:
    with pytest.raises(ValueError, match="not cumulative"):
        list(deltas(["one", "two"]))


def test_messages_have_strings_for_contents() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    given_messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": "c", "name": "me"},
    ]
    assert flatten(given_messages) == [
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": "c", "name": "me"},
    ]
    assert given_messages[1]["content"] is None


def test_a_part_that_is_no_text_is_refused_by_its_place() -> None:
    image = {"type": "image_url", "image_url": {"url": "x"}}
    with pytest.raises(BadRequest, match="image_url") as caught:
        flatten([{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "a"}, image]}])
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "messages[1].content[1]")
