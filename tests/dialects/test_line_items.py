"""Items that are lines of events are told from pieces of a text, at a cost that grows with their length."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from gateway.dialects import line_items
from gateway.dialects.event_stream import is_complete
from gateway.dialects.line_items import MAX_DATA, MAX_LINES, LineItems
from gateway.dialects.raw import MAX_IDLE, Opening


def fed(items: Iterable[bytes]) -> bytes:
    lines = LineItems()
    return b"".join([*map(lines.feed, items), lines.end()])


def test_an_object_over_several_lines_ends_where_it_is_whole() -> None:
    lines = [b'data: {"a":', b'data: {"b": 1}', b"data: }", b'data: {"c": 2}']
    assert fed(lines) == b'data: {"a":\ndata: {"b": 1}\ndata: }\n\ndata: {"c": 2}\n\n'


def test_behind_a_large_object_that_never_ends_the_next_that_is_whole_is_an_event() -> None:
    first, large, after = b'data: {"a": 1}', b'data: {"a": "' + b"a" * MAX_DATA, b'data: {"c": 2}'
    assert fed([first, first, large, after, after]) == (first + b"\n\n") * 2 + large + b"\n" + (after + b"\n\n") * 2


@pytest.mark.parametrize("size", [10_000, 2_000_000])
@pytest.mark.parametrize("lead", [[], [b'data: {"a": 1}'] * 2])
def test_an_object_that_never_ends_is_not_read_again_with_every_line(
    size: int, lead: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    monkeypatch.setattr(line_items, "is_complete", lambda data: read.append(len(data)) or is_complete(data))
    fed([*lead, b'data: {"a": "' + b"a" * size, *[b"data: 1"] * (MAX_LINES - 2)])
    assert sum(read) <= 2 * (size + MAX_LINES * MAX_DATA)


def test_events_that_say_nothing_do_not_hold_a_stream_back_for_ever() -> None:
    opening = Opening("chat")
    idle = b'data: {"choices": []}\n\n'
    assert [opening.feed([idle]) for _ in range(MAX_IDLE)] == [None] * MAX_IDLE
    assert opening.feed([idle]) == "read"
