"""BentoML over the class with batches: bentoml serve benchmarks.peers.bentoml_server:Echo, in its own environment.

Its routes take and give the items of a batch as a list, also those of one request.
"""

from __future__ import annotations

from typing import Any

import bentoml  # type: ignore[import-not-found]

from .answers import BATCH, computed


@bentoml.service(workers=1, traffic={"timeout": 60})  # type: ignore[misc]
class Echo:
    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=10_000, route="/echo")  # type: ignore[misc]
    def echo(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return computed(inputs)
