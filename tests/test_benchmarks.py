"""The benchmarks run and print what they promise to print. What they reach is no matter of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_predict_prints_promise_reached_and_ratio() -> None:
    printed = run("predict", "--quick")
    assert "python -m benchmarks predict" in printed
    header = next(line for line in printed.splitlines() if "promise" in line)
    assert header.split() == ["promise", "reached", "ratio", "against"]
    assert "gateway CPU a predict" in printed
    assert "pass" in printed or "MISS" in printed


def test_json_is_one_object_a_benchmark() -> None:
    (line,) = run("cancel", "--quick", "--json").splitlines()
    printed = json.loads(line)
    assert printed["benchmark"] == "cancel"
    assert {"promise", "reached", "ratio", "against", "kept"} == set(printed["rows"][0])


def test_liveness_is_measured_beside_predicts_and_at_rest() -> None:
    (line,) = run("liveness", "--quick", "--json").splitlines()
    rows = json.loads(line)["rows"]
    assert rows[0]["promise"].startswith("/livez beside 60 sync predicts: p99")
    assert rows[0]["kept"] in (True, False)
    assert {row["against"].partition(",")[0] for row in rows[1:]} == {"idle"}


def test_an_unknown_name_lists_the_known_ones() -> None:
    command = [sys.executable, "-m", "benchmarks", "predct"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "have: predict" in done.stderr
