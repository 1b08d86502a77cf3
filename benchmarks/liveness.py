"""Liveness: how long health checks wait while 60 sync predicts of one model are in flight.

A server whose health checks share a pool of threads with predicts answers them when a predict is over, and is restarted
by whoever asked. Ours is compared with itself at rest, and with Truss's server over the same class where there is one.
"""

from __future__ import annotations

import http.client
import select
import socket
import statistics
import time
from dataclasses import dataclass

from .processes import Server, gateway
from .report import Row
from .truss_server import installed, truss_server

PREDICTS, SLOTS = 60, 64
MODEL = {
    "model/model.py": """
import time

class Model:
    def predict(self, seconds):
        time.sleep(seconds)
        return "slept"
""",
    "config.yaml": f"runtime:\n  predict_concurrency: {SLOTS}\n",
}
PREDICT = "/v1/models/model:predict"  # the name that every Truss client sends, and the only model here
PROMISED = "/livez"
PATHS = (PROMISED, "/", "/v1/models/model/loaded")
LIMIT = 50.0  # milliseconds
PAUSE = 0.002  # seconds between two questions
BEGIN = 0.5  # seconds until all predicts are surely in the model


@dataclass(frozen=True, slots=True)
class Turn:
    """Milliseconds that each path took beside the predicts, and the seconds that these took together."""

    waits: dict[str, list[float]]
    predicts: float


def run(quick: bool) -> list[Row]:
    sleep, rounds = (2.0, 1) if quick else (4.0, 5)
    truss = installed()
    with gateway({f"slow/{file}": text for file, text in MODEL.items()}) as ours:
        idle = _waits(ours, PATHS, sleep / 2)
        turns = [_beside(ours, PATHS, sleep) for _ in range(rounds)]
    busy = {path: [wait for turn in turns for wait in turn.waits[path]] for path in PATHS}
    rows = []
    for path in PATHS:
        p99 = _p99(busy[path])
        if path == PROMISED:
            promise = f"{path} beside {PREDICTS} sync predicts: p99 ≤ {LIMIT:g} ms"
            rows.append(Row(promise, f"{p99:.3g} ms", p99 / LIMIT, f"{LIMIT:g} ms", p99 < LIMIT))
        else:
            rows.append(_compared(f"{path} beside them: p99", p99, _p99(idle[path])))
        for what, figure in (("p50", statistics.median), ("slowest", max)):
            rows.append(_compared(f"  {what}", figure(busy[path]), figure(idle[path])))
    if truss is not None:
        python, place, version = truss
        with truss_server(python, place, MODEL) as theirs:
            rows += _against(f"Truss {version}", turns, [_beside(theirs, ("/",), sleep) for _ in range(rounds)])
    return rows


def _compared(name: str, busy: float, idle: float) -> Row:
    return Row(name, f"{busy:.3g} ms", busy / idle, f"idle, {idle:.3g} ms")


def _against(name: str, ours: list[Turn], theirs: list[Turn]) -> list[Row]:
    wait, their_wait = (max(max(turn.waits["/"]) for turn in turns) for turns in (ours, theirs))
    took, their_took = (statistics.median(turn.predicts for turn in turns) for turns in (ours, theirs))
    return [
        Row("/ beside them: slowest", f"{wait:.3g} ms", wait / their_wait, f"{name}, {their_wait:,.0f} ms"),
        Row(f"all {PREDICTS} predicts done", f"{took:.1f} s", took / their_took, f"{name}, {their_took:.1f} s"),
    ]


def _beside(server: Server, paths: tuple[str, ...], sleep: float) -> Turn:
    """What the paths take while the predicts, which sleep so many seconds, are in flight."""
    body = str(sleep).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    clients = [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(PREDICTS)]
    try:
        began = time.monotonic()
        for client in clients:
            client.sendall(head.encode() + body)
        time.sleep(BEGIN)
        waits = _waits(server, paths, sleep / 4)
        over = select.select(clients, [], [], 0)[0]
        if over and paths == PATHS:  # Truss's only answers then
            raise RuntimeError("a predict was over before the last health check was")
        for client in clients:
            if not (answer := client.recv(65536)).startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer[:500].decode(errors="replace"))
        return Turn(waits, time.monotonic() - began)
    finally:
        for client in clients:
            client.close()


def _waits(server: Server, paths: tuple[str, ...], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each question; the paths take turns on one connection."""
    found: dict[str, list[float]] = {path: [] for path in paths}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for path in paths:
            began = time.perf_counter()
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            found[path].append((time.perf_counter() - began) * 1000)
            if answer.status != 200:
                raise RuntimeError(f"{path} answered {answer.status}")
            time.sleep(PAUSE)
    connection.close()
    return found


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]
