"""LlamaIndex: a chat model, a tool that is called, and vectors, as those that are like OpenAI's."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

from .asking import ANSWER, PATIENCE, QUESTION, REPORT, TINY, WEATHER


@pytest.fixture
def model(url: str, key: str) -> OpenAILike:
    return OpenAILike(
        model=TINY,
        api_base=f"{url}/v1",
        api_key=key,
        is_chat_model=True,
        is_function_calling_model=True,
        temperature=0,
        timeout=PATIENCE,
    )


def test_an_answer_is_the_same_streamed_and_whole(model: OpenAILike) -> None:
    asked: Any = [ChatMessage(role="user", content=QUESTION)]
    assert model.chat(asked).message.content == ANSWER
    assert "".join(piece.delta or "" for piece in model.stream_chat(asked)) == ANSWER
    assert model.complete(QUESTION).text == ANSWER


def test_a_tool_is_called(model: OpenAILike) -> None:
    def get_weather(city: str) -> str:
        """Tells the weather in a city."""
        return REPORT

    found = model.predict_and_call([FunctionTool.from_defaults(get_weather)], WEATHER)
    assert [source.raw_input["kwargs"] for source in found.sources] == [{"city": "Riga"}]
    assert str(found) == REPORT


def test_vectors_of_a_query_and_of_texts(url: str, key: str) -> None:
    embed = OpenAILikeEmbedding(model_name="minilm", api_base=f"{url}/v1", api_key=key)
    assert len(embed.get_query_embedding("a cat")) == 384
    assert [len(vector) for vector in embed.get_text_embedding_batch(["a cat", "a dog"])] == [384, 384]
