"""Two thousand bodies for each plugin of texts, right and wrong ones, over HTTP: each is answered or refused, and the
models answer the same afterwards. Plugins whose files have a test with so many bodies of their own are not repeated.
"""

from __future__ import annotations

import copy
import json
import random
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("sentence_transformers")
from classifier_folders import save
from extras.ask import alike

from gateway.testing import Gateway

COUNT = 2000
ASKED = {"role": "user", "content": "a film"}
CHOICE = {"type": "choice", "instructions": "Its tone.", "choices": [{"value": "positive"}, {"value": "negative"}]}
NAMED = {
    "it": {"type": "choice", "criteria": {"positive": None, "negative": "bad"}},
    "b": {"type": "noul", "instructions": "positive"},
}
ASKS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "classifiers": [
        ("/v1/classify", {"model": "mood", "input": ["good film", "bad"], "truncate": True}),
        ("/v1/decisions", {"model": "mood", "input": "a film", "questions": [CHOICE]}),
        ("/v1/systemone", {"model": "mood", "state": {"text": "a film"}, "questions": NAMED}),
        ("/v1/rerank", {"model": "ranker", "query": "good", "documents": ["a", {"text": "b"}], "top_n": 1}),
        ("/v1/score", {"model": "ranker", "text_1": "good", "text_2": ["a", "b"], "truncate": False}),
    ],
    "sentence-transformers": [
        (
            "/v1/embeddings",
            {
                "model": "embedder",
                "input": ["a", "b c"],
                "dimensions": None,
                "encoding_format": "base64",
                "input_type": "query",
                "truncate": True,
                "normalize": True,
                "user": "u",
            },
        )
    ],
    "transformers": [
        (
            "/v1/chat/completions",
            {
                "model": "chat",
                "messages": [{"role": "system", "content": "be"}, ASKED],
                "max_tokens": 2,
                "temperature": 0.5,
                "top_p": 0.9,
                "seed": 1,
                "n": 1,
                "stop": ["x"],
                "logprobs": True,
                "top_logprobs": 2,
                "logit_bias": {"5": 1},
                "response_format": {"type": "text"},
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
                "tool_choice": "none",
            },
        ),
        ("/v1/completions", {"model": "chat", "prompt": ["a", "b"], "max_tokens": 1, "echo": True, "logprobs": 1}),
        ("/v1/tokenize", {"model": "chat", "messages": [ASKED], "add_generation_prompt": True}),
    ],
}
ODD: list[Any] = [None, True, False, 0, -1, 3, 0.5, 1e300, 10**30, "", "a", "\x00", "é\ud83d", "x " * 200, [], {}]
ODD += [[None], ["a", 5], {"a": {}}, [[1, 2]], {"text": 1}, {"type": "text", "text": "a"}, "auto", "none", "float"]


@pytest.fixture(scope="module")
def served(embedder: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root = tmp_path_factory.mktemp("models")
    save(root / "mood")
    save(root / "ranker", labels=1)
    (root / "embedder").symlink_to(embedder)
    (root / "chat").symlink_to(checkpoint)
    with Gateway(root, timeout=300) as gateway:
        yield gateway


def post(gateway: Gateway, path: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(f"{gateway.url}{path}", json.dumps(body).encode())
    try:
        with urllib.request.urlopen(request, timeout=200) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def changed(of: random.Random, good: dict[str, Any]) -> dict[str, Any]:
    """A body with up to three values replaced, removed or added, wherever they are."""
    body = copy.deepcopy(good)
    for _ in range(of.randrange(4)):
        place: Any = body
        while True:  # down to a value that is no container, or to any container on the way
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = of.choice(keys) if keys else "a" if isinstance(place, dict) else None
            inner = place[key] if key in keys else None
            if not isinstance(inner, dict | list) or of.random() < 0.3:
                break
            place = inner
        if key is None:
            place.append(of.choice(ODD))
        elif of.random() < 0.2 and key in keys:
            del place[key]
        elif of.random() < 0.1 and isinstance(place, dict):
            place[of.choice(["other", "stream", "options", "top_k"])] = of.choice(ODD)
        else:
            place[key] = copy.deepcopy(of.choice(ODD))
    return body


@pytest.mark.parametrize("plugin", ASKS)
def test_no_body_is_a_mistake_of_ours(plugin: str, served: Gateway) -> None:
    of = random.Random(plugin)
    asks = [of.choice(ASKS[plugin]) for _ in range(COUNT)]
    bodies = [(path, changed(of, good)) for path, good in asks]
    before = [_told(post(served, path, good)) for path, good in ASKS[plugin]]
    assert {status for status, _ in before} == {200}, before
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda ask: _status(served, *ask), bodies))
    wrong = [(ask, answer) for ask, answer in zip(bodies, found, strict=True) if answer[0] not in (200, 400, 404, 413)]
    assert wrong == []
    assert {status for status, _ in found} >= {200, 400}
    again = [_told(post(served, path, good)) for path, good in ASKS[plugin]]
    assert alike(again, before), f"{again} is not {before}"


def _status(gateway: Gateway, path: str, body: Any) -> tuple[int, Any]:
    if body.get("stream"):  # events, whose errors come after the status
        body["stream"] = None
    return post(gateway, path, body)


def _told(answer: tuple[int, Any]) -> list[Any]:
    """An answer without what is new in each: its usage counts tokens that were kept."""
    status, body = answer
    return [status, {key: value for key, value in body.items() if key not in ("id", "created", "usage")}]
