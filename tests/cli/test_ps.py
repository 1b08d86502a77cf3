"""What `gateway ps` prints: all of it where there is room, and what fits a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from gateway.cli import tables
from gateway.cli.operator import Operator
from gateway.cli.ps import size, span

Run = Callable[..., Result]
LONG = "team-of-the-north/llama-3.3-70b-instruct-awq-int4"
REASON = (
    "ModuleNotFoundError: No module named 'flash_attn'; add flash-attn to the model's requirements, or leave it out"
)


def model(name: str, **more: Any) -> dict[str, Any]:
    replica = {"index": 0, "state": "ready", "pid": 4194304, "memory_bytes": 1_500_000_000, "uptime_seconds": 90_000.0}
    found = {
        "id": name,
        "state": "ready",
        "healthy": None,
        "reason": "",
        "restarts": 0,
        "load_seconds": 1.5,
        "slots": 16,
        "running": 12,
        "queued": 3,
        "devices": ["GPU-0,GPU-1"],
        "last_call_at": time.time() - 65,
        "memory_bytes": 1_500_000_000,
        "replicas": [replica],
    }
    return {**found, **more}


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the gateway is said to host."""
    second = {"index": 1, "state": "ready", "pid": 7, "memory_bytes": 10, "uptime_seconds": 1.0}
    models = [
        model("echo", last_call_at=None),
        model(f"{LONG}-v1"),
        model(f"{LONG}-v2"),
        model("broken", state="restarting", reason=REASON, replicas=[], memory_bytes=0, slots=0, running=0, queued=0),
    ]
    models[0]["replicas"].append(second)
    monkeypatch.setattr(Operator, "ask", lambda self, method, path: {"models": models})
    return models


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of 80 columns."""
    monkeypatch.setattr(tables, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_every_line_fits_and_what_tells_names_apart_is_there(
    run: Run, hosted: list[dict[str, Any]]
) -> None:
    lines = run("ps").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines]
    assert ["echo", "ready", "4194304", "+1", "1.4", "GiB", "1d", "-", "12/16", "+3"] in rows
    first, second = (row[0] for row in rows if row and row[0].startswith("team"))
    assert "…" in first and first.endswith("v1") and second.endswith("v2")
    assert ["broken", "restarting", "-", "-", "1m", "ago", "0/0"] in rows
    assert "restarts" not in lines[1]
    hosted[0]["restarts"] = 12
    rows = [line.split() for line in run("ps").stdout.splitlines()]
    assert "restarts" in rows[1] and next(row for row in rows if row[:1] == ["echo"])[-1] == "12"
    reason = next(line for line in lines if line.startswith("broken: "))
    assert reason.endswith("…") and "flash_attn" in reason


@pytest.mark.usefixtures("terminal")
def test_a_model_that_says_it_is_unhealthy_is_shown_so_with_its_reason(run: Run, hosted: list[dict[str, Any]]) -> None:
    hosted[0] |= {"healthy": False, "reason": "its is_healthy says False"}
    narrow, wide = run("ps").stdout.splitlines(), run("ps", "--wide").stdout
    assert ["echo", "unhealthy"] in [line.split()[:2] for line in narrow]
    assert "echo: its is_healthy says False" in narrow
    assert "unhealthy" in wide and "its is_healthy says False" in wide


@pytest.mark.usefixtures("hosted", "terminal")
def test_wide_cuts_nothing(run: Run) -> None:
    printed = run("ps", "--wide").stdout
    assert f"{LONG}-v1" in printed and REASON in printed and "GPU-0,GPU-1" in printed and "4194304, 7" in printed
    assert "…" not in printed


def test_a_reason_of_several_lines_is_one_line_of_the_table(run: Run, hosted: list[dict[str, Any]]) -> None:
    hosted[0]["reason"] = "the load failed:\nRuntimeError: no\r\n  memory"
    printed = run("ps", "--wide").stdout
    assert "the load failed: RuntimeError: no   memory" in printed
    assert len([line for line in printed.splitlines() if line.strip()]) == 2 + 4


@pytest.mark.usefixtures("hosted")
def test_what_is_no_terminal_gets_a_line_a_model_and_all_of_it(run: Run) -> None:
    plain = run("ps").stdout
    assert plain == run("ps", "--wide").stdout
    assert len([line for line in plain.splitlines() if line.strip()]) == 2 + 4  # the head and its rule


def test_json_has_the_values_as_they_are(run: Run, hosted: list[dict[str, Any]]) -> None:
    import json

    assert json.loads(run("ps", "--json").stdout) == hosted


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (52_428_800, "50 MiB"),
        (1 << 40, "1.0 TiB"),
        (5e18, "4547474 TiB"),
    ],
)
def test_sizes_have_three_digits(count: float, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (86_400 * 40, "40d")]
)
def test_spans_are_in_their_largest_unit(seconds: float, shown: str) -> None:
    assert span(seconds) == shown
