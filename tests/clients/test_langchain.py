"""LangChain's ChatOpenAI and OpenAIEmbeddings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
import tiktoken
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

from .asking import ANSWER, CALLED, PATIENCE, QUESTION, REPORT, SUM, TINY, TOLD, WEATHER, steps, wait_for

BYTES = {bytes([number]): number for number in range(256)}


class Weather(pydantic.BaseModel):
    """The weather in a city."""

    city: str
    degrees: int


@tool
def get_weather(city: str) -> str:
    """Tells the weather in a city."""
    return REPORT


@pytest.fixture
def base(url: str, key: str) -> dict[str, Any]:
    return {"base_url": f"{url}/v1", "api_key": key, "max_retries": 0, "timeout": PATIENCE}


def test_a_model_is_invoked_and_streamed(base: dict[str, Any]) -> None:
    chat = ChatOpenAI(model=TINY, temperature=0, max_tokens=50, stream_usage=True, **base)  # type: ignore[call-arg]
    whole = chat.invoke([SystemMessage("Be brief."), HumanMessage(QUESTION)])
    assert whole.content == ANSWER and whole.response_metadata["finish_reason"] == "stop"
    chunks = list(chat.stream([SystemMessage("Be brief."), HumanMessage(QUESTION)]))
    added = sum(chunks[1:], chunks[0])
    assert isinstance(added, AIMessageChunk) and added.content == ANSWER and len(chunks) > 3
    for message in (whole, added):
        assert message.usage_metadata and message.usage_metadata["output_tokens"] > 0
        assert message.usage_metadata["total_tokens"] == whole.usage_metadata["total_tokens"]  # type: ignore[index]


def test_many_are_asked_at_once_and_async(base: dict[str, Any]) -> None:
    chat = ChatOpenAI(model="script", **base)
    assert [message.content for message in chat.batch([steps(word) for word in "abc"])] == ["a", "b", "c"]

    async def run() -> str:
        return "".join([str(chunk.content) async for chunk in chat.astream(steps("one ", "two"))])

    assert asyncio.run(run()) == "one two"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_call_and_its_result_come_to_the_answer(base: dict[str, Any], streaming: bool) -> None:
    chat = ChatOpenAI(model=TINY, temperature=0, streaming=streaming, **base).bind_tools([get_weather])
    first = chat.invoke(WEATHER)
    call = first.tool_calls[0]
    assert (call["name"], call["args"]) == CALLED
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert chat.invoke([HumanMessage(WEATHER), first, result]).content == TOLD


def test_a_tool_can_be_named_or_forbidden(base: dict[str, Any]) -> None:
    chat = ChatOpenAI(model=TINY, temperature=0, **base)
    named = chat.bind_tools([get_weather], tool_choice="get_weather").invoke("What time is it in Riga?")
    assert [call["name"] for call in named.tool_calls] == ["get_weather"]
    assert chat.bind_tools([get_weather], tool_choice="none").invoke(WEATHER).tool_calls == []
    assert chat.bind_tools([get_weather]).invoke(SUM).tool_calls == []


@pytest.mark.parametrize("streaming", [False, True])
def test_responses_call_tools_and_go_on_from_what_is_kept(base: dict[str, Any], streaming: bool) -> None:
    model = ChatOpenAI(
        model=TINY,
        temperature=0,
        streaming=streaming,
        use_responses_api=True,
        output_version="responses/v1",
        use_previous_response_id=True,
        **base,
    )
    chat = model.bind_tools([get_weather])
    first = chat.invoke(WEATHER)
    assert [(call["name"], call["args"]) for call in first.tool_calls] == [CALLED]
    result = get_weather.invoke(first.tool_calls[0])
    assert chat.invoke([HumanMessage(WEATHER), first, result]).text == TOLD


@pytest.mark.parametrize("method", ["json_schema", "json_mode", "function_calling"])
def test_an_answer_of_a_given_form_is_parsed(base: dict[str, Any], method: Any) -> None:
    arguments = {"city": "Oslo", "degrees": -3}
    text = '{"city": "Oslo", "degrees": -3}'
    answer = {"tool_calls": [{"name": "Weather", "arguments": arguments}]} if method == "function_calling" else text
    chat = ChatOpenAI(model="script", **base).with_structured_output(Weather, method=method)
    assert chat.invoke(steps(answer)) == Weather(**arguments)
    assert list(chat.stream(steps(answer)))[-1] == Weather(**arguments)


def test_what_the_model_has_left_is_said_by_name(base: dict[str, Any]) -> None:
    chat = ChatOpenAI(model=TINY, logprobs=True, **base)
    logprobs = chat.invoke(QUESTION).response_metadata["logprobs"]
    assert "".join(one["token"] for one in logprobs["content"]) == ANSWER


def test_a_prompt_is_completed(base: dict[str, Any]) -> None:
    model = OpenAI(model="script", **base)
    assert model.invoke(steps("one ", "two")) == "one two"
    assert "".join(model.stream(steps("one ", "two"))) == "one two"
    assert [one[0].text for one in model.generate([steps("a"), steps("b")]).generations] == ["a", "b"]


def test_texts_are_embedded_as_texts(base: dict[str, Any]) -> None:
    model = OpenAIEmbeddings(model="minilm", check_embedding_ctx_length=False, **base)
    vectors = model.embed_documents(["a cat", "a dog"])
    assert [len(vector) for vector in vectors] == [384, 384]
    assert model.embed_query("a cat") == pytest.approx(vectors[0], abs=1e-5)


def test_token_ids_of_another_vocabulary_are_refused_with_the_way_out(
    base: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What LangChain sends unless told otherwise; the vocabulary, which it would download, is played here."""
    vocabulary = tiktoken.Encoding("bytes", pat_str=".", mergeable_ranks=BYTES, special_tokens={})
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda name: vocabulary)
    model = OpenAIEmbeddings(model="minilm", **base)
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
        model.embed_documents(["a cat", "a dog"])


@pytest.mark.parametrize("streaming", [False, True])
def test_each_mistake_has_its_class(base: dict[str, Any], streaming: bool) -> None:
    wrong: list[tuple[str, str, type[Exception]]] = [
        ("nobody", "x", openai.NotFoundError),
        ("script", steps(["raise", 400, "no"]), openai.BadRequestError),
        (TINY, "long " * 3000, ContextOverflowError),
        ("script", steps(["raise", 429, "no"]), openai.RateLimitError),
        ("script", steps(["boom"]), openai.InternalServerError),
        ("broken", "x", openai.InternalServerError),
    ]
    for model, text, kind in wrong:
        with pytest.raises(kind):
            ChatOpenAI(model=model, streaming=streaming, **base).invoke(text)
    with pytest.raises(openai.AuthenticationError):
        ChatOpenAI(model=TINY, streaming=streaming, **{**base, "api_key": "sk-other"}).invoke("x")


def test_an_error_within_a_stream_raises_while_reading(base: dict[str, Any]) -> None:
    seen = ""
    with pytest.raises(openai.APIError):
        for chunk in ChatOpenAI(model="script", **base).stream(steps("so far ", ["boom"])):
            seen += str(chunk.content)
    assert seen == "so far "


def test_what_may_pass_is_tried_again_until_it_does(base: dict[str, Any], tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    chat = ChatOpenAI(model="script", **{**base, "max_retries": 2})
    assert chat.invoke(steps(["fail", str(calls), 2], "at last")).content == "at last"
    assert len(calls.read_text().splitlines()) == 3


def test_a_stream_that_nobody_reads_on_ends_the_models_code(base: dict[str, Any], tmp_path: Path) -> None:
    left = tmp_path / "left"
    stream = ChatOpenAI(model="script", **base).stream(steps(["finally", str(left)], "x", ["wait", "/nowhere"]))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    wait_for(left)
