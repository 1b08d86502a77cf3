from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gateway.telemetry import printing


def python(code: str, **streams: int) -> subprocess.CompletedProcess[bytes]:
    script = f"from gateway.telemetry.printing import *; import sys\n{code}"
    return subprocess.run([sys.executable, "-c", script], env={}, stderr=subprocess.PIPE, timeout=30, **streams)


def broken_pipe() -> int:
    """One that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("where", ["a pipe that nobody reads", "a full disk"])
def test_what_cannot_be_printed_ends_nothing_and_changes_no_exit_status(where: str) -> None:
    stdout = broken_pipe() if where == "a pipe that nobody reads" else os.open("/dev/full", os.O_WRONLY)
    code = "forgive(); try_to_write('one'); print('two', flush=True); print('x' * 100_000); print('four'); sys.exit(3)"
    done = python(code, stdout=stdout)
    os.close(stdout)
    assert (done.returncode, done.stderr) == (3, b"")


def test_a_process_without_stdout_prints_nothing() -> None:
    assert python("sys.stdout = sys.__stdout__ = None; forgive(); write('one')").returncode == 0


def test_what_can_be_printed_is_there_in_order(capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "from gateway.telemetry.printing import *; forgive(); print('one', flush=True); write('two\\n'); print('three')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert capfd.readouterr().out == "one\ntwo\nthree\n"


def test_characters_that_a_stream_does_not_have_are_written_out(capfd: pytest.CaptureFixture[str]) -> None:
    code = "from gateway.telemetry.printing import write; write('caf\\u00e9\\n')"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=True)
    assert capfd.readouterr().out == "caf\\xe9\n"


def test_what_stands_in_for_a_stream_gets_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    printing.write("one")
    printing.write("two", "stderr")
    assert capsys.readouterr() == ("one", "two")
