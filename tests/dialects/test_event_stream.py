"""Server-sent events are read as the standard says, whatever pieces they come in; and text is not taken for them."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import event_stream
from gateway.dialects.event_stream import EventStream, Lead, Sent, holds_block
from gateway.errors import InvalidOutput


def starts_events(*pieces: bytes) -> bool | None:
    lead = Lead()
    return next((found for piece in pieces if (found := lead.feed(piece)) is not None), None)


def by_the_standard(stream: bytes) -> list[tuple[str, str]]:
    """Name and data of each event, by the steps of HTML 9.2.6, written down once more and read at once."""
    text = stream.decode("utf-8-sig", "replace")
    lines = re.split("\r\n|\r|\n", text)[:-1]  # what has no end is no line
    found, name, data = [], "", ""
    for line in lines:
        field, colon, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if line == "":
            if data != "":
                found.append((name, data[:-1]))
            name = data = ""
        elif colon and not field:
            continue
        elif field == "event":
            name = value
        elif field == "data":
            data += value + "\n"
    return found


def read(*pieces: bytes) -> list[tuple[str, str]]:
    stream = EventStream()
    sent = [event for piece in pieces for event in stream.feed(piece)]
    return [(event.name, event.data.decode("utf-8", "replace")) for event in sent if event.data is not None]


_bits = ["data", "event", "id", "retry", ":", " ", "\n", "\r", "\r\n", "\n\n", "\ufeff", "x", "{}", "é", "\u2028", "\0"]


@given(st.lists(st.sampled_from(_bits), max_size=40).map("".join), st.lists(st.integers(0, 60), max_size=6))
def test_any_bytes_in_any_pieces_are_the_events_of_the_standard(text: str, cuts: list[int]) -> None:
    stream = text.encode()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    expected = by_the_standard(stream)
    assert read(stream) == expected
    assert read(*(stream[start:end] for start, end in pairwise(edges))) == expected
    assert read(*(stream[at : at + 1] for at in range(len(stream)))) == expected


def test_an_event_keeps_the_lines_of_its_name_and_data_and_a_comment_nothing() -> None:
    stream = EventStream()
    given = b"\xef\xbb\xbfid: 1\r\nevent: a\r\n: c\r\nretry: 5\r\nx: y\r\ndata: {\r\ndata:}\r\n\r\n: alone\r\n\r\n"
    assert stream.feed(given) == [Sent("a", b"{\n}", [b"event: a", b"data: {", b"data:}"]), Sent("", None, [])]
    assert stream.feed(b"id: 2\n\nevent: none\n\n\n") == [] and stream.is_between


def test_what_has_no_blank_line_behind_it_is_told_at_the_end() -> None:
    stream = EventStream()
    assert stream.feed(b"event: a\ndata: 1") == [] and not stream.is_between
    assert stream.end() == Sent("a", b"1", [b"event: a", b"data: 1"])
    assert EventStream().end() is None


def test_an_event_without_an_end_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "MAX_EVENT", 100)
    stream = EventStream()
    for _ in range(20):
        stream.feed(b"data: " + b"x" * 50 + b"\n\n")
    stream.feed(b"data: " + b"x" * 50)
    with pytest.raises(InvalidOutput, match="100 bytes"):
        stream.feed(b"x" * 50)


@pytest.mark.parametrize(
    "text",
    [
        "data:",
        "data: x",
        "\ufeffdata: x",
        "\n\r\n\rdata:",
        ": ping\n\ndata:",
        ":\rdata:",
        "event: a\ndata:",
        "id: 1\nretry: 5\nevent\ndata\ndata:",
        "\ufeff: OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\nid: 7\r\ndata: {",
    ],
)
def test_events_are_known_as_soon_as_their_first_data_comes(text: str) -> None:
    stream = text.encode()
    assert [starts_events(stream[:size]) for size in range(len(stream))] == [
        None if b"data:" not in stream[:size] else True for size in range(len(stream))
    ]
    assert starts_events(stream) is True


@pytest.mark.parametrize(
    "text",
    [
        "Hello",
        "date",
        "dataset",
        " data: x",
        "event: party\non: Friday",
        ":) hi\nthere",
        "a\ndata: x",
        "id: 5\nname: x",
        "é",
    ],
)
def test_text_is_known_by_its_first_line_that_is_none_of_an_event(text: str) -> None:
    assert starts_events(text.encode()) is False


def test_a_first_line_that_goes_on_for_ever_is_text() -> None:
    assert starts_events(b":" + b"x" * 1000) is None
    assert starts_events(b":" + b"x" * event_stream.MAX_LEAD) is False


LEADS = st.lists(st.sampled_from([*":aei\n\r", "data", "data:", "event", "id: 1", "\ufeff", "é"]), max_size=12)


@given(LEADS.map("".join), st.lists(st.integers(0, 40)))
def test_a_beginning_is_judged_alike_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    data = text.encode()
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places)]
    whole = next((found for size in range(len(data)) if (found := starts_events(data[: size + 1])) is not None), None)
    assert starts_events(*pieces) == whole


@pytest.mark.parametrize("piece", [b"\n", b":", b"id:\n"])
def test_a_beginning_in_very_many_pieces_is_read_once(piece: bytes) -> None:
    began = time.process_time()
    assert starts_events(*[piece] * (event_stream.MAX_LEAD // len(piece))) is None
    assert time.process_time() - began < 2  # 0.1 s; reading it again for each piece takes ten


def test_comments_alone_are_no_text() -> None:
    assert holds_block(b": ping\n\n") and holds_block(b"\xef\xbb\xbf\r\n:a\r\n\r\n: hal")
    assert not any(map(holds_block, (b"\n\n\n", b"\xef\xbb\xbf\n\n", b":)", b":)\n", b"Hello\n\n")))
