"""What models print, in the gateway's log: at the level that they said, a traceback as one thing."""

from __future__ import annotations

import json
import logging
import re
import traceback
from collections.abc import Iterator
from functools import partial
from itertools import combinations
from typing import Any

import pytest
from costs import least_ratio
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import model_log
from gateway.telemetry.logs import JSONLines, TextLines, set_up
from gateway.telemetry.model_output import MAX_RAW, Budget, LineReader
from gateway.telemetry.output_blocks import MAX_LINES, Blocks
from gateway.worker.log_records import Formatter


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(record)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(JSONLines().format(record)) for record in self.found]


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Iterator[Records]:
    handler, logger = Records(), logging.getLogger("gateway.model")
    logger.addHandler(handler)
    monkeypatch.setattr(logger, "level", logging.INFO)
    yield handler
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("line", "level", "fields"),
    [
        ("loading", "info", {"message": "loading"}),
        ("WARNING my.code: low on memory", "warning", {"message": "low on memory", "source": "my.code"}),
        ("DEBUG my.code: a detail", "debug", {"message": "a detail", "source": "my.code"}),
        ("ERROR:root:failed", "error", {"message": "failed", "source": "root"}),
        ("[id-1] CRITICAL x: no", "critical", {"message": "no", "source": "x", "request_id": "id-1"}),
        ("[id-1] ERROR gateway: predict gave what", "error", {"message": "predict gave what", "request_id": "id-1"}),
        ("[id-1] refused with 400 invalid_value: no", "info", {"request_id": "id-1"}),
        ("2026-01-01 10:00:00,123 - my.code - WARNING - low", "warning", {}),
        ("2026-01-01 10:00:00.123 | ERROR    | a:b:1 - failed", "error", {}),
        ("WARNING 01-01 10:00:00 [engine.py:12] low", "warning", {}),
        ("[ERROR] failed", "error", {}),
        ("there was no ERROR at all", "info", {}),
        ("ERRORS: 0", "info", {}),
    ],
)
def test_a_line_has_the_level_that_the_model_gave_it(
    records: Records, line: str, level: str, fields: dict[str, str]
) -> None:
    LineReader(partial(model_log.write, "team/a")).feed(f"{line}\n".encode(), last=True)
    (event,) = records.events
    assert (event["level"], event["model"], event["logger"]) == (level, "team/a", "gateway.model.team.a")
    assert {"message": line, **event} | {"message": event["message"]} | fields == event
    assert TextLines().format(records.found[0]).endswith(f" team/a | {line}")


# What the patterns for lines of models are made of: a line is one of these, then two others again and again.
PARTS = (
    "1",
    "-",
    " ",
    "2026-01-01 10:00:00",
    "|",
    ":",
    "a" * 90,
    "a",
    "ERRO",
    "[",
    "\x01",
    "\u202e",
    "\x1b[1",
    "gw_a_",
)
PARTS += ("gw_" + "a" * 16 + "_", "+", "Traceback", "\xff")
MOST = 100  # times what a line of words of the same length takes
HOSTILE = [(first, second, third) for first in PARTS for second, third in combinations(PARTS, 2)]


def test_no_line_takes_long_whatever_a_model_prints(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn of the loop reads 25 of them. At most a fifth of the bound is used, and trying all ways of a pattern takes
    hundreds of times as long as a line of words.
    """
    monkeypatch.setattr(logging.getLogger("gateway.model"), "propagate", False)  # pytest writes down all it gets
    reader = LineReader(partial(model_log.write, "a"))

    def read(line: bytes) -> None:
        reader._budget = Budget()  # a line beyond it would cost nothing
        reader.line(line)

    for first, second, third in HOSTILE:
        for size in (2000, 4 * MAX_RAW):
            line = (first + (second * 20 + third) * (1 + size // 20)).encode()[:size]
            words = (b"word " * (1 + size // 5))[:size]
            ratio = least_ratio(partial(read, line), partial(read, words), enough=MOST)
            assert ratio < MOST, line[:100]
        records.found.clear()


def test_no_part_of_a_pattern_gives_back_what_it_took() -> None:
    """The rest of the work on a line would hide how often a pattern reads it. Read once, it takes about as long as in a
    pattern of one part; if two parts try all ways to share it, some hundred times as long.
    """
    once = re.compile(r"[^\x00]*+").match
    for first, second, third in HOSTILE:
        line = (first + (second * 20 + third) * MAX_RAW)[:MAX_RAW]
        for pattern in (model_log._ID, model_log._RECORD, model_log._LEVEL):
            assert least_ratio(partial(pattern, line), partial(once, line), enough=MOST) < MOST, line[:100]


def chained() -> str:
    try:
        try:
            {}["a"]
        except KeyError as error:
            raise ValueError("no a") from error
    except ValueError:
        return traceback.format_exc()


@pytest.mark.parametrize("head", ["", "[id-1] Internal error.\n", "[id-1] ERROR my.code: it failed\n"])
def test_a_traceback_is_one_object_with_what_was_said_before_it(records: Records, head: str) -> None:
    LineReader(partial(model_log.write, "a")).feed(f"before\n{head}{chained()}after\n".encode(), last=True)
    before, event, after = records.events
    assert (before["message"], after["message"]) == ("before", "after")
    assert event["level"] == "error" and event["error"] == "ValueError: no a"
    assert event["traceback"].startswith("Traceback (most") and "KeyError: 'a'" in event["traceback"]
    assert event["traceback"].endswith("ValueError: no a")
    assert event.get("request_id") == ("id-1" if head else None)
    assert event["message"] in ("ValueError: no a", "Internal error.", "it failed")


def test_the_first_line_of_a_traceback_may_be_all_that_there_is_of_it(records: Records) -> None:
    model_log.write("a", "Traceback (most recent call last):")
    (event,) = records.events
    assert (event["level"], event["message"]) == ("error", "Traceback (most recent call last):")


def written(text: str, **more: Any) -> bytes:
    """A record as our worker writes it."""
    record = logging.LogRecord("my.code", logging.WARNING, "", 0, text, None, more.get("exc_info"))
    return (Formatter("%(levelname)s %(name)s: %(message)s").format(record) + "\n").encode()


def test_a_record_of_several_lines_is_one_object(records: Records) -> None:
    several = written("first\n\nsecond\r\nTHIRD: x") + written("alone\n") + written("a\nb")
    LineReader(partial(model_log.write, "a")).feed(b"before\n" + several + b"after\n", last=True)
    assert [(event["level"], event["message"]) for event in records.events] == [
        ("info", "before"),
        ("warning", "first\n\nsecond\nTHIRD: x"),
        ("warning", "alone"),
        ("warning", "a\nb"),
        ("info", "after"),
    ]
    assert all("traceback" not in event and "error" not in event for event in records.events)
    shown = TextLines().format(records.found[1]).splitlines()
    assert [line.partition(" a | ")[2] for line in shown] == ["WARNING my.code: first", "", "second", "THIRD: x"]


def test_a_record_with_a_traceback_is_one_object_with_its_whole_message(records: Records) -> None:
    try:
        raise ValueError("first\nFile of its own\nlast")
    except ValueError as error:
        text = written("it failed\nwith this", exc_info=(type(error), error, error.__traceback__))
    LineReader(partial(model_log.write, "a")).feed(text + b"after\n", last=True)
    event, after = records.events
    assert (event["level"], event["message"]) == ("warning", "it failed\nwith this")
    assert event["traceback"].startswith("Traceback (most") and event["traceback"].endswith("\nlast")
    assert after["message"] == "after"


def test_what_a_model_prints_with_the_marks_of_records_is_lines_all_the_same(records: Records) -> None:
    LineReader(partial(model_log.write, "a")).feed(b"\x1fa\n\x1eb\n\x1e\x1fc\n\x1f\x1b[31md\n", last=True)
    assert [event["message"] for event in records.events] == ["a", "b", "\\x1fc\nd"]


def test_in_text_every_line_of_a_traceback_says_whose_it_is(records: Records) -> None:
    LineReader(partial(model_log.write, "a")).feed(chained().encode(), last=True)
    (record,) = records.found
    lines = TextLines().format(record).splitlines()
    assert len(lines) == len([line for line in chained().splitlines() if line.strip()])
    assert all(" a | " in line for line in lines)


def test_two_tracebacks_are_two_objects(records: Records) -> None:
    one = "Traceback (most recent call last):\n  File 'x', line 1\nKeyError: 'a'\n"
    LineReader(partial(model_log.write, "a")).feed((one + one).encode(), last=True)
    assert [event["error"] for event in records.events] == ["KeyError: 'a'"] * 2


def test_exception_groups_stay_together(records: Records) -> None:
    try:
        raise ExceptionGroup("several", [ValueError("one"), KeyError("two")])
    except ExceptionGroup:
        text = traceback.format_exc()
    LineReader(partial(model_log.write, "a")).feed(text.encode(), last=True)
    (event,) = records.events
    assert "ValueError: one" in event["traceback"] and "KeyError: 'two'" in event["traceback"]


@given(
    st.lists(
        st.sampled_from(["Traceback (most recent call last):", "  File 'x'", "ValueError: a", "ERROR x: y", "[i] z"])
    )
)
def test_no_line_is_lost_or_moved(lines: list[str]) -> None:
    found: list[str] = []
    blocks = Blocks(found.append)
    for line in lines:
        blocks.line(line)
    blocks.flush()
    assert [line for block in found for line in block.split("\n")] == lines


def test_a_block_without_end_is_cut() -> None:
    found: list[str] = []
    blocks = Blocks(found.append)
    blocks.line("Traceback (most recent call last):")
    for _ in range(3 * MAX_LINES):
        blocks.line("  File 'x'")
    assert all(len(block.split("\n")) <= MAX_LINES for block in found) and found


def test_debugging_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    root, ours = logging.getLogger(), logging.getLogger("gateway")
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    before = root.level, ours.level
    try:
        set_up("text", "debug")
        assert ours.isEnabledFor(logging.DEBUG) and logging.getLogger("gateway.http").isEnabledFor(logging.DEBUG)
        for library in ("sse_starlette.sse", "websockets", "anything"):
            assert not logging.getLogger(library).isEnabledFor(logging.DEBUG)
            assert logging.getLogger(library).isEnabledFor(logging.INFO)
        set_up("text", "error")
        assert not logging.getLogger("anything").isEnabledFor(logging.WARNING)
        assert not logging.getLogger("gateway.http").isEnabledFor(logging.WARNING)
    finally:
        root.setLevel(before[0])
        ours.setLevel(before[1])
