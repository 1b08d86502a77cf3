"""Vectors: what an answer of /v1/embeddings with many of them costs the gateway, against a bare echo of its bytes.

The echo reads as many bytes as it writes. A bare answer, which reads the texts only and has its bytes ready, is shown
beside it.
"""

from __future__ import annotations

import json
import statistics

from .load import Load, Seen, drive
from .processes import Server, floor, gateway
from .report import Row

INPUTS, WIDTH, CONNECTIONS = 64, 384, 8
GATEWAY_MS = 0.7  # CPU of the gateway's process for one answer
SHARE = {"numpy": 0.6, "lists": None}  # of the echo's requests a second
MODEL = """
import random
{imports}

class Model:
    def load(self):
        drawn = random.Random(1)
        self.rows = {made}([[drawn.gauss(0, 0.05) for _ in range({width})] for _ in range({inputs})])

    def embeddings(self, inputs):
        return self.rows
"""
KINDS = {"numpy": ("import numpy", "numpy.array"), "lists": ("", "list")}


def run(quick: bool) -> list[Row]:
    models = {
        f"{name}/model.py": MODEL.format(imports=imports, made=made, width=WIDTH, inputs=INPUTS)
        for name, (imports, made) in KINDS.items()
    }
    texts = [f"text number {index} of the batch" for index in range(INPUTS)]
    size = INPUTS * (4 * -(-4 * WIDTH // 3) + 50)  # of an answer: base64 and what stands around it
    rounds: list[dict[str, Seen]] = []
    with floor("echo") as echo, floor("answer") as answer, gateway(models) as ours:
        for _ in range(2 if quick else 5):
            rounds.append({"echo": _load(echo, json.dumps("x" * size), "/", quick)})
            rounds[-1]["answer"] = _load(answer, json.dumps({"bytes": size, "input": texts}), "/", quick)
            for name in KINDS:
                body = json.dumps({"model": name, "input": texts, "encoding_format": "base64"})
                rounds[-1][name] = _load(ours, body, "/v1/embeddings", quick)
    rows = []
    for name, share in SHARE.items():
        ratio = statistics.median(seen[name].rate / seen["echo"].rate for seen in rounds)
        rate, echoed, answered = (_median(rounds, side) for side in (name, "echo", "answer"))
        promised = "" if share is None else f" ≥ {share}x the echo"
        kept = None if share is None else ratio >= share
        rows.append(Row(f"requests/s, {name}{promised}", f"{rate:,.0f}", ratio, f"bare echo, {echoed:,.0f}", kept))
        ratio = statistics.median(seen[name].rate / seen["answer"].rate for seen in rounds)
        rows.append(
            Row("  beside a bare answer", f"{rate:,.0f}", ratio, f"ready bytes for the same texts, {answered:,.0f}")
        )
        cpu = statistics.median(seen[name].cpu_us for seen in rounds) / 1000
        told = f"  gateway CPU an answer ≤ {GATEWAY_MS} ms"
        rows.append(Row(told, f"{cpu:.2f} ms", cpu / GATEWAY_MS, f"{GATEWAY_MS} ms", cpu <= GATEWAY_MS))
    return rows


def _median(rounds: list[dict[str, Seen]], side: str) -> float:
    return statistics.median(seen[side].rate for seen in rounds)


def _load(server: Server, body: str, path: str, quick: bool) -> Seen:
    seconds = 0.5 if quick else 2.0
    return drive(Load(port=server.port, pid=server.pid, path=path, body=body, connections=CONNECTIONS, seconds=seconds))
