"""The openai SDK's completions against the real command: a class's own method, one derived from chat, a real model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.testing import Gateway

from .conftest import write_models
from .scripted import COMMON

OWN = (
    COMMON
    + """
class Model:
    def completions(self, inputs):
        if "steps" in inputs:
            yield from play(inputs)
            return {"usage": {"prompt_tokens": 2, "completion_tokens": 5}}
        for word in (str(inputs["prompt"]), " n=", str(inputs.get("n")), " seed=", str(inputs.get("seed"))):
            yield word
"""
)
WIDE = """
class Model:
    capabilities = {"supports_n": True}

    async def completions(self, inputs):
        texts = [f"{inputs['prompt']}-{index}" for index in range(inputs["n"])]
        return {"choices": [{"index": index, "text": text} for index, text in enumerate(texts)]}
"""
CHAT = """
class Model:
    async def chat_completions(self, inputs):
        [message] = inputs["messages"]
        if inputs.get("raw"):
            yield 'data: {"choices":[{"delta":{"content":"from SSE"},"finish_reason":"stop"}]}\\n\\n'
            return
        yield message["role"] + ": "
        yield message["content"]
"""
BY_HAND = """
from starlette.responses import PlainTextResponse

class Model:
    def completions(self, inputs):
        if inputs.get("stream"):
            return iter(['data: {"mine": 1}\\n\\n', 'data: [DONE]'])
        return PlainTextResponse("made by hand", 207)
"""
MODELS = {"own": OWN, "wide": WIDE, "derived": CHAT, "chat-only": CHAT, "by-hand": BY_HAND, "narrow": OWN}
SETTINGS = """
[models.own]
slots = 2
[models.narrow]
slots = 1
max_queue = 2
[models.derived]
slots = 4
derive = ["completions"]
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    root: Path = tmp_path_factory.mktemp("gateway")
    write_models(root / "models", {name: {"model.py": text} for name, text in MODELS.items()})
    (root / "gateway.toml").write_text(SETTINGS)
    with Gateway(root / "models", cwd=root) as running:
        yield running


def texts(stream: Any) -> dict[int, str]:
    found: dict[int, str] = {}
    for chunk in stream:
        for choice in chunk.choices:
            found[choice.index] = found.get(choice.index, "") + choice.text
    return found


def test_a_completion_is_what_the_method_yields(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="own", prompt="", extra_body={"steps": ["one ", {"text": "two"}]})
    [choice] = answer.choices
    assert (choice.text, choice.finish_reason, choice.index) == ("one two", "stop", 0)
    assert answer.usage is not None and answer.usage.total_tokens == 7
    assert (answer.object, answer.model, answer.id[:5]) == ("text_completion", "own", "cmpl-")


def test_a_stream_comes_in_pieces_with_usage_at_its_end(client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model="own",
        prompt="",
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"steps": ["a", {"text": "b", "finish_reason": "length"}]},
    )
    *chunks, usage = list(stream)
    assert [(chunk.choices[0].text, chunk.choices[0].finish_reason) for chunk in chunks] == [
        ("a", None),
        ("b", None),
        ("", "length"),
    ]
    assert usage.choices == [] and usage.usage is not None and usage.usage.completion_tokens == 5


@pytest.mark.parametrize("stream", [True, False])
def test_every_prompt_has_n_choices_of_its_own(client: openai.OpenAI, stream: bool) -> None:
    answer: Any = client.completions.create(model="own", prompt=["x", "y"], n=2, seed=5, stream=stream)
    found = texts(answer) if stream else {choice.index: choice.text for choice in answer.choices}
    assert found == {0: "x n=1 seed=5", 1: "x n=1 seed=6", 2: "y n=1 seed=5", 3: "y n=1 seed=6"}


@pytest.mark.parametrize(("prompt", "shown"), [([1, 2], ["[1, 2]"]), ([[1], [2, 3]], ["[1]", "[2, 3]"])])
def test_token_ids_reach_the_method_as_they_are(client: openai.OpenAI, prompt: Any, shown: list[str]) -> None:
    answer = client.completions.create(model="own", prompt=prompt)
    assert [choice.text.partition(" n=")[0] for choice in answer.choices] == shown


def test_more_prompts_than_slots_wait_for_each_other(client: openai.OpenAI) -> None:
    words = [f"{number} " for number in range(150)]
    stream = client.completions.create(model="own", prompt=["p"] * 8, stream=True, extra_body={"steps": words})
    assert texts(stream) == dict.fromkeys(range(8), "".join(words))


def test_prompts_are_admitted_all_or_none(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="4 calls of model 'narrow', which takes 3 at once"):
        client.completions.create(model="narrow", prompt=["a", "b", "c", "d"])
    assert len(client.completions.create(model="narrow", prompt=["a", "b", "c"]).choices) == 3


def test_a_class_that_supports_n_answers_each_prompt_with_one_call(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="wide", prompt=["x", "y"], n=2)
    assert [choice.text for choice in answer.choices] == ["x-0", "x-1", "y-0", "y-1"]


def test_a_response_and_sse_of_the_methods_own_are_passed_on(client: openai.OpenAI) -> None:
    answer = client.completions.with_raw_response.create(model="by-hand", prompt="x")
    assert (answer.http_response.status_code, answer.http_response.text) == (207, "made by hand")
    raw = client.completions.with_raw_response.create(model="by-hand", prompt="x", stream=True)
    assert raw.http_response.read() == b'data: {"mine": 1}\n\ndata: [DONE]\n\n'


def test_a_response_is_none_of_several_choices(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="Response"):
        client.completions.create(model="by-hand", prompt=["x", "y"])


def test_chat_answers_where_the_settings_say_so(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="derived", prompt=["hello", "again"], max_tokens=5)
    assert [choice.text for choice in answer.choices] == ["user: hello", "user: again"]
    stream = client.completions.create(model="derived", prompt="hello", stream=True)
    assert texts(stream) == {0: "user: hello"}
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="derived", prompt="hello", echo=True)
    assert (caught.value.code, caught.value.param) == ("unsupported_value", "echo")


@pytest.mark.parametrize("stream", [True, False])
def test_sse_of_the_chat_is_read_and_not_passed_on(client: openai.OpenAI, stream: bool) -> None:
    answer: Any = client.completions.create(model="derived", prompt="x", stream=stream, extra_body={"raw": True})
    assert (texts(answer) if stream else {0: answer.choices[0].text}) == {0: "from SSE"}


def test_nothing_is_derived_unasked(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="chat-only", prompt="x")
    assert caught.value.code == "route_not_supported" and "/v1/chat/completions" in caught.value.message


def test_a_failure_has_its_status_before_the_first_piece_and_an_event_after_it(client: openai.OpenAI) -> None:
    refusal = ["raise", "HTTPError", 418, "no tea"]
    with pytest.raises(openai.APIStatusError, match="no tea") as caught:
        client.completions.create(model="own", prompt="", stream=True, extra_body={"steps": [refusal]})
    assert caught.value.status_code == 418
    stream = client.completions.create(model="own", prompt="", stream=True, extra_body={"steps": ["a", refusal]})
    assert next(stream).choices[0].text == "a"
    with pytest.raises(openai.APIError, match="no tea"):
        list(stream)


def test_the_async_client_reads_the_same(gateway: Gateway) -> None:
    async def both() -> tuple[str, str]:
        url, steps = f"{gateway.url}/models/own/v1", {"steps": ["one ", "two"]}
        async with openai.AsyncOpenAI(base_url=url, api_key="unused", max_retries=0) as client:
            whole = await client.completions.create(model="own", prompt="", extra_body=steps)
            stream = await client.completions.create(model="own", prompt="", stream=True, extra_body=steps)
            return whole.choices[0].text, "".join([chunk.choices[0].text async for chunk in stream])

    assert asyncio.run(both()) == ("one two", "one two")


# ── a real model ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_language_model_completes_prompts_of_text_and_of_token_ids(demo: Gateway) -> None:
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="unused", max_retries=0) as client:
        asked: dict[str, Any] = {"model": "tiny-chat", "max_tokens": 4, "temperature": 0}
        both = client.completions.create(prompt=["The capital of", "Reykjavik is"], n=2, **asked)
        alone = [
            client.completions.create(prompt=text, **asked).choices[0].text
            for text in ("The capital of", "Reykjavik is")
        ]
        assert [choice.text for choice in both.choices] == [alone[0], alone[0], alone[1], alone[1]]
        stream = client.completions.create(prompt="The capital of", stream=True, **asked)
        assert texts(stream) == {0: alone[0]}
        tokens = client.completions.create(prompt=[5, 6, 7], **asked)
        assert tokens.usage is not None and tokens.usage.prompt_tokens == 3


@pytest.mark.slow
def test_the_likelihood_of_a_given_text_is_read_from_its_echo(demo: Gateway) -> None:
    """As evaluation harnesses ask for it."""
    with openai.OpenAI(base_url=f"{demo.url}/v1", api_key="unused", max_retries=0) as client:
        prompt = "The capital of Iceland"
        answer = client.completions.create(model="tiny-chat", prompt=prompt, echo=True, logprobs=1, max_tokens=1)
        [choice] = answer.choices
        assert choice.text.startswith(prompt) and choice.logprobs is not None
        tokens, offsets = choice.logprobs.tokens or [], choice.logprobs.text_offset or []
        scores = choice.logprobs.token_logprobs or []
        assert "".join(tokens) == choice.text
        assert [choice.text[at : at + len(token)] for at, token in zip(offsets, tokens, strict=True)] == tokens
        assert scores[0] is None and all(score <= 0 for score in scores[1:])
        rated = client.completions.create(
            model="tiny-chat", prompt=[[5, 6, 7], [8, 9]], echo=True, logprobs=1, max_tokens=0
        )
        sizes = [len(choice.logprobs.token_logprobs or []) for choice in rated.choices if choice.logprobs]
        assert sizes == [3, 2]
        assert rated.usage is not None and rated.usage.prompt_tokens == 5
