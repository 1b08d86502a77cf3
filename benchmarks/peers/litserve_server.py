"""LitServe over the same classes: python -m benchmarks.peers.litserve_server KIND PORT, in its own environment.

LitServe has no slots: a worker takes one request at a time, a batch of them, or all of them when its method is async.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import litserve  # type: ignore[import-not-found]
import numpy

from .answers import BATCH, CHUNK, burn, computed, rows

SLOTS = 64


class Echo(litserve.LitAPI):  # type: ignore[misc]
    def predict(self, x: Any) -> Any:
        """What came, or with batches the list of what came."""
        return x


class Batch(litserve.LitAPI):  # type: ignore[misc]
    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def predict(self, inputs: list[Any]) -> list[Any]:
        return computed(inputs)

    def unbatch(self, outputs: list[Any]) -> list[Any]:
        return outputs


class AsyncEcho(litserve.LitAPI):  # type: ignore[misc]
    async def predict(self, x: Any) -> Any:
        return x


class Lists(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.rows: Any = rows()

    def predict(self, inputs: Any) -> Any:
        return self.rows


class Numpy(Lists):
    def setup(self, device: str) -> None:
        self.rows = numpy.array(rows(), numpy.float32)


class Stream(litserve.LitAPI):  # type: ignore[misc]
    async def predict(self, x: Any) -> AsyncIterator[str]:
        for _ in range(x["chunks"]):
            yield CHUNK
            await asyncio.sleep(0)  # its streams share a thread, and none would let the others in

    async def encode_response(self, output: AsyncIterator[str]) -> AsyncIterator[str]:
        async for chunk in output:
            yield chunk


class Burn(litserve.LitAPI):  # type: ignore[misc]
    def predict(self, x: Any) -> Any:
        return burn(x["until"])


def apis(kind: str) -> list[Any]:
    if kind == "async64":
        return [AsyncEcho(api_path="/echo", enable_async=True)]
    if kind == "sync64":
        return [Echo(api_path="/echo", max_batch_size=SLOTS, batch_timeout=0.001)]
    if kind == "batch":
        return [Batch(api_path="/echo", max_batch_size=BATCH, batch_timeout=0.002)]
    if kind in ("lists", "numpy"):
        return [{"lists": Lists, "numpy": Numpy}[kind](spec=litserve.OpenAIEmbeddingSpec())]
    if kind == "stream":
        return [Stream(api_path="/stream", stream=True, enable_async=True)]
    if kind == "neighbour":
        return [Echo(api_path="/echo"), Burn(api_path="/burn")]
    return [Echo(api_path="/echo")]


def main() -> None:
    kind, port = sys.argv[1:]
    served = apis(kind)
    workers = [2 if isinstance(api, Burn) else 1 for api in served]
    server = litserve.LitServer(served, accelerator="cpu", timeout=False, workers_per_device=workers)
    server.run(host="127.0.0.1", port=int(port), num_api_servers=1, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
