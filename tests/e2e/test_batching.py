"""Batches with the real command: many clients at once, metrics, times, and workers that die in mid-batch."""

from __future__ import annotations

import http.client
import json
import threading
import time
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
import time
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


ROUTES = """
import numpy
from gateway import END
class Model:
    def embeddings_batch(self, inputs):
        return numpy.array([[len(each["input"]), 1, 2] for each in inputs], numpy.float32)

    def classify_batch(self, inputs):
        return [{"long": len(each["input"]) / 8, "short": 1 - len(each["input"]) / 8} for each in inputs]

    def rerank_batch(self, inputs):
        return numpy.array([float(each["query"] in each["document"]) for each in inputs])

    def score_batch(self, inputs):
        return [float(each["text_1"] == each["text_2"]) for each in inputs]

    def moderations_batch(self, inputs):
        return ["bad" in each["input"] for each in inputs]

    async def chat_completions_batch(self, inputs):
        words = [each["messages"][-1]["content"].split() for each in inputs]
        for step in range(max(map(len, words)) + 1):
            yield [each[step] + " " if step < len(each) else END for each in words]
"""


def test_the_routes_of_lists_and_chats_are_answered_in_batches(serve: Serve) -> None:
    gateway = serve({"batched": {"config.yaml": CONFIG, "model.py": ROUTES}})
    embedded = post(gateway, "/v1/embeddings", {"input": ["a", "bcd"], "encoding_format": "float"})[1]
    assert [row["embedding"] for row in embedded["data"]] == [[1, 1, 2], [3, 1, 2]]
    single = post(gateway, "/v1/embeddings", {"input": "abcd", "encoding_format": "base64"})[1]["data"]
    assert [len(row["embedding"]) for row in single] == [16]
    classes = post(gateway, "/v1/classify", {"input": ["longer", "no"]})[1]["data"]
    assert [each["label"] for each in classes] == ["long", "short"]
    ranked = post(gateway, "/v1/rerank", {"query": "cat", "documents": ["dog", "a cat", "cow"]})[1]["results"]
    assert (ranked[0]["index"], ranked[0]["relevance_score"]) == (1, 1.0) and len(ranked) == 3
    scores = post(gateway, "/v1/score", {"text_1": "a", "text_2": ["a", "b"]})[1]["data"]
    assert [each["score"] for each in scores] == [1.0, 0.0]
    judged = post(gateway, "/v1/moderations", {"input": ["bad thing", "fine"]})[1]["results"]
    assert [each["flagged"] for each in judged] == [True, False]
    chat = {"messages": [{"role": "user", "content": "one two three"}]}
    choices = post(gateway, "/v1/chat/completions", {**chat, "n": 3})[1]["choices"]
    assert [each["message"]["content"] for each in choices] == ["one two three "] * 3
    assert post(gateway, "/v1/messages", {**chat, "max_tokens": 9})[1]["content"][0]["text"] == "one two three "
    request = urllib.request.Request(
        f"{gateway.url}/v1/chat/completions", json.dumps({**chat, "stream": True}).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        events = [json.loads(line[6:]) for line in response if line.startswith(b"data: {")]
    told = "".join(each["choices"][0]["delta"].get("content") or "" for each in events if each["choices"])
    assert told == "one two three "
    assert samples(gateway, "gateway_batch_size")["_sum"] >= 2 + 1 + 2 + 3 + 2 + 2 + 3 + 1 + 1


def test_a_batch_that_does_not_stop_ends_its_worker_when_its_last_call_is_beyond_its_limit(
    serve: Serve, tmp_path: Path
) -> None:
    hangs = "import time\nclass Model:\n    def predict_batch(self, inputs):\n        time.sleep(600)\n"
    (tmp_path / "gateway.toml").write_text("[models.batched]\ncancel_grace = 0.2\n")
    config = "runtime: {batch_size: 2, batch_delay: 60}\n"
    gateway = serve({"batched": {"config.yaml": config, "model.py": hangs}})

    def ask(limit: str) -> tuple[int, Any, Any]:
        return post(gateway, "/models/batched/predict", 1, **{"X-Request-Timeout": limit})

    with ThreadPoolExecutor(2) as threads:
        began = time.monotonic()
        answers = list(threads.map(ask, ["0.3", "1.5"]))
    assert [status for status, _, _ in answers] == [504, 504]
    gateway.wait_for("beyond its time limit, is still running")
    assert time.monotonic() - began >= 1.5 + 0.2
