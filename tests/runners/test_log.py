"""What a worker prints becomes lines: whole however it was cut, short, without control characters and secrets."""

from __future__ import annotations

import asyncio
import json
import random
import re
import string
from collections.abc import Callable
from typing import Any

import pytest
from fakes import PATIENT, VirtualLoop, turns
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import model_output as log
from gateway.telemetry.model_output import (
    A_SECOND,
    BUFFER,
    BURST,
    KEPT,
    LAST,
    MARK,
    MAX_LINE,
    MAX_RAW,
    TAIL,
    TURN,
    LineReader,
)
from gateway.telemetry.redaction import UNSURE, Redactor


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
    assert line == "red\ttab\\x00\\x07\\x1b]0;title\\u2028"


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
    assert len(reader._rest) <= MAX_RAW


def test_secrets_are_hidden_whole_and_the_longer_first() -> None:
    assert lines(b"token hunter2 and hunter22!", secrets=("hunter2", "hunter22")) == ["token *** and ***!"]


def test_a_secret_from_a_file_is_hidden_though_the_file_ends_in_a_line_break() -> None:
    assert lines(b"it is hunter2, yes", secrets=("hunter2\n",)) == ["it is ***, yes"]


def in_bytes(secret: str) -> str:
    return repr(f'"{secret}"'.encode())


@pytest.mark.parametrize(
    "write",
    [
        repr,
        json.dumps,
        lambda secret: repr({"a": f"{secret}'\""}),
        lambda secret: repr(secret.encode()),
        in_bytes,
    ],
)
@pytest.mark.parametrize(
    "secret",
    ['say "open"', "it's\\mine", "tab\there", "schl\u00fcssel", "both ' and \" here", "nul\0byte", "schl\u00fc's"],
)
def test_a_secret_is_hidden_however_repr_and_json_write_it(secret: str, write: Callable[[str], str]) -> None:
    shown = Redactor([secret])(f"before {write(secret)} behind")
    assert not any(part in shown for part in ("open", "mine", "here", "schl", "byte"))
    assert shown.startswith("before ") and shown.endswith(" behind")


def test_every_line_of_a_key_is_hidden() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nab=\n-----END KEY-----\n"
    assert lines(key.encode(), secrets=(key,)) == ["***", "***", "ab=", "***"]


def test_secrets_too_short_to_look_for_would_hide_everything() -> None:
    assert lines(b"abc", secrets=("abc", "", " ")) == ["abc"]


def test_a_secret_across_the_cut_of_a_long_line_is_not_shown_by_half() -> None:
    for before in range(MAX_LINE - 8, MAX_LINE + 1):
        (line,) = lines(b"x" * before + b"hunter22" * 300, secrets=("hunter22",))
        assert "hunt" not in line


@pytest.mark.parametrize("before", [b"", b"\x1b[0m" * 4000, b"\x1b[0m" * 2200, b"hunter22" * 2000])
@pytest.mark.parametrize("size", [400, 9000, 30000])
def test_of_a_secret_that_a_line_is_cut_in_nothing_is_shown(before: bytes, size: int) -> None:
    """A line is cut when it is long, and what colours it is taken out of what is left."""
    secret = "".join(random.Random(size).choices(string.ascii_letters, k=size))
    for cut in range(1, size, 1 + size // 20):
        for chunks in ([before + secret.encode()], [before + secret[:cut].encode(), secret[cut:].encode()]):
            for end in (b"\n", b""):
                for line in lines(*chunks, end, secrets=(secret, "hunter22")):
                    assert secret[:4] not in line and secret[-4:] not in line
    begun, rest = secret[:390].encode() + b"\x1b[1", b"m" + secret[390:].encode()  # in the middle of a colour as well
    assert all(secret[:4] not in line for line in lines(b"\x1b[0m" * 4000 + begun, rest, secrets=(secret,)))


SECRET = "sesame-" + "".join(random.Random(7).choices(string.ascii_letters, k=60))


def shown(chunks: list[bytes], secrets: tuple[str, ...]) -> list[tuple[float, str]]:
    """The lines of chunks that come a minute apart, each with its time."""

    async def main() -> None:
        clock, stream = asyncio.get_running_loop().time, asyncio.StreamReader()
        reading = asyncio.create_task(LineReader(lambda line: found.append((clock(), line)), secrets).drain(stream))
        for chunk in chunks:
            stream.feed_data(chunk)
            await asyncio.sleep(60)
        stream.feed_eof()
        await reading

    found: list[tuple[float, str]] = []
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "KNOWN", Redactor())  # the gateway's own knows the secrets of all tests
        runner.run(main())
    return found


@pytest.mark.parametrize("size", [1, 4, 40, len(SECRET) - 1])
@pytest.mark.parametrize("before", [0, 100, 2030, 4096, 8190, MAX_RAW - 30, MAX_RAW, 70_000])
def test_no_part_of_a_secret_changes_what_is_shown_or_when(size: int, before: int) -> None:
    """Or whoever can have a model print something, and reads its log, finds the secret a character at a time."""
    for part in (SECRET[:size], SECRET[-size:], SECRET[1 : size + 1]):
        for begun in (b"x" * before, b"\x1b[0m" * (before // 4)):
            for chunks in ([begun + part.encode()], [begun + part.encode() + b"\n"], [begun, part.encode(), b"\n"]):
                assert shown(chunks, (SECRET,)) == shown(chunks, ())


def test_no_part_of_a_long_secret_hides_more_than_a_line_of_its_length_would() -> None:
    """So much of one is hidden as no cut leaves out, and what follows it: a guess that goes on is not told apart."""
    secret = "".join(random.Random(8).choices(string.ascii_letters, k=3 * UNSURE))
    redact = Redactor([secret])
    half, almost = secret[:UNSURE], secret[: UNSURE - 1]
    rests = ("", secret[UNSURE], "?", secret[UNSURE:-1], secret[UNSURE:], f"{secret[UNSURE:]} b")
    assert {redact(f"a {half}{rest}\nc") for rest in rests} == {"a ***\nc"}
    assert redact(f"{almost}? b") == f"{almost}? b"


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


def test_a_line_without_its_end_is_shown_when_nothing_follows() -> None:
    def said(*chunks: bytes) -> list[str]:
        return [line for _, line in shown([*chunks], (SECRET,))]

    assert said(b"loading ...", b" done\n") == ["loading ...", " done"]
    assert said(b"th\xc3", b"\xa4n") == ["th\xe4n"]  # half a character waits for the other


@pytest.mark.parametrize("size", [BUFFER, 2 * BUFFER])
def test_what_filled_the_buffer_of_its_writer_waits_for_the_rest_of_its_line(size: int) -> None:
    """Or half a secret would be shown that a program has not written whole."""
    for cut in range(1, len(SECRET), 9):
        begun = b"line\n".rjust(size - cut, b"_") + SECRET[:cut].encode()
        found = [line for _, line in shown([begun, SECRET[cut:].encode() + b" is the word\n"], (SECRET,))]
        assert found[1:] == ["*** is the word"]


# ── more than anybody reads ──────────────────────────────────────────────────────────────────────────────────────────


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def dropped(found: list[str]) -> int:
    return sum(int(match[1]) for line in found if (match := re.match(r"\.\.\. (\d+) lines? dropped", line)))


def flood(*chunks: bytes, wait: float = 0.0) -> list[str]:
    """What is shown of chunks that come one after the other, with seconds in between."""
    found, clock = list[str](), Clock()
    reader = LineReader(found.append, clock=clock)
    for chunk in chunks:
        reader.feed(chunk)
        clock.now += wait
    reader.feed(b"", last=True)
    return found


def test_of_a_flood_the_beginning_and_the_end_are_shown_and_the_rest_is_counted() -> None:
    sent = [f"line {number}" for number in range(32_000)]
    found = flood("".join(f"{line}\n" for line in sent).encode())
    assert found[:BURST] == sent[:BURST]
    assert found[BURST + 1 :] == sent[-LAST:]
    assert dropped(found) == 32_000 - BURST - LAST


def test_the_end_is_shown_though_it_comes_in_pieces_and_without_a_line_break() -> None:
    text = b"".join(b"line %d\n" % number for number in range(32_000)) + b"Traceback:\n  it broke\nValueError: why"
    found = flood(*(text[start : start + 1000] for start in range(0, len(text), 1000)))
    assert found[-3:] == ["Traceback:", "  it broke", "ValueError: why"]
    assert len(found) + dropped(found) - 1 == 32_003


@PATIENT
@given(st.lists(st.integers(0, 3000), max_size=8), st.floats(0, 3), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_every_line_is_shown_or_counted(counts: list[int], wait: float, end: bytes) -> None:
    found = flood(*((b"x" + end) * count for count in counts), wait=wait)
    shown = sum(line == "x" for line in found)
    assert shown + dropped(found) == sum(counts)
    assert shown <= BURST + wait * len(counts) * A_SECOND + (len(counts) + 1) * (LAST + 1)


def test_long_lines_cost_more() -> None:
    found = flood(*[b"y" * 2000 + b"\n"] * 3000)
    assert BURST // 8 <= len(found) <= BURST // 8 + LAST + 2


def test_what_a_model_usually_prints_is_shown_whole() -> None:
    sent = [f"GET /{number}" for number in range(20_000)]
    found = flood(*(f"{line}\n".encode() for line in sent), wait=1.2 / A_SECOND)
    assert found == sent


def test_after_a_flood_lines_are_shown_again() -> None:
    found, clock = list[str](), Clock()
    reader = LineReader(found.append, clock=clock)
    reader.feed(b"x\n" * 10_000)
    clock.now += 10
    reader.feed(b"after\n")
    assert found[-1] == "after"
    assert dropped(found) == 10_000 - BURST - LAST


def test_who_prints_a_little_often_has_no_more_than_who_prints_much_at_once() -> None:
    """Each small share of the budget would open it again, and the last of what was dropped be shown each time."""
    found: list[str] = []
    clock = Clock()
    reader = LineReader(found.append, clock=clock)
    for _ in range(1000):
        clock.now += 0.01
        reader.feed(b"x\n" * 500)
    assert len(found) <= BURST + 10 * A_SECOND + 2 * LAST


def test_no_part_of_a_secret_is_shown_of_what_was_dropped() -> None:
    for cut in range(30):
        found: list[str] = []
        reader = LineReader(found.append, ("hunter2hunter2",), clock=Clock())
        reader.feed(b"x\n" * (BURST + 10))
        reader.feed(b"hunter2hunter2\n" * 3 + b"w" * (KEPT - cut) + b"\nend\n")
        reader.feed(b"", last=True)
        assert found[-1] == "end"
        assert all(line in ("x", "end", "***") or line.startswith(("w", "...")) for line in found)


def test_a_line_without_end_in_a_flood_takes_no_memory() -> None:
    reader = LineReader(lambda line: None, clock=Clock())
    reader.feed(b"x\n" * 5000)
    for _ in range(1000):
        reader.feed(b"z" * 65536)
    assert len(reader._rest) <= MAX_RAW
    assert len(reader._last) <= KEPT


@pytest.mark.anyio
async def test_a_flood_leaves_others_their_turn() -> None:
    stream, found = asyncio.StreamReader(), list[str]()
    stream.feed_data(b"x\n" * (BURST - 100))
    stream.feed_eof()
    reading = asyncio.create_task(LineReader(found.append).drain(stream))
    before, most, count = 0, 0, 0
    while len(found) < BURST - 100:
        await turns(1)
        before, most, count = len(found), max(most, len(found) - before), count + 1
    await reading
    assert most <= TURN
    assert count >= (BURST - 100) // TURN


def test_the_end_of_a_flood_is_shown_when_the_model_falls_silent() -> None:
    async def main() -> list[str]:
        loop, found = asyncio.get_running_loop(), list[str]()
        stream = asyncio.StreamReader()
        stream.feed_data(b"x\n" * 10_000 + b"it is over\n")
        reading = asyncio.create_task(LineReader(found.append, clock=loop.time).drain(stream))
        await asyncio.sleep(0.5)
        assert found[-1] == "it is over"
        stream.feed_eof()
        await reading
        return found

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        found = runner.run(main())
    assert found.count("x") + dropped(found) == 10_000
