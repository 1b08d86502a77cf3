"""Directories of ten frameworks, served by one gateway, answer on every route as their libraries do."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from extras.ask import alike
from ten_frameworks import TEN, Ask, save_all

from gateway.testing import Gateway

MODULES = "sklearn xgboost lightgbm onnx onnxruntime transformers sentence_transformers spacy fasttext diffusers torch"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, dict[str, list[Ask]]]]:
    for module in MODULES.split():
        pytest.importorskip(module)
    root = tmp_path_factory.mktemp("ten")
    asks = save_all(root)
    with Gateway(root, timeout=350) as gateway:
        yield gateway, asks


def post(gateway: Gateway, ask: Ask) -> tuple[int, Any]:
    request = urllib.request.Request(f"{gateway.url}{ask.path}", json.dumps(ask.body).encode())
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_all_of_them_answer_at_once_as_their_libraries(served: tuple[Gateway, dict[str, list[Ask]]]) -> None:
    gateway, asks = served
    every = [ask for each in asks.values() for ask in each]
    with ThreadPoolExecutor(len(TEN)) as pool:
        for ask, (status, answer) in zip(every, pool.map(lambda ask: post(gateway, ask), every), strict=True):
            assert status == 200, f"{ask.path} {ask.body}: {answer}"
            assert alike(answer, ask.wanted), f"{ask.path}: {answer} is not {ask.wanted}"


def test_every_route_that_they_serve_is_among_the_requests(served: tuple[Gateway, dict[str, list[Ask]]]) -> None:
    gateway, asks = served
    with urllib.request.urlopen(f"{gateway.url}/v1/models", timeout=20) as answer:
        models = {model["id"]: model["capabilities"]["routes"] for model in json.load(answer)["data"]}
    assert models.keys() == TEN.keys()
    for name, routes in models.items():
        of_tokens = {path for path in routes if "token" in path}  # of any model with a tokenizer
        assert set(routes) - of_tokens <= {ask.path for ask in asks[name]}, name
