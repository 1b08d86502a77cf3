"""Cancel: how soon a model's code notices that its client has hung up.

The model writes down time.monotonic() in its `finally`, the client just before it closes; one machine, one clock.
"""

from __future__ import annotations

import http.client
import json
import socket
import statistics
import time

from .processes import Server, gateway
from .report import Row

BETWEEN_YIELDS = 0.001  # seconds that the sync generator computes between its yields; a part of what it takes
MODELS = {
    "task/model.py": """
import asyncio, time

class Model:
    def __init__(self):
        self.seen = []

    async def predict(self, body):
        if body.get("report"):
            return self.seen
        try:
            await asyncio.sleep(60)
        finally:
            self.seen.append(time.monotonic())
""",
    "agen/model.py": """
import asyncio, time

class Model:
    def __init__(self):
        self.seen = []

    async def predict(self, body):
        return self.seen

    async def chat_completions(self, body):
        try:
            while True:
                yield "token "
                await asyncio.sleep(0.01)
        finally:
            self.seen.append(time.monotonic())
""",
    "gen/model.py": f"""
import time

class Model:
    def __init__(self):
        self.seen = []

    def predict(self, body):
        return self.seen

    def chat_completions(self, body):
        try:
            while True:
                yield "token "
                time.sleep({BETWEEN_YIELDS})
        finally:
            self.seen.append(time.monotonic())
""",
}
LIMIT = 5.0  # milliseconds


def run(quick: bool) -> list[Row]:
    times = 10 if quick else 100
    kinds = {
        "async predict": ("task", "/models/task/predict"),
        "async generator": ("agen", "/v1/chat/completions"),
        f"sync generator, a yield every {BETWEEN_YIELDS * 1000:g} ms": ("gen", "/v1/chat/completions"),
    }
    rows = []
    slots = "".join(f"[models.{model}]\nslots = 4\n" for model, _ in kinds.values())
    with gateway(MODELS, slots) as ours:
        for kind, (model, path) in kinds.items():
            took = sorted(_delays(ours, model, path, times))
            p99 = took[int(len(took) * 0.99)]
            rows.append(
                Row(
                    f"client gone → {kind} sees it ≤ {LIMIT:g} ms",
                    f"p50 {statistics.median(took):.2f}, p99 {p99:.2f} ms",
                    p99 / LIMIT,
                    f"{LIMIT:g} ms",
                    p99 <= LIMIT,
                )
            )
    return rows


def _delays(ours: Server, model: str, path: str, times: int) -> list[float]:
    """Milliseconds from hanging up to the code's `finally`, in calls made one after the other."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Go on."}]}
    request = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(request)}\r\n\r\n".encode()
    gone = []
    for _ in range(times):
        with socket.create_connection(("127.0.0.1", ours.port), timeout=10) as client:
            client.sendall(head + request)
            if path.startswith("/v1/"):
                client.recv(65536)  # it streams
            time.sleep(0.02)
            gone.append(time.monotonic())
    time.sleep(0.2)
    seen = _report(ours, model)
    if len(seen) != len(gone):
        raise RuntimeError(f"{len(gone)} clients left, the code of '{model}' saw {len(seen)}")
    return [(there - here) * 1000 for here, there in zip(gone, seen, strict=True)]


def _report(ours: Server, model: str) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", ours.port, timeout=10)
    connection.request("POST", f"/models/{model}/predict", json.dumps({"report": True}))
    found: list[float] = json.loads(connection.getresponse().read())
    connection.close()
    return found
