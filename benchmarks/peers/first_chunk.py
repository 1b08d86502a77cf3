"""The first chunk of a stream while twenty others come as fast as they can, and how many chunks these get through."""

from __future__ import annotations

import http.client
import json
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..load import Load, Seen, drive
from ..processes import Server
from ..report import Row
from .answers import is_stream
from .asking import PATIENCE, Question
from .rounds import compared, in_turns, serving
from .sides import Side

STREAMS, CHUNKS = 20, 200
BEGIN = 0.8  # seconds until all streams surely run
PAUSE = 0.01  # seconds between two first chunks
_ONE = json.dumps({"chunks": 1})


@dataclass(frozen=True, slots=True)
class Flooded:
    first: list[float]  # milliseconds to each first chunk
    chunks: float  # a second, of the flood

    @property
    def p50(self) -> float:
        return statistics.median(self.first)

    @property
    def p99(self) -> float:
        return sorted(self.first)[int(len(self.first) * 0.99)]


def measure(sides: Sequence[Side], quick: bool) -> list[Row]:
    body = json.dumps({"chunks": CHUNKS})
    seconds = 3.0 if quick else 6.0

    def seen(side: Side, server: Server) -> Flooded:
        path = side.paths["stream"]
        load = Load(port=server.port, path=path, body=body, connections=STREAMS, seconds=seconds)
        floods: list[Seen] = []
        flood = threading.Thread(target=lambda: floods.append(drive(load)))
        flood.start()
        time.sleep(BEGIN)
        first = []
        until = time.monotonic() + seconds - BEGIN
        while time.monotonic() < until and flood.is_alive():
            first.append(_first_chunk(server, path))
            time.sleep(PAUSE)
        flood.join()
        if not floods:
            raise RuntimeError(f"the streams of {side.name} failed; their error is above")
        return Flooded(first, floods[0].requests * CHUNKS / floods[0].seconds)

    with serving(Question("stream", body, is_stream), sides) as served:
        if len(served) < 2:
            return []
        turns = in_turns(served, 2 if quick else 5, seen)
    rows = []
    for peer, pairs in turns.items():
        rows.append(compared(f"first chunk beside {STREAMS} streams: p50, ms", peer, pairs, lambda each: each.p50))
        rows.append(compared("  p99, ms", peer, pairs, lambda each: each.p99))
        rows.append(compared("  chunks/s of the streams", peer, pairs, lambda each: each.chunks))
    return rows


def _first_chunk(server: Server, path: str) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    connection.connect()
    began = time.perf_counter()
    connection.request("POST", path, _ONE.encode(), {"content-type": "application/json"})
    answer = connection.getresponse()
    begun = answer.read(1)
    took = (time.perf_counter() - began) * 1000
    if answer.status != 200 or not is_stream(_ONE, begun + answer.read(), None):
        raise RuntimeError(f"a stream beside others was answered with {answer.status} or not in whole")
    connection.close()
    return took
