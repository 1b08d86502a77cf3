"""A chatty model: how long health checks wait while a model prints 32,000 lines, again and again.

Every line of a model is redacted, cleaned and written, and so many short ones come in one read. Ours is compared with
itself at rest.
"""

from __future__ import annotations

import http.client
import time

from .probe import probing
from .processes import Server, cpu_seconds, gateway
from .report import Row

LINES = 32_000
MODEL = {
    "chatty/model.py": f"""
class Model:
    def predict(self, x):
        print("x\\n" * {LINES}, end="", flush=True)
"""
}
PATH = "/livez"
LIMIT = 10.0  # milliseconds


def run(quick: bool) -> list[Row]:
    length = 4.0 if quick else 15.0
    with gateway(MODEL) as ours:
        with probing(ours.port, PATH) as idle:
            time.sleep(1.0)
        with probing(ours.port, PATH) as busy:
            began, used = time.monotonic(), cpu_seconds(ours.pid)
            rounds = _print(ours, length)
            seconds, used = time.monotonic() - began, cpu_seconds(ours.pid) - used
    return [
        Row(f"{PATH} beside {LINES} printed lines: p50 ≤ {LIMIT:g} ms", f"{busy.p50:.3g} ms", busy.p50 / LIMIT,
            f"{LIMIT:g} ms", busy.p50 <= LIMIT),
        _against("p50", busy.p50, idle.p50),
        _against("slowest", busy.slowest, idle.slowest),
        Row("CPU of the gateway for each line", f"{used / rounds / LINES * 1e6:.2g} µs"),
        Row("the model, to print them once", f"{seconds / rounds * 1e3:.3g} ms"),
    ]  # fmt: skip


def _against(what: str, busy: float, idle: float) -> Row:
    return Row(f"the same, {what}", f"{busy:.3g} ms", busy / idle, f"idle, {idle:.3g} ms")


def _print(server: Server, seconds: float) -> int:
    """How often it has printed them."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    until, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        rounds += 1
        connection.request("POST", "/models/chatty/predict", b"null")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"predict answered {answer.status}")
    connection.close()
    return rounds
