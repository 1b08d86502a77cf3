"""Requests as Open WebUI makes them, written down and not captured: the program itself is too large for a test."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from .asking import ANSWER, PATIENCE, QUESTION, TINY

HEADERS = {"Content-Type": "application/json", "X-OpenWebUI-User-Name": "Ada", "X-OpenWebUI-User-Role": "admin"}


@pytest.fixture
def web(url: str, key: str) -> httpx.Client:
    headers = {**HEADERS, "Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=f"{url}/v1", headers=headers, timeout=PATIENCE)


def test_a_connection_is_verified_by_the_list_of_models(web: httpx.Client) -> None:
    found = web.get("/models").json()
    assert {TINY, "minilm"} <= {model["id"] for model in found["data"]} and "error" not in found


def test_a_chat_is_streamed_with_its_usage(web: httpx.Client) -> None:
    body: dict[str, Any] = {
        "stream": True,
        "model": TINY,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream_options": {"include_usage": True},
        "temperature": 0,
    }
    with web.stream("POST", "/chat/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1]) == ANSWER
    assert chunks[-1]["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_title_is_asked_for_whole(web: httpx.Client, limit: str) -> None:
    body = {"model": TINY, "messages": [{"role": "user", "content": QUESTION}], "stream": False, limit: 100}
    assert web.post("/chat/completions", json={**body, "temperature": 0}).json()["choices"][0]["message"]["content"]


def test_documents_are_embedded(web: httpx.Client) -> None:
    found = web.post("/embeddings", json={"input": ["a cat", "a dog"], "model": "minilm"}).json()["data"]
    assert [len(one["embedding"]) for one in found] == [384, 384]


def test_a_wrong_key_is_shown_with_our_words(web: httpx.Client) -> None:
    answer = web.get("/models", headers={"Authorization": "Bearer sk-wrong"})
    assert answer.status_code == 401 and "Incorrect API key" in answer.json()["error"]["message"]
