"""Start: from the start of the command to the first answer of a plain model, and what all its processes compute for it.

A bare uvicorn app takes turns with it. What the gateway imports behind the first answer shows in the first request that
needs it.
"""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .processes import ROOT, cpu_of_all, end, free_port
from .report import Row, at_most

PLAIN = "class Model:\n    def predict(self, inputs):\n        return inputs\n"
PREDICT = "/v1/models/plain:predict"
LATER = "/readyz"  # answered by what is imported last
LIMIT = 0.40  # seconds, on a quiet machine
PAUSE = 0.005  # seconds between two tries
PATIENCE = 60.0  # seconds for one start


@dataclass(frozen=True, slots=True)
class Start:
    wall: float  # seconds to the first answer
    cpu: float  # of all processes, until then
    later: float  # what `LATER` took then


def run(quick: bool) -> list[Row]:
    ours, bare = [], []
    with tempfile.TemporaryDirectory(prefix="gateway-bench-") as name:
        place = Path(name)
        (place / "models" / "plain").mkdir(parents=True)
        (place / "models" / "plain" / "model.py").write_text(PLAIN)
        (place / "gateway.toml").write_text("")
        for _ in range(3 if quick else 21):
            port = free_port()
            ours.append(_start([*_GATEWAY, "--port", str(port)], port, PREDICT, place))
            port = free_port()
            bare.append(_start([*_BARE, str(port)], port, "/", ROOT))
    wall, cpu, later = (statistics.median(getattr(each, what) for each in ours) for what in ("wall", "cpu", "later"))
    their_wall, their_cpu = (statistics.median(getattr(each, what) for each in bare) for what in ("wall", "cpu"))
    return [
        at_most(f"start to the first predict ≤ {LIMIT:.2f} s", (each.wall for each in ours), LIMIT, "s"),
        Row("  beside a bare app", f"{wall:.2f} s", wall / their_wall, f"bare uvicorn, {their_wall:.2f} s"),
        Row("  CPU, gateway and worker", f"{cpu:.2f} s", cpu / their_cpu, f"bare uvicorn, {their_cpu:.2f} s"),
        Row(f"  {LATER} at that moment", f"{later * 1e3:.0f} ms"),
    ]


_GATEWAY = (sys.executable, "-m", "gateway", "serve", "--models", "models")
_BARE = (sys.executable, "-m", "benchmarks.floor", "echo")


def _start(command: Sequence[str], port: int, path: str, place: Path) -> Start:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # pip compiles what it installs; a checkout at its first start
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not _answers(port, "POST", path):
            if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                raise RuntimeError(f"{' '.join(command)} did not answer")
            time.sleep(PAUSE)
        wall, cpu = time.perf_counter() - began, cpu_of_all(process.pid)
        asked = time.perf_counter()
        _answers(port, "GET", LATER)
        return Start(wall, cpu, time.perf_counter() - asked)
    finally:
        end(process)


def _answers(port: int, verb: str, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(verb, path, body=b"{}" if verb == "POST" else None)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
