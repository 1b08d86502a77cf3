from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.telemetry import logs
from gateway.telemetry.logs import MAX_TRACEBACK, MODELS, JSONLines, TextLines, clean, cut, set_up
from gateway.telemetry.redaction import Redactor


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


@pytest.mark.parametrize("extra", [{}, {"line": "said"}])
def test_no_name_of_a_model_makes_a_second_line(extra: dict[str, str]) -> None:
    found = record("it is lost", model="m\naudit: x", **extra)
    found.name = f"{MODELS}m"
    assert TextLines().format(found).count("\n") == 0


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
        root.handlers[0].flush()
        assert json.loads(capsys.readouterr().err)["message"] == "told"
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])


# ── whoever reads it ─────────────────────────────────────────────────────────────────────────────────────────────────

CHATTY = """
import logging
from gateway.telemetry import logs
logs.set_up("json")
log = logging.getLogger("gateway.test")
for number in range(20000):
    log.info("%s", "x" * 1000)
print("went on", flush=True)
input()
log.info("the last line")
"""


def python(code: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True, **more)


def test_a_log_that_nobody_reads_holds_up_nothing_and_what_was_lost_is_counted() -> None:
    with python(CHATTY, stderr=-1) as process:
        assert process.stdout is not None and process.stdout.readline() == "went on\n"
        _, told = process.communicate("\n", timeout=60)
    events = [json.loads(line)["message"] for line in told.splitlines()]
    (lost,) = [int(text.split()[-2]) for text in events if text.startswith("lost from this log: ")]
    assert lost > 0
    assert len([text for text in events if text == "x" * 1000]) + lost >= 20000
    assert "the last line" in events[-2:]
    assert process.returncode == 0


def test_a_log_that_is_never_read_holds_up_the_end_for_a_moment_only() -> None:
    with python(CHATTY.replace("input()", ""), stderr=-1) as process:
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full", "2> >(exec true)"])
def test_a_log_that_cannot_be_written_is_no_trouble(how: str) -> None:
    code = CHATTY.replace("input()", "").replace("20000", "200").replace("'", '"')
    command = f"{sys.executable} -c '{code}' {how}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout == "went on\n"
    assert done.returncode == 0


FULL = """
import logging, resource
from gateway.telemetry import logs
logs.set_up("json")
log, (handler,) = logging.getLogger("gateway.test"), logging.getLogger().handlers
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
for number in range(3):
    log.info("lost %s", number)
    handler.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
log.info("found")
handler.flush()
"""


def test_what_a_full_disk_cut_off_is_no_part_of_the_next_line_and_what_was_lost_is_counted(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file, python(FULL, stderr=file) as process:
        assert process.wait(60) == 0
    _, *lines = filter(None, (tmp_path / "log").read_text().splitlines())
    assert [json.loads(line)["message"] for line in lines] == ["found", "lost from this log: 3 lines"]


def test_no_socket_becomes_the_log_of_a_process_without_one() -> None:
    code = (
        "import os, socket; from gateway.telemetry import logs; logs.set_up();"
        "print(min(socket.socket().fileno() for _ in range(3)), os.readlink('/proc/self/fd/2'))"
    )
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "{code}" 2>&-'], capture_output=True, text=True, timeout=60
    )
    first, second = done.stdout.split()
    assert int(first) > 2
    assert second == "/dev/null"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "KNOWN", Redactor(["hunter2222", "short"], (8, 8)))


@pytest.mark.usefixtures("known")
def test_secrets_are_in_no_part_of_an_event() -> None:
    found = failed("bad token hunter2222")
    found.msg, found.args = "with %s", ("hunter2222",)
    found.where = "x=hunter2222"
    for line in (JSONLines().format(found), TextLines().format(found)):
        assert "hunter" not in line
        assert "***" in line
    assert clean("a short text") == "a short text"
