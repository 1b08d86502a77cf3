"""A light model beside two calls that burn, in processes of their own."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..load import Load, Seen, drive
from ..processes import Server
from ..report import Row
from .answers import is_burnt, is_echo
from .asking import Question, ask
from .rounds import compared, in_turns, serving
from .sides import Side
from .unary import SMALL

BURNING, CONNECTIONS = 2, 4
BEGIN = 0.2  # seconds until the calls surely burn


def measure(sides: Sequence[Side], quick: bool) -> list[Row]:
    question = Question("neighbour", SMALL, is_echo)
    seconds = 1.5 if quick else 4.0

    def seen(side: Side, server: Server) -> Seen:
        with tempfile.TemporaryDirectory(prefix="peers-bench-") as place, ThreadPoolExecutor(BURNING) as threads:
            until = Path(place) / "enough"
            body = json.dumps({"until": str(until)})
            burners = [threads.submit(ask, server, side.paths["burn"], body) for _ in range(BURNING)]
            try:
                time.sleep(BEGIN)
                path = side.paths["neighbour"]
                light = drive(Load(port=server.port, path=path, body=SMALL, connections=CONNECTIONS, seconds=seconds))
                burnt = not any(burner.done() for burner in burners)
            finally:
                until.touch()
            for status, answer, _ in (burner.result() for burner in burners):
                if not burnt or status != 200 or not is_burnt(body, answer, None):
                    raise RuntimeError(f"{side.name} did not burn beside the load: {status}, {answer[:300]!r}")
        return light

    with serving(question, sides) as served:
        if len(served) < 2:
            return []
        turns = in_turns(served, 2 if quick else 5, seen)
    rows = []
    for peer, pairs in turns.items():
        told = f"light model beside {BURNING} that burn, {CONNECTIONS} connections: p99, ms"
        rows.append(compared(told, peer, pairs, lambda each: each.p99))
        rows.append(compared("  p50, ms", peer, pairs, lambda each: each.p50))
        rows.append(compared("  requests/s", peer, pairs, lambda each: each.rate))
    return rows
