"""Counts of tokens that no answer can have: whatever a model says, the scrape of all models can be written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text
from served import Model, Served
from test_scopes import Doors

from gateway.dialects import events
from gateway.dialects.anthropic import messages
from gateway.dialects.openai import completions
from gateway.dialects.responses import route
from gateway.dialects.scoring import rerank

Serve = Callable[..., Served]
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
HUGE = {"prompt_tokens": 1e308, "completion_tokens": 1e308, "total_tokens": 1e308}
ASKED = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "a b c"},
    "/v1/messages": {**CHAT, "max_tokens": 5},
    "/v1/responses": {"input": "a b c"},
    "/v1/embeddings": {"input": "a b c"},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
}
ROUTES = [completions, messages, route, rerank]


@pytest.fixture
def doors(serve: Serve, tmp_path: Path) -> Callable[..., Doors]:
    def make(models: dict[str, Model], *, plugins: list[Any] | None = None, **holders: dict[str, Any]) -> Doors:
        return Doors(partial(serve, plugins=plugins or []), tmp_path / "keys.toml", models=models, **holders)

    return make


def counts_hugely(**beside: Any) -> dict[str, Callable[[Any], Any]]:
    said = {"content": "a b c", "usage": HUGE, "created": 1e308}
    scores = {"scores": [0.5], "total_tokens": 1e308}
    vectors = {"embeddings": [[0.5]], "usage": HUGE}
    methods = dict.fromkeys(("chat_completions", "completions", "messages", "responses"), lambda inputs: said)
    return {**methods, "embeddings": lambda inputs: vectors, "rerank": lambda inputs: scores, **beside}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("number", [1e308, 2**63, -1, float("nan"), "9" * 400], ids=str)
def test_counts_that_no_answer_can_have_are_estimated_and_break_no_scrape(
    doors: Callable[..., Doors], path: str, number: Any
) -> None:
    liar = Model(counts_hugely(count_tokens=lambda inputs: {"input_tokens": number}))
    found = doors({"m": liar}, plugins=ROUTES, alice={}, ops={"scopes": ("metrics",)})
    for _ in range(2):
        answer = found.post("alice", path, {**ASKED[path], "model": "m"})
        assert answer.status == 200
        assert 0 < answer.json["usage"].get("prompt_tokens", answer.json["usage"].get("input_tokens")) < 10
    families = parse_text(found.get("ops", "/metrics").body.decode())
    samples = [sample for family in families for sample in family.samples]
    tokens = {sample.name: sample.value for sample in samples if sample.labels.get("model_name") == "m"}
    assert 0 < tokens["vllm:prompt_tokens_total"] < 20
    assert [sample.value < 20 for sample in samples if sample.name == "gateway_key_tokens_total"] == [True, True]


def test_a_sum_of_tokens_that_is_too_large_is_infinity_and_the_scrape_is_written(
    doors: Callable[..., Doors], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "whole_number", lambda value: value if value is None else int(value))
    found = doors({"m": Model(counts_hugely())}, alice={}, ops={"scopes": ("metrics",)})
    for _ in range(2):
        found.post("alice", "/v1/chat/completions", CHAT)
    text = found.get("ops", "/metrics").body.decode()
    assert 'gateway_key_tokens_total{key="alice",kind="prompt"} +Inf' in text
    assert 'vllm:prompt_tokens_total{engine="0",model_name="m"} +Inf' in text
