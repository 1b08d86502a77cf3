"""Health checks from a process of their own, so that a busy load does not read as a slow server.

python -m benchmarks.probe '{"port": 8000, "path": "/livez"}'      until its stdin is closed; prints what it saw
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from .processes import ROOT

PAUSE = 0.01  # seconds between two questions
TIMEOUT = 30.0


@dataclass(slots=True, kw_only=True)
class Probed:
    """Milliseconds; `bad` are answers other than 200, and none at all."""

    count: int = 0
    bad: int = 0
    p50: float = 0.0
    p99: float = 0.0
    slowest: float = 0.0


@contextlib.contextmanager
def probing(port: int, path: str = "/livez") -> Iterator[Probed]:
    """Ask all through the block; what was seen is there when it has ended."""
    seen = Probed()
    command = [sys.executable, "-m", "benchmarks.probe", json.dumps({"port": port, "path": path})]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield seen
    finally:
        printed, _ = process.communicate(timeout=2 * TIMEOUT)
        for name, value in json.loads(printed).items():
            setattr(seen, name, value)


def _main(port: int, path: str) -> Probed:
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    waits: list[float] = []
    bad = 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    while not over.wait(PAUSE):
        began = time.perf_counter()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            bad += answer.status != 200
        except (OSError, http.client.HTTPException):
            connection.close()
            bad += 1
        waits.append((time.perf_counter() - began) * 1000)
    waits.sort()
    if not waits:
        return Probed()
    return Probed(
        count=len(waits),
        bad=bad,
        p50=waits[len(waits) // 2],
        p99=waits[int(len(waits) * 0.99)],
        slowest=waits[-1],
    )


if __name__ == "__main__":
    print(json.dumps(asdict(_main(**json.loads(sys.argv[1])))))
