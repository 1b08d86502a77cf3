from __future__ import annotations

import json
import logging
import sys

import pytest

from gateway.logs import MAX_TRACEBACK, JSONLines, TextLines, clean, cut, set_up


def record(message: str, *arguments: object, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    found = logging.LogRecord("gateway.test", level, __file__, 1, message, arguments, None)
    vars(found).update(extra)
    return found


def failed(text: str, depth: int = 0) -> logging.LogRecord:
    def fail(left: int) -> None:
        if left:
            fail(left - 1)
        raise ValueError(text)

    found = record("it failed", level=logging.ERROR)
    try:
        fail(depth)
    except ValueError:
        found.exc_info = sys.exc_info()
    return found


def test_a_line_for_people() -> None:
    found = record("model '%s' is ready", "chat")
    found.created = 0
    line = TextLines().format(found)
    assert line.endswith(" model 'chat' is ready")
    assert len(line.split()[0]) == len("2026-01-01")


def test_a_model_and_a_level_that_matters_are_named() -> None:
    line = TextLines().format(record("low on memory", level=logging.WARNING, model="chat"))
    assert line.endswith(" WARNING chat | low on memory")


def test_nothing_that_is_logged_makes_a_second_line_or_colours_a_terminal() -> None:
    line = TextLines().format(record("a\nFAKE\x1b[31m\r\x00\x85\u2028é"))
    assert line.endswith(" a\\nFAKE\\x1b[31m\\r\\x00\\x85\\u2028é")


def test_a_traceback_follows_its_line() -> None:
    first, *rest = TextLines().format(failed("bad\x1bvalue")).splitlines()
    assert first.endswith("ERROR it failed")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "ValueError: bad\\x1bvalue"


def test_an_event_is_one_line_of_json_with_all_it_carries() -> None:
    line = JSONLines().format(record("ready\n\u2028", model="chat", seconds=1.5, where=None))
    event = json.loads(line)
    assert "\n" not in line
    assert line.isascii()
    assert event.pop("time").endswith("Z")
    assert event == {
        "level": "info",
        "logger": "gateway.test",
        "message": "ready\n\u2028",
        "model": "chat",
        "seconds": 1.5,
        "where": None,
    }


def test_an_error_event_has_its_traceback() -> None:
    event = json.loads(JSONLines().format(failed("bad value")))
    assert event["error"] == "ValueError: bad value"
    assert event["traceback"].endswith("ValueError: bad value")


def test_a_long_traceback_keeps_its_end() -> None:
    found = failed("x", depth=100)
    assert found.exc_info is not None
    error = found.exc_info[1]
    assert error is not None
    error.add_note("\n".join(str(number) for number in range(10_000)))
    text = json.loads(JSONLines().format(found))["traceback"]
    assert text.startswith("...\n")
    assert text.endswith("9999")
    assert len(text) < MAX_TRACEBACK + 10


@pytest.mark.parametrize("text", ["x" * 2048, "é" * 1024])
def test_two_kib_pass(text: str) -> None:
    assert cut(text) == text


def test_more_is_cut_between_characters_and_says_so() -> None:
    assert cut("é" * 1025) == "é" * 1024 + "... (2050 bytes)"
    assert cut("\ud800" * 1000).endswith("... (6000 bytes)")
    assert len(clean("x" * 10_000_000)) < 2100


def test_set_up_writes_to_whatever_stderr_is(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        set_up("json", "warning")
        logging.getLogger("gateway.test").info("not told")
        logging.getLogger("gateway.test").warning("told")
        assert json.loads(capsys.readouterr().err)["message"] == "told"
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
