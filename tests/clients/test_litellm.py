"""LiteLLM as a library: chat, completions, embeddings, rerank of three providers, Anthropic's provider, errors."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import litellm
import pytest

from .asking import (
    ANSWER,
    CALLED,
    PATIENCE,
    QUESTION,
    REPORT,
    SUM,
    THINK,
    THOUGHT,
    TINY,
    TOLD,
    TOOLS,
    TOTAL,
    WEATHER,
    script,
    steps,
    user,
    wait_for,
)

LIMITS = {
    "max_retries": 0,
    "max_tokens": 200,
}  # to Anthropic's API it asks for 4096 unless told, too many for tiny-chat
DOCUMENTS = ["Berlin lies on the Spree.", "Paris is the capital of France.", "Cats sleep a lot."]


@pytest.fixture(params=["openai", "hosted_vllm", "litellm_proxy", "anthropic"])
def asked(request: pytest.FixtureRequest, url: str, key: str) -> dict[str, Any]:
    """What a call needs to reach the gateway, for each provider that may point to it."""
    return to(request.param, url, key)


def to(provider: str, url: str, key: str) -> dict[str, Any]:
    base = url if provider == "anthropic" else f"{url}/v1"
    return {"provider": provider, "api_base": base, "api_key": key, "timeout": PATIENCE}


def ask(where: dict[str, Any], model: str, messages: list[Any], **fields: Any) -> Any:
    provider, rest = where["provider"], {name: value for name, value in where.items() if name != "provider"}
    return litellm.completion(model=f"{provider}/{model}", messages=messages, **{**LIMITS, **rest, **fields})


def added_up(where: dict[str, Any], model: str, messages: list[Any], **fields: Any) -> Any:
    chunks = list(ask(where, model, messages, stream=True, stream_options={"include_usage": True}, **fields))
    return litellm.stream_chunk_builder(chunks, messages=messages)


WAYS = pytest.mark.parametrize("way", [ask, added_up])


@WAYS
def test_chat_is_the_same_streamed_and_whole(asked: dict[str, Any], way: Any) -> None:
    answer = way(asked, TINY, user(QUESTION))
    choice = answer.choices[0]
    assert (choice.message.content, choice.message.role, choice.finish_reason) == (ANSWER, "assistant", "stop")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


@WAYS
def test_a_call_and_its_result_come_to_the_answer(asked: dict[str, Any], way: Any) -> None:
    messages = user(WEATHER)
    first = way(asked, TINY, messages, tools=TOOLS).choices[0]
    call = first.message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == CALLED
    assert first.finish_reason == "tool_calls"
    said = {**first.message.model_dump(), "content": None}  # for "" it would put words of its own into Anthropic's
    messages = [*messages, said, {"role": "tool", "tool_call_id": call.id, "content": REPORT}]
    assert way(asked, TINY, messages, tools=TOOLS).choices[0].message.content == TOLD


@WAYS
def test_a_tool_can_be_named(asked: dict[str, Any], way: Any) -> None:
    choice = {"type": "function", "function": {"name": "get_time"}}
    message = way(asked, TINY, user(WEATHER), tools=TOOLS, tool_choice=choice).choices[0].message
    assert [call.function.name for call in message.tool_calls] == ["get_time"]


@WAYS
def test_thoughts_are_reasoning_content(url: str, key: str, way: Any) -> None:
    for provider in ("openai", "hosted_vllm"):
        message = way(to(provider, url, key), TINY, user(SUM), extra_body=THINK).choices[0].message
        assert (message.reasoning_content, message.content) == (THOUGHT, TOTAL)
    fields = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "allowed_openai_params": ["thinking"]}
    message = way(to("anthropic", url, key), TINY, user(SUM), **fields).choices[0].message
    assert (message.reasoning_content, message.content) == (THOUGHT, TOTAL)


def test_an_async_call_streams(asked: dict[str, Any]) -> None:
    async def run() -> str:
        rest = {name: value for name, value in asked.items() if name != "provider"}
        model = f"{asked['provider']}/{TINY}"
        stream = await litellm.acompletion(model=model, messages=user(QUESTION), stream=True, **LIMITS, **rest)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(run()) == ANSWER


def test_an_answer_of_a_given_form_is_asked_for(url: str, key: str) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": {"type": "object"}, "strict": True}}
    answer = ask(to("openai", url, key), "script", script(["show", "response_format"]), response_format=form)
    assert json.loads(answer.choices[0].message.content) == {"response_format": form}


def test_a_prompt_is_completed(url: str, key: str) -> None:
    base: dict[str, Any] = {"api_base": f"{url}/v1", "api_key": key}
    answer = litellm.text_completion(model="text-completion-openai/script", prompt=steps("one ", "two"), **base)
    assert answer.choices[0].text == "one two"
    pieces = litellm.text_completion(
        model="text-completion-openai/script", prompt=steps("one ", "two"), stream=True, **base
    )
    assert "".join(piece.choices[0].text or "" for piece in pieces) == "one two"


def test_texts_are_embedded(url: str, key: str) -> None:
    for provider in ("openai", "hosted_vllm"):
        answer = litellm.embedding(
            model=f"{provider}/minilm", input=["a cat", "a dog"], api_base=f"{url}/v1", api_key=key
        )
        assert [len(one["embedding"]) for one in answer.data] == [384, 384] and answer.usage.prompt_tokens > 0


@pytest.mark.parametrize("model", ["minilm", "script"])
@pytest.mark.parametrize(("provider", "path"), [("hosted_vllm", ""), ("cohere", "/v2/rerank"), ("jina_ai", "")])
def test_documents_are_ranked_for_each_provider(url: str, key: str, provider: str, path: str, model: str) -> None:
    answer = litellm.rerank(
        model=f"{provider}/{model}",
        query="What is the capital of France?",
        documents=DOCUMENTS,
        top_n=2,
        api_base=f"{url}{path}",
        api_key=key,
    )
    assert answer.results[0]["index"] == 1 and len(answer.results) == 2
    scores = [result["relevance_score"] for result in answer.results]
    assert scores == sorted(scores, reverse=True)
    if provider != "cohere":  # the only one that does not ask for them
        assert answer.results[0]["document"]["text"] == DOCUMENTS[1]


def test_sounds_pictures_and_judgements(url: str, key: str) -> None:
    asked: dict[str, Any] = {"model": "openai/studio", "api_base": f"{url}/v1", "api_key": key}
    heard = litellm.transcription(file=("greeting.wav", b"good morning"), **asked)
    assert heard.text.strip() == "good morning"
    assert litellm.speech(input="good morning", voice="alloy", **asked).content == b"goodmorning"
    painted = litellm.image_generation(prompt="a dot", **asked)
    assert base64.b64decode(painted.data[0].b64_json) == b"a dot"
    judged = litellm.moderation(input="a fight", **{**asked, "model": "studio"})
    assert judged.results[0].flagged


def test_responses_are_passed_on(url: str, key: str) -> None:
    asked: dict[str, Any] = {"model": f"openai/{TINY}", "api_base": f"{url}/v1", "api_key": key, "input": QUESTION}
    assert litellm.responses(**asked).output[-1].content[0].text == ANSWER
    pieces = [event.delta for event in litellm.responses(**asked, stream=True) if "output_text.delta" in event.type]
    assert "".join(pieces) == ANSWER


def test_messages_are_passed_on(url: str, key: str) -> None:
    async def run() -> Any:
        return await litellm.anthropic.messages.acreate(
            model=f"anthropic/{TINY}", messages=user(QUESTION), max_tokens=100, api_base=url, api_key=key
        )

    assert asyncio.run(run())["content"][0]["text"] == ANSWER


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "anthropic"])
def test_each_mistake_has_its_class(url: str, key: str, provider: str, stream: bool) -> None:
    where = to(provider, url, key)
    overloaded = litellm.InternalServerError if provider == "anthropic" else litellm.ServiceUnavailableError
    wrong: list[tuple[str, list[Any], type[Exception]]] = [
        ("nobody", user("x"), litellm.NotFoundError),
        ("script", script(["raise", 400, "no"]), litellm.BadRequestError),
        (TINY, user("long " * 3000), litellm.ContextWindowExceededError),
        ("script", script(["raise", 429, "no"]), litellm.RateLimitError),
        ("script", script(["boom"]), litellm.InternalServerError),
        ("script", script(["raise", 503, "no"]), overloaded),
        ("broken", user("x"), litellm.ServiceUnavailableError),
        ("hasty", script(["wait", "/nowhere"]), litellm.Timeout),
    ]
    for model, messages, kind in wrong:
        with pytest.raises(kind):
            ask(where, model, messages, stream=stream)
    with pytest.raises(litellm.AuthenticationError):
        ask({**where, "api_key": "sk-other"}, TINY, user("x"), stream=stream)


def test_an_error_within_a_stream_raises_while_reading(asked: dict[str, Any]) -> None:
    seen = ""
    with pytest.raises(litellm.exceptions.MidStreamFallbackError, match="raised an error; `gateway logs "):
        for chunk in ask(asked, "script", script("so far ", ["boom"]), stream=True):
            seen += chunk.choices[0].delta.content or ""
    assert seen == "so far "


def test_what_may_pass_is_tried_again_until_it_does(url: str, key: str, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    messages = script(["fail", str(calls), 2], "at last")
    answer = ask(to("openai", url, key), "script", messages, max_retries=2)
    assert answer.choices[0].message.content == "at last" and len(calls.read_text().splitlines()) == 3


def test_a_router_goes_elsewhere_when_a_model_is_down(url: str, key: str) -> None:
    router = litellm.Router(
        model_list=[
            {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_base": f"{url}/v1", "api_key": key}}
            for name in ("broken", TINY)
        ],
        fallbacks=[{"broken": [TINY]}],
        num_retries=0,
    )
    assert router.completion(model="broken", messages=user(QUESTION)).choices[0].message.content == ANSWER


def test_a_stream_that_nobody_reads_on_ends_the_models_code(url: str, key: str, tmp_path: Path) -> None:
    left = tmp_path / "left"

    async def run() -> None:
        rest = {name: value for name, value in to("openai", url, key).items() if name != "provider"}
        messages = script(["finally", str(left)], "x", ["wait", "/nowhere"])
        stream = await litellm.acompletion(model="openai/script", messages=messages, stream=True, **rest)
        await anext(stream)
        await stream.aclose()
        await asyncio.to_thread(wait_for, left)

    asyncio.run(run())
