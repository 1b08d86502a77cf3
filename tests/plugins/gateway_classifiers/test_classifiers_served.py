"""Classifiers and cross encoders over HTTP: directories of weights become routes, and small requests share batches."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
from classifier_folders import save, texts
from openai import OpenAI

from gateway.testing import Gateway


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Path]]:
    root = tmp_path_factory.mktemp("models")
    save(root / "mood")
    save(root / "ranker", labels=1)
    with Gateway(root, timeout=200) as gateway:
        yield gateway, root


def post(gateway: Gateway, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(f"{gateway.url}{path}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_classify_answers_as_the_pipeline(served: tuple[Gateway, Path]) -> None:
    from transformers import pipeline

    gateway, root = served
    inputs = [text for text in texts() if "\x00" not in text]
    status, answer = post(gateway, "/v1/classify", {"model": "mood", "input": inputs, "truncate": True})
    assert status == 200
    classify = pipeline("text-classification", model=str(root / "mood"), device="cpu", top_k=None, truncation=True)
    for found, wanted in zip(answer["data"], classify(inputs), strict=True):
        scores = {each["label"]: each["score"] for each in wanted}
        assert found["label"] == wanted[0]["label"] and found["num_classes"] == 2
        assert (
            max(abs(one - scores[name]) for one, name in zip(found["probs"], ("negative", "positive"), strict=True))
            < 1e-5
        )
    status, answer = post(gateway, "/v1/rerank", {"model": "mood", "query": "a", "documents": ["b"]})
    assert (status, answer["error"]["code"]) == (404, "route_not_supported")


def test_rerank_and_score_answer_as_the_cross_encoder(served: tuple[Gateway, Path]) -> None:
    cross = pytest.importorskip("sentence_transformers").CrossEncoder
    gateway, root = served
    documents = texts(60)
    wanted = cross(str(root / "ranker"), device="cpu").predict([("good film", document) for document in documents])
    body = {"model": "ranker", "query": "good film", "documents": documents, "truncate": True}
    status, answer = post(gateway, "/v1/rerank", body)
    assert status == 200 and len(answer["results"]) == 60
    assert all(abs(each["relevance_score"] - wanted[each["index"]]) < 1e-5 for each in answer["results"])
    body = {"model": "ranker", "text_1": "good film", "text_2": documents, "truncate": True}
    status, answer = post(gateway, "/v1/score", body)
    assert status == 200
    assert all(abs(each["score"] - wanted[each["index"]]) < 1e-5 for each in answer["data"])
    status, answer = post(
        gateway, "/v1/rerank", {**body, "query": "a", "documents": ["b", "c " * 99], "truncate": False}
    )
    assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
    assert post(gateway, "/v1/classify", {"model": "ranker", "input": "a"})[0] == 404


def test_decisions_are_made_of_the_labels(served: tuple[Gateway, Path]) -> None:
    gateway, _ = served
    client = OpenAI(base_url=f"{gateway.url}/v1", api_key="unused")
    choices: Any = [{"value": "positive"}, {"value": "negative"}]
    questions: Any = [
        {"type": "choice", "instructions": "Its tone.", "choices": choices},
        {"type": "predicate", "instructions": "positive"},
    ]
    decision = client.decisions.create(model="mood", input="a good film", questions=questions)
    _, answer = post(gateway, "/v1/classify", {"model": "mood", "input": "a good film"})
    negative, positive = answer["data"][0]["probs"]
    choice, predicate = decision.answers
    assert choice.choice == ("positive" if positive > negative else "negative")
    assert predicate.probability == pytest.approx(positive, abs=1e-6)


def test_small_requests_share_batches(served: tuple[Gateway, Path]) -> None:
    gateway, _ = served
    inputs = [text for text in texts(64, seed=5) if "\x00" not in text]
    _, whole = post(gateway, "/v1/classify", {"model": "mood", "input": inputs, "truncate": True})
    with ThreadPoolExecutor(16) as pool:
        bodies = [{"model": "mood", "input": text, "truncate": True} for text in inputs]
        answers = list(pool.map(lambda body: post(gateway, "/v1/classify", body), bodies))
    for (status, answer), wanted in zip(answers, whole["data"], strict=True):
        assert status == 200 and answer["data"][0]["probs"] == pytest.approx(wanted["probs"], abs=1e-5)
    with urllib.request.urlopen(f"{gateway.url}/metrics") as metrics:
        text = metrics.read().decode()
    count = re.search(r'gateway_batch_size_count\{model="mood"\} (\S+)', text)
    total = re.search(r'gateway_batch_size_sum\{model="mood"\} (\S+)', text)
    assert count and total and float(total[1]) > float(count[1])
