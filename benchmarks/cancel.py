"""Cancel: how soon a model's code notices that its client has hung up.

The model writes down time.monotonic() in its `finally`, the client just before it closes; one machine, one clock. The
tail is the scheduler's as much as ours, so it is compared with that of a bare uvicorn app which waits for the same.
"""

from __future__ import annotations

import http.client
import json
import socket
import time

from .processes import Server, floor, gateway
from .report import Row, at_most

BETWEEN_YIELDS = 0.001  # seconds that the sync generator computes between its yields; a part of what it takes
MODELS = {
    "task/model.py": """
import asyncio, time

class Model:
    def __init__(self):
        self.seen = {}

    async def predict(self, body):
        if body.get("report"):
            return self.seen
        try:
            await asyncio.sleep(60)
        finally:
            self.seen[body["max_tokens"]] = time.monotonic()
""",
    "agen/model.py": """
import asyncio, time

class Model:
    def __init__(self):
        self.seen = {}

    async def predict(self, body):
        return self.seen

    async def chat_completions(self, body):
        try:
            while True:
                yield "token "
                await asyncio.sleep(0.01)
        finally:
            self.seen[body["max_tokens"]] = time.monotonic()
""",
    "gen/model.py": f"""
import time

class Model:
    def __init__(self):
        self.seen = {{}}

    def predict(self, body):
        return self.seen

    def chat_completions(self, body):
        try:
            while True:
                yield "token "
                time.sleep({BETWEEN_YIELDS})
        finally:
            self.seen[body["max_tokens"]] = time.monotonic()
""",
}
CHAT = "/v1/chat/completions"
LIMIT = 5.0  # milliseconds


BARE = "bare uvicorn"
KINDS = {
    BARE: ("", "/"),
    "async predict": ("task", "/models/task/predict"),
    "async generator": ("agen", CHAT),
    f"sync generator, a yield every {BETWEEN_YIELDS * 1000:g} ms": ("gen", CHAT),
}


def run(quick: bool) -> list[Row]:
    times, rounds = (10, 1) if quick else (50, 5)
    took: dict[str, list[float]] = {kind: [] for kind in KINDS}
    slots = "".join(f"[models.{model}]\nslots = 4\n" for model, _ in KINDS.values() if model)
    with gateway(MODELS, slots) as ours, floor("hangup") as bare:
        for first in range(1, times * rounds, times):
            for kind, (model, path) in KINDS.items():
                took[kind] += _delays(ours if model else bare, model, path, range(first, first + times))
    bare_p99 = _p99(took.pop(BARE))
    rows = []
    for kind, delays in took.items():
        rows.append(at_most(f"client gone → {kind} sees it ≤ {LIMIT:g} ms", delays, LIMIT, "ms"))
        rows.append(Row("  p99", f"{_p99(delays):.3g} ms", _p99(delays) / bare_p99, f"{BARE}, {bare_p99:.3g} ms"))
    return rows


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _delays(server: Server, model: str, path: str, numbers: range) -> list[float]:
    """Milliseconds from hanging up to the code's `finally`, in calls made one after the other."""
    gone = {}
    for number in numbers:
        body = {"model": model, "stream": True, "max_tokens": number, "messages": [{"role": "user", "content": "Go."}]}
        request = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(request)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(head + request)
            if path == CHAT:
                client.recv(65536)  # it streams
            time.sleep(0.02)
            gone[number] = time.monotonic()
    time.sleep(0.5)
    notes = _report(server, f"/models/{model}/predict" if model else path)
    seen = {number: notes[str(number)] for number in numbers if str(number) in notes}
    # Of a call whose client was gone before its code began, on a machine that busy, no code ever ran.
    if len(seen) < 0.9 * len(numbers):
        raise RuntimeError(f"{len(numbers)} clients left, the code of '{model}' saw {len(seen)}")
    return [(there - gone[number]) * 1000 for number, there in seen.items()]


def _report(ours: Server, path: str) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=10)
    connection.request("POST", path, json.dumps({"report": True}))
    found: dict[str, float] = json.loads(connection.getresponse().read())
    connection.close()
    return found
