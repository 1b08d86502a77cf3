"""Rows: predicts of one small row by models of XGBoost, LightGBM and ONNX, beside MLServer and mosec.

The gateway gets the file of the library only. The others get a class that calls the library, as its documentation
shows, because they have nothing for such a file, or need another version of the library. Every round asks each side; a
ratio is taken within a round.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

from .load import Load, Seen, drive
from .peers.asking import Question
from .peers.rounds import compared, in_turns, serving
from .peers.sides import OF_TABLES, TITLES, Side, ours, peers
from .peers.tables import NAMES, ROW, is_first
from .processes import Server
from .report import LeftOut, Row

CLIENTS = 16
LEAST = {"MLServer": 5.0, "mosec": 2.0}  # times their requests per second


def run(quick: bool) -> list[Row]:
    found, missing = peers()
    sides = [ours(), *found]
    rows = []
    for kind in NAMES:
        question = Question(kind, json.dumps({"inputs": [ROW]}), is_first)
        with serving(question, sides) as served:
            if len(served) < 2:
                raise LeftOut("no peer has an environment; run: make bench-peers PEERS='mlserver mosec'")

            def seen(side: Side, server: Server, question: Question = question) -> Seen:
                body = side.asked(question).body
                seconds = 0.7 if quick else 2.0
                path = side.paths[question.kind]
                load = Load(port=server.port, path=path, body=body, connections=CLIENTS, seconds=seconds)
                return drive(replace(load, pid=server.pid, everyone=True))

            for peer, turns in in_turns(served, 3 if quick else 5, seen).items():
                rows += _beside(kind, peer, turns)
    left_out = [name for name in OF_TABLES if name in missing]
    return rows + [Row(f"{TITLES[name]} is left out", f"run: make bench-peers PEERS={name}") for name in left_out]


def _beside(kind: str, peer: str, turns: list[tuple[Seen, Seen]]) -> list[Row]:
    least = LEAST[peer.partition(" ")[0]]
    ratio = statistics.median(own.rate / theirs.rate for own, theirs in turns)
    own, theirs = (statistics.median(pair[at].rate for pair in turns) for at in (0, 1))
    told = f"{kind}, one row, {CLIENTS} clients: requests/s ≥ {least:g}x"
    rows = [Row(told, f"{own:,.0f}", ratio, f"{peer}, {theirs:,.0f}", ratio >= least)]
    ratio = statistics.median(own.p99 / theirs.p99 for own, theirs in turns)
    own, theirs = (statistics.median(pair[at].p99 for pair in turns) for at in (0, 1))
    rows.append(Row("  p99 ≤ 1x, ms", f"{own:.3g}", ratio, f"{peer}, {theirs:.3g}", ratio <= 1))
    return [*rows, compared("  CPU a request, all processes, µs", peer, turns, lambda each: each.cpu_us)]
