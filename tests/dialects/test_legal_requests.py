"""Whatever the parameter types of the official SDK allow is accepted, and reaches the Model as it was sent."""

from __future__ import annotations

import copy
import json
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming as ChatParams
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming as ChatStreamParams
from openai.types.completion_create_params import CompletionCreateParamsNonStreaming as CompletionParams
from openai.types.embedding_create_params import EmbeddingCreateParams as EmbeddingParams

from gateway.dialects.openai.chat import ChatDialect
from gateway.dialects.openai.chat_request import SCHEMA
from gateway.dialects.openai.completions import CompletionsDialect
from gateway.dialects.openai.embeddings import EmbeddingsDialect
from gateway.spec import Capabilities

from .legal import bodies, drawn_from, words

limits = st.none() | st.integers(1, 10**6)
tokens = st.lists(st.integers(0, 2**31), min_size=1, max_size=3)
texts = words | st.lists(words, min_size=1, max_size=3) | tokens | st.lists(tokens, min_size=1, max_size=3)
(message,) = get_args(get_type_hints(ChatParams)["messages"])

CHAT: dict[str, st.SearchStrategy[Any]] = {
    "messages": st.lists(drawn_from(message), min_size=1, max_size=3),
    "n": st.none() | st.integers(1, 16),
    "max_tokens": limits,
    "max_completion_tokens": limits,
}
TEXT: dict[str, st.SearchStrategy[Any]] = {
    "prompt": texts,
    "n": st.none() | st.integers(1, 4),
    "best_of": st.none() | st.integers(4, 20),
    "max_tokens": st.none() | st.integers(0, 10**6),
}
EMBEDDINGS: dict[str, st.SearchStrategy[Any]] = {"input": texts, "dimensions": st.integers(1, 4096)}
RENAMED = {"functions", "function_call", "tools", "tool_choice", "stop", "max_tokens", "max_completion_tokens"}


def sent(body: Any) -> dict[str, Any]:
    """The body as it comes off the wire."""
    return json.loads(json.dumps(body))  # type: ignore[no-any-return]


def check_passed(body: dict[str, Any], seen: dict[str, Any], but: set[str]) -> None:
    for name, value in body.items():
        if value is not None and name not in but:
            assert seen[name] == value


@given(bodies(ChatParams, CHAT) | bodies(ChatStreamParams, CHAT))
def test_any_legal_chat_request_is_accepted(body: dict[str, Any]) -> None:
    body = sent(body)
    if body.get("top_logprobs"):
        body["logprobs"] = True  # one needs the other
    if "functions" in body:
        body.pop("tools", None)  # the two names of one thing
    before = copy.deepcopy(body)
    prepared = ChatDialect().read(body, "chat_completions")
    assert body == before, "the caller's own dict was changed"
    assert (prepared.stream, prepared.n) == (bool(body.get("stream")), body.get("n") or 1)
    check_passed(body, prepared.inputs, RENAMED)
    assert None not in prepared.inputs.values()
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    assert prepared.inputs.get("max_tokens") == prepared.inputs.get("max_completion_tokens") == limit


@given(bodies(CompletionParams, TEXT))
def test_any_legal_completions_request_is_accepted(body: dict[str, Any]) -> None:
    body = sent(body)
    prepared = CompletionsDialect().read(body, "completions")
    for inputs in CompletionsDialect().calls(prepared, Capabilities(supports_n=True)):
        check_passed(body, inputs, {*RENAMED, "prompt", "best_of"})
        prompt = inputs["prompt"]
        assert isinstance(prompt, str) or all(type(token) is int for token in prompt)


@given(bodies(EmbeddingParams, EMBEDDINGS))
def test_any_legal_embeddings_request_is_accepted(body: dict[str, Any]) -> None:
    prepared = EmbeddingsDialect().read(sent(body), "embeddings")
    check_passed(body, prepared.inputs, {"input", "encoding_format"})
    assert isinstance(prepared.inputs["input"], list)


@pytest.mark.parametrize("name", sorted(SCHEMA["properties"]))
def test_every_field_that_is_checked_is_one_of_the_protocol(name: str) -> None:
    assert name in {*get_type_hints(ChatParams), "stream"}
