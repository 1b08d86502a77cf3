"""Mistral's own client: chat, its word for a tool that must be called, vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from .asking import ANSWER, QUESTION, REPORT, TINY, TOLD, TOOLS, WEATHER, user


@pytest.fixture
def mistral(url: str, key: str) -> Iterator[Mistral]:
    with Mistral(api_key=key, server_url=url) as made:
        yield made


def test_an_answer_is_the_same_streamed_and_whole(mistral: Mistral) -> None:
    asked: dict[str, Any] = {"model": TINY, "messages": user(QUESTION), "temperature": 0}
    assert mistral.chat.complete(**asked).choices[0].message.content == ANSWER
    events = list(mistral.chat.stream(**asked))
    assert "".join(str(event.data.choices[0].delta.content or "") for event in events) == ANSWER
    assert events[-1].data.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("choice", ["auto", "any"])
def test_a_tool_is_called_and_its_result_is_told(mistral: Mistral, choice: Any) -> None:
    messages: list[Any] = user(WEATHER)
    asked: dict[str, Any] = {"model": TINY, "tools": TOOLS, "temperature": 0}
    said = mistral.chat.complete(**asked, messages=messages, tool_choice=choice).choices[0].message
    [call] = said.tool_calls
    assert call.function.name == "get_weather"
    result = {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": REPORT}
    told = mistral.chat.complete(**asked, messages=[*messages, said, result], tool_choice="auto")
    assert told.choices[0].message.content == TOLD


def test_vectors_have_an_id(mistral: Mistral) -> None:
    found = mistral.embeddings.create(model="minilm", inputs=["a cat", "a dog"])
    assert found.id and [len(one.embedding) for one in found.data] == [384, 384]


def test_a_wrong_key_is_an_error_with_our_words(url: str) -> None:
    with Mistral(api_key="sk-wrong", server_url=url) as wrong, pytest.raises(SDKError, match="Incorrect API key"):
        wrong.chat.complete(model=TINY, messages=user(QUESTION))
