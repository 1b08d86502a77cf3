"""What a worker prints becomes lines: whole however it was cut, short, without control characters and secrets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import PATIENT
from hypothesis import given
from hypothesis import strategies as st

from gateway.runners.log import MARK, MAX_LINE, TAIL, LineReader


def lines(*chunks: bytes, secrets: tuple[str, ...] = (), last: bool = True) -> list[str]:
    found: list[str] = []
    reader = LineReader(found.append, secrets)
    for chunk in chunks:
        reader.feed(chunk)
    if last:
        reader.feed(b"", last=True)
    return found


def test_lines_are_whole_however_they_were_cut() -> None:
    assert lines(b"on", b"e\ntw", b"o\n\nth\xc3", b"\xa4ree") == ["one", "two", "thäree"]


@PATIENT
@given(st.lists(st.text(alphabet="abä\n", max_size=20), max_size=10))
def test_any_cut_gives_the_same_lines(parts: list[str]) -> None:
    whole = "".join(parts).encode()
    assert lines(*(bytes((byte,)) for byte in whole)) == lines(whole)


def test_a_line_without_its_end_waits_for_it() -> None:
    assert lines(b"one\ntw", last=False) == ["one"]


def test_the_states_of_a_progress_bar_are_lines() -> None:
    assert lines(b"10 %\r20 %\r\n30 %\r", b"\ndone") == ["10 %", "20 %", "30 %", "done"]


def test_control_characters_are_shown_and_colours_removed() -> None:
    (line,) = lines(b"\x1b[31mred\x1b[0m\ttab\x00\x07\x1b]0;title\xe2\x80\xa8")
    assert line == "red\ttab\\x00\\x07\\x1b]0;title\\x2028"


def test_a_forged_line_cannot_begin_a_line() -> None:
    assert all("\n" not in line and "\r" not in line for line in lines(b"a\x0b\x0c\x85b\n"))


def test_long_lines_are_cut_once_and_say_so() -> None:
    (line, after) = lines(b"x" * 10_000_000 + b"\nafter\n")
    assert line == "x" * MAX_LINE + MARK
    assert after == "after"
    found = lines(*[b"y" * 1000] * 5000, b"\nafter")
    assert [len(line) for line in found] == [MAX_LINE + len(MARK), 5]


def test_a_line_that_never_ends_takes_no_memory() -> None:
    reader = LineReader(lambda line: None)
    for _ in range(1000):
        reader.feed(b"z" * 65536)
    assert len(reader._rest) <= 2 * MAX_LINE


def test_secrets_are_hidden_whole_and_the_longer_first() -> None:
    assert lines(b"token hunter2 and hunter22!", secrets=("hunter2", "hunter22")) == ["token *** and ***!"]


def test_a_secret_from_a_file_is_hidden_though_the_file_ends_in_a_line_break() -> None:
    assert lines(b"it is hunter2, yes", secrets=("hunter2\n",)) == ["it is ***, yes"]


def test_every_line_of_a_key_is_hidden() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nab=\n-----END KEY-----\n"
    assert lines(key.encode(), secrets=(key,)) == ["***", "***", "ab=", "***"]


def test_secrets_too_short_to_look_for_would_hide_everything() -> None:
    assert lines(b"abc", secrets=("abc", "", " ")) == ["abc"]


def test_a_secret_across_the_cut_of_a_long_line_is_not_shown_by_half() -> None:
    for before in range(MAX_LINE - 8, MAX_LINE + 1):
        (line,) = lines(b"x" * before + b"hunter22" * 300, secrets=("hunter22",))
        assert "hunt" not in line


def test_secrets_that_come_later_are_hidden_from_then_on_and_the_old_ones_still() -> None:
    found: list[str] = []
    reader = LineReader(found.append, ("first",))
    reader.hide(("second",))
    reader.feed(b"first second\n")
    assert found == ["*** ***"]


def test_the_tail_is_kept_and_bounded() -> None:
    reader = LineReader(lambda line: None)
    for number in range(TAIL + 10):
        reader.feed(f"line {number}\n".encode())
    assert len(reader.tail) == TAIL
    assert reader.tail[-1] == f"line {TAIL + 9}"


def test_a_listener_that_breaks_does_not_stop_the_reading(caplog: Any) -> None:
    def broken(line: str) -> None:
        raise RuntimeError("no disk")

    reader = LineReader(broken)
    reader.feed(b"one\ntwo\n")
    assert list(reader.tail) == ["one", "two"]
    assert "a line of a model's log was lost" in caplog.text


@pytest.mark.anyio
async def test_a_stream_is_drained_to_its_end() -> None:
    stream, found = asyncio.StreamReader(), list[str]()
    stream.feed_data(b"one\ntwo")
    stream.feed_eof()
    await LineReader(found.append).drain(stream)
    assert found == ["one", "two"]
