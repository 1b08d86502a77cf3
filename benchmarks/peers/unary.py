"""One answer a request: small and large predicts, embeddings, tensors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..load import Load, Seen, drive
from ..processes import Server
from ..report import Row
from .answers import INPUTS, TENSOR, WIDTH, is_echo, is_embeddings, is_tensor
from .asking import Question
from .rounds import compared, in_turns, serving
from .sides import Side

SMALL = json.dumps({"inputs": [1, 2, 3], "text": "a body of one hundred bytes, as small requests have them".ljust(67)})
LARGE = json.dumps({"document": "The quick brown fox jumps over the lazy dog. " * 23_302})  # a megabyte
TEXTS = json.dumps(
    {"model": "model", "encoding_format": "base64", "input": [f"text number {at} of the batch" for at in range(INPUTS)]}
)
FLOATS = json.dumps(
    {
        "inputs": [{"name": "x", "shape": [4], "datatype": "FP32", "data": TENSOR}],
        "parameters": {"binary_data_output": True},
    }
)


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    connections: int
    question: Question


_VECTORS = f"embeddings {INPUTS}×{WIDTH}, base64, 8 connections"
SCENARIOS = (
    Scenario("predict 100 B, 64 connections, async, 64 slots", 64, Question("async64", SMALL, is_echo)),
    Scenario("predict 100 B, 64 connections, sync, 64 slots", 64, Question("sync64", SMALL, is_echo)),
    Scenario("predict 100 B, 64 connections, sync, one slot", 64, Question("one", SMALL, is_echo)),
    Scenario("predict 100 B, one connection, sync", 1, Question("one", SMALL, is_echo)),
    Scenario("predict 1 MB, 4 connections, sync, one slot", 4, Question("one", LARGE, is_echo)),
    Scenario(f"{_VECTORS}, from lists", 8, Question("lists", TEXTS, is_embeddings)),
    Scenario(f"{_VECTORS}, from NumPy", 8, Question("numpy", TEXTS, is_embeddings)),
    Scenario("OIP infer of 4 floats, 64 connections", 64, Question("tensor", FLOATS, is_tensor)),
    Scenario("OIP infer of 4 floats, one connection", 1, Question("tensor", FLOATS, is_tensor)),
)


def measure(scenario: Scenario, sides: Sequence[Side], quick: bool) -> list[Row]:
    def seen(side: Side, server: Server) -> Seen:
        return drive(
            Load(
                port=server.port,
                path=side.paths[scenario.question.kind],
                body=scenario.question.body,
                pid=server.pid,
                everyone=True,
                connections=scenario.connections,
                seconds=0.7 if quick else 2.0,
            )
        )

    with serving(scenario.question, sides) as served:
        if len(served) < 2:  # no peer that is there has it
            return []
        turns = in_turns(served, 3 if quick else 5, seen)
    rows = []
    for peer, pairs in turns.items():
        rows.append(compared(f"{scenario.name}: requests/s", peer, pairs, lambda each: each.rate))
        rows.append(compared("  p50, ms", peer, pairs, lambda each: each.p50))
        rows.append(compared("  CPU a request, all processes, µs", peer, pairs, lambda each: each.cpu_us))
    return rows
