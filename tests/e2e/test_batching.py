"""Batches with the real command: many clients at once, metrics, times, and workers that die in mid-batch."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gateway.testing import Gateway

Serve = Callable[..., Gateway]
CLIENTS, EACH = 64, 20
BATCHED = """
import threading
class Model:
    def __init__(self):
        self.lock = threading.Lock()

    def predict_batch(self, inputs):
        assert self.lock.acquire(blocking=False), "two batches at once"
        try:
            return [ValueError("odd") if each % 7 == 3 else {"got": each, "of": len(inputs)} for each in inputs]
        finally:
            self.lock.release()

    def embeddings_batch(self, inputs):
        return [[float(len(each["input"])), float(len(inputs))] for each in inputs]
"""
CONFIG = "runtime: {batch_size: 16, batch_delay: 2ms}\n"


def post(gateway: Gateway, path: str, body: Any, **headers: str) -> tuple[int, Any, Any]:
    request = urllib.request.Request(f"{gateway.url}{path}", json.dumps(body).encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response), response.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), error.headers


def samples(gateway: Gateway, name: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{gateway.url}/metrics", timeout=20) as response:
        families = text_string_to_metric_families(response.read().decode())
    return {
        sample.name.removeprefix(name) + sample.labels.get("le", ""): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith(name) and sample.labels.get("model") == "batched"
    }


def test_64_clients_share_batches_and_each_gets_its_own_answer(serve: Serve) -> None:
    gateway = serve({"batched": {"config.yaml": CONFIG, "model.py": BATCHED}})
    ready = threading.Barrier(CLIENTS)
    found: Counter[str] = Counter()

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=60)
        ready.wait()
        for turn in range(EACH):
            value = number * EACH + turn
            connection.request("POST", "/models/batched/predict", str(value))
            with connection.getresponse() as response:
                answer = json.load(response)
            if value % 7 == 3:
                found[f"error {response.status}"] += 1
            else:
                assert answer["got"] == value and 1 <= answer["of"] <= 16
                found["shared" if answer["of"] > 1 else "alone"] += 1
        connection.close()

    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(client, range(CLIENTS)))
    odd = sum(1 for value in range(CLIENTS * EACH) if value % 7 == 3)
    assert found["error 500"] == odd and found.total() == CLIENTS * EACH
    assert found["shared"] > found["alone"]
    sizes = samples(gateway, "gateway_batch_size")
    assert sizes["_sum"] == CLIENTS * EACH and sizes["_count"] < CLIENTS * EACH
    assert sizes["_bucket16.0"] == sizes["_count"]
    assert samples(gateway, "gateway_batch_wait_seconds")["_count"] == CLIENTS * EACH
    assert samples(gateway, "gateway_batch_isolations") == {"_total": 0.0}


def test_a_list_of_texts_is_divided_and_the_time_of_the_batches_is_told(serve: Serve) -> None:
    gateway = serve({"batched": {"config.yaml": CONFIG, "model.py": BATCHED}})
    texts = ["x" * (number % 50) for number in range(200)]
    status, answer, headers = post(gateway, "/v1/embeddings", {"input": texts})
    assert status == 200
    assert [row["embedding"][0] for row in answer["data"]] == [float(len(text)) for text in texts]
    assert max(row["embedding"][1] for row in answer["data"]) == 16
    times = dict(part.split(";dur=") for part in headers["server-timing"].split(", "))
    assert 0 <= float(times["batch"]) <= float(times["model"]) + 0.2
    _, _, headers = post(gateway, "/models/batched/predict", 1)
    assert "batch;dur=" in headers["server-timing"]


DYING = """
import os, pathlib, time
class Model:
    def predict_batch(self, inputs):
        if "die" in inputs:
            os.kill(os.getpid(), 9)
        if len(inputs) > 1:
            raise RuntimeError("not together")
        return inputs
"""


def test_a_kill_in_mid_batch_ends_all_its_calls_once_and_a_failed_batch_is_counted(serve: Serve) -> None:
    config = "runtime: {batch_size: 4, batch_delay: 60}\n"
    gateway = serve({"batched": {"config.yaml": config, "model.py": DYING}})
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda value: post(gateway, "/models/batched/predict", value), [1, 2, 3, 4]))
    assert [answer[:2] for answer in answers] == [(200, 1), (200, 2), (200, 3), (200, 4)]
    assert samples(gateway, "gateway_batch_isolations") == {"_total": 1.0}
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda value: post(gateway, "/models/batched/predict", value), ["die", 2, 3, 4]))
    assert [status for status, _, _ in answers] == [502] * 4
    assert {headers["x-should-retry"] for _, _, headers in answers} == {"false"}


SLOW = """
import asyncio
class Model:
    async def predict_batch(self, inputs):
        await asyncio.sleep(max(inputs))
        return inputs
"""


def test_a_time_limit_ends_one_call_of_a_batch_and_the_others_get_their_answers(serve: Serve, tmp_path: Path) -> None:
    config = "runtime: {batch_size: 2, batch_delay: 60}\n"
    (tmp_path / "gateway.toml").write_text("[models.batched]\ncancel_grace = 0.2\n")
    gateway = serve({"batched": {"config.yaml": config, "model.py": SLOW}})

    def ask(given: tuple[float, str]) -> tuple[int, Any, Any]:
        return post(gateway, "/models/batched/predict", given[0], **{"X-Request-Timeout": given[1]})

    with ThreadPoolExecutor(2) as threads:
        late, other = threads.map(ask, [(1.5, "0.5"), (0.0, "30")])
    assert late[0] == 504
    assert other[:2] == (200, 0.0)
