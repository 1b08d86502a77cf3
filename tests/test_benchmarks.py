"""The benchmarks run and print what they promise to print. What they reach is no matter of a test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import peers, rows
from benchmarks.peers import first_chunk, neighbours, sides, start, tables, unary
from benchmarks.peers.answers import is_stream
from benchmarks.peers.asking import Question, first_answer
from benchmarks.processes import Server, floor
from benchmarks.report import Failed, LeftOut, Row

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


def test_a_peer_without_an_environment_is_left_out_with_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "ROOT", tmp_path)
    monkeypatch.delenv("TRUSS_PYTHON", raising=False)
    assert sides.peers() == ([], ["mosec", "litserve", "truss", "triton", "bentoml", "mlserver"])
    with pytest.raises(LeftOut, match="make bench-peers PEERS=mosec"):
        peers.run(quick=True)


def test_batching_is_compared_with_ideal_batches() -> None:
    (line,) = run("batching", "--quick", "--json").splitlines()
    first = json.loads(line)["rows"][0]
    assert first["promise"].startswith("64 clients, batches of 32") and first["against"].startswith("ideal, ")


def test_every_peer_has_its_pins() -> None:
    for name in sides.PEERS:
        lines = (ROOT / "benchmarks" / "peers" / f"{name}.txt").read_text().splitlines()
        assert any(line.startswith(f"{sides.PEERS[name]}==") for line in lines)
        assert all("==" in line for line in lines if line and not line.startswith("#"))


def test_a_scenario_that_fails_leaves_the_others_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(scenario: unary.Scenario, *_: object) -> list[Row]:
        if scenario is unary.SCENARIOS[0]:
            raise RuntimeError("a peer answers wrongly")
        return [Row(scenario.name, "1")]

    monkeypatch.setattr(sides, "peers", lambda: ([sides.ours()], ["triton"]))
    monkeypatch.setattr(unary, "measure", measure)
    for module in (neighbours, first_chunk, start):
        monkeypatch.setattr(module, "measure", lambda *_: [])
    with pytest.raises(Failed, match="a peer answers wrongly") as failed:
        peers.run(quick=True)
    told = [row.promise for row in failed.value.rows]
    assert told == [*(scenario.name for scenario in unary.SCENARIOS[1:]), "Triton is left out"]


@pytest.fixture(scope="module")
def echoing() -> Iterator[Server]:
    with floor("echo") as server:
        yield server


@pytest.mark.parametrize("scenario", unary.SCENARIOS, ids=lambda scenario: scenario.name)
def test_only_the_right_answer_counts(scenario: unary.Scenario, echoing: Server) -> None:
    question = scenario.question
    if question.is_right is unary.is_echo:
        first_answer("a peer", echoing, "/", question)
        question = Question(question.kind, question.body, lambda body, answer, at: unary.is_echo("{}", answer, at))
    with pytest.raises(RuntimeError, match="a peer answers / wrongly"):
        first_answer("a peer", echoing, "/", question)


def test_rows_need_a_peer_to_be_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "peers", lambda: ([], [*sides.PEERS]))
    monkeypatch.setattr(rows, "peers", sides.peers)
    with pytest.raises(LeftOut, match="make bench-peers PEERS='mlserver mosec'"):
        rows.run(quick=True)


@pytest.mark.parametrize("kind", tables.NAMES)
def test_the_gateway_answers_a_row_as_peers_must(kind: str) -> None:
    side = sides.ours()
    with side.serve(kind) as server:
        first_answer(
            side.name, server, side.paths[kind], Question(kind, f'{{"inputs": [{tables.ROW}]}}', tables.is_first)
        )


@pytest.mark.parametrize("kind", ["lists", "tensor", "stream"])
def test_the_gateway_gives_the_answer_that_peers_must_give(kind: str) -> None:
    questions = [scenario.question for scenario in unary.SCENARIOS if scenario.question.kind == kind]
    question = questions[0] if questions else Question("stream", '{"chunks": 3}', is_stream)
    side = sides.ours()
    with side.serve(kind) as server:
        first_answer(side.name, server, side.paths[kind], question)


def test_an_unknown_name_lists_the_known_ones() -> None:
    command = [sys.executable, "-m", "benchmarks", "predct"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "have: predict" in done.stderr
