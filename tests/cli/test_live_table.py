"""The table on the terminal while models load."""

from __future__ import annotations

import io
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.cli.live_table import Turns, live


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_of_many_threads_stay_whole_while_the_table_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, table = Terminal(), "first model\nsecond model"
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(sys, stream, Terminal())
    monkeypatch.setenv("TERM", "xterm")
    console: Any = Turns(file=terminal, force_terminal=True, width=80, color_system=None)

    def say(thread: int) -> None:
        for number in range(100):
            (sys.stderr if thread % 2 else sys.stdout).write(f"line {number} of {thread}\n")  # as the log does

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with (
            live(console, get_renderable=lambda: table, transient=True, refresh_per_second=1000),
            ThreadPoolExecutor(4) as threads,
        ):
            list(threads.map(say, range(4)))
    finally:
        sys.setswitchinterval(before)
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()))
    said = {f"line {number} of {thread}" for number in range(100) for thread in range(4)}
    assert said | {"first model", "second model"} == set(lines) - {""}
