"""mosec over the same classes: python -m benchmarks.peers.mosec_server KIND --port PORT, in its own environment.

mosec has no slots: a worker takes one request at a time, or a batch of them. It has no async methods either.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy
from mosec import Server, SSEWorker, Worker  # type: ignore[import-not-found]

from .answers import BATCH, burn, computed, embeddings, rows
from .tables import NAMES, load

SLOTS, STREAMS = 64, 32


class Echo(Worker):  # type: ignore[misc]
    def forward(self, data: Any) -> Any:
        """What came, or with batches the list of what came."""
        return data


class Batch(Worker):  # type: ignore[misc]
    def forward(self, data: list[Any]) -> list[Any]:
        return computed(data)


class Lists(Worker):  # type: ignore[misc]
    def __init__(self) -> None:
        self.rows: Any = rows()

    def forward(self, data: Any) -> Any:
        return embeddings(self.rows, data)


class Numpy(Lists):
    def __init__(self) -> None:
        self.rows = numpy.array(rows(), numpy.float32)


class Stream(SSEWorker):  # type: ignore[misc]
    def forward(self, data: list[Any]) -> list[Any]:
        """The streams of a batch take turns; who comes later waits for the next batch."""
        for number in range(max(body["chunks"] for body in data)):
            for index, body in enumerate(data):
                if number < body["chunks"]:
                    self.send_stream_event("token", index)
        return data


class Table(Worker):  # type: ignore[misc]
    def __init__(self) -> None:
        self.predict = load(*os.environ["BENCH_TABLE"].split(":", 1))

    def forward(self, data: Any) -> Any:
        return {"probabilities": self.predict(data["inputs"])}


class Burn(Worker):  # type: ignore[misc]
    def forward(self, data: Any) -> Any:
        return burn(data["until"])


def main() -> None:
    kind = sys.argv.pop(1)  # the rest is for mosec, which reads it when it starts
    server = Server()
    if kind in ("async64", "sync64"):
        server.append_worker(Echo, max_batch_size=SLOTS, max_wait_time=1, route="/echo")
    elif kind == "batch":
        server.append_worker(Batch, max_batch_size=BATCH, max_wait_time=2, route="/echo")
    elif kind == "one":
        server.append_worker(Echo, route="/echo")
    elif kind in ("lists", "numpy"):
        server.append_worker({"lists": Lists, "numpy": Numpy}[kind], route="/v1/embeddings")
    elif kind == "stream":
        server.append_worker(Stream, max_batch_size=STREAMS, max_wait_time=1, route="/stream")
    elif kind == "neighbour":
        server.append_worker(Echo, route="/echo")
        server.append_worker(Burn, num=2, route="/burn")
    elif kind in NAMES:
        server.append_worker(Table, route="/table")
    server.run()


if __name__ == "__main__":
    main()
