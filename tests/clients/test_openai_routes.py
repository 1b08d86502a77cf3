"""OpenAI's SDK on the other routes: embeddings, completions, models."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import openai
import pytest

from .asking import ANSWER, PATIENCE, QUESTION, TINY, steps

TEXTS = ["a cat", "a dog", "the price of oil"]


def test_vectors_are_the_same_in_base64_and_as_numbers(client: openai.OpenAI) -> None:
    for model, length in (("minilm", 384), ("script", 8)):
        packed = client.embeddings.create(model=model, input=TEXTS)
        plain = client.embeddings.create(model=model, input=TEXTS, encoding_format="float")
        assert [one.index for one in packed.data] == [0, 1, 2] and packed.usage.prompt_tokens > 0
        for one, other in zip(packed.data, plain.data, strict=True):
            assert len(one.embedding) == length and one.embedding == pytest.approx(other.embedding, abs=1e-6)


def test_what_means_the_same_lies_close(client: openai.OpenAI) -> None:
    cat, dog, oil = (one.embedding for one in client.embeddings.create(model="minilm", input=TEXTS).data)
    near, far = (sum(a * b for a, b in zip(cat, other, strict=True)) for other in (dog, oil))
    assert near > far


def test_an_async_client_embeds_one_text(url: str, key: str) -> None:
    async def run() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=PATIENCE) as client:
            return await client.embeddings.create(model="minilm", input="a cat")

    assert len(asyncio.run(run()).data) == 1


def test_token_ids_of_another_vocabulary_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length"):
        client.embeddings.create(model="script", input=[1, 2, 3])


def test_a_prompt_is_completed_streamed_and_whole(client: openai.OpenAI) -> None:
    prompt = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    asked: dict[str, Any] = {"model": TINY, "prompt": prompt, "temperature": 0, "max_tokens": 50}
    one = client.completions.create(**asked)
    pieces = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(piece.choices[0].text for piece in pieces if piece.choices)
    assert one.choices[0].text == text and text.endswith(ANSWER)
    assert one.usage and pieces[-1].usage and one.usage.total_tokens == pieces[-1].usage.total_tokens
    reasons = [piece.choices[0].finish_reason for piece in pieces if piece.choices]
    assert [reason for reason in reasons if reason] == [one.choices[0].finish_reason]


def test_completions_come_from_chat_where_the_settings_say_so(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="script", prompt=[steps("one"), steps("two")])
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "one"), (1, "two")]


def test_a_prompt_of_many_is_told_what_its_tokens_were_worth(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=TINY, prompt=[QUESTION, ANSWER], max_tokens=1, logprobs=1, echo=True)
    for choice, prompt in zip(answer.choices, (QUESTION, ANSWER), strict=True):
        assert choice.text.startswith(prompt) and choice.logprobs is not None
        ending = "<|im_end|>" if choice.finish_reason == "stop" else ""  # worth something, and no part of the text
        assert "".join(choice.logprobs.tokens or ()) == choice.text + ending
        assert (choice.logprobs.token_logprobs or ())[0] is None


def test_a_recording_is_heard_and_a_text_is_spoken(client: openai.OpenAI) -> None:
    recording = ("greeting.wav", b"good morning")
    hear = client.audio.transcriptions.create
    assert hear(model="studio", file=recording).text.strip() == "good morning"
    assert "00:00:01,000 --> 00:00:02,000" in hear(model="studio", file=recording, response_format="srt")
    events = list(hear(model="studio", file=recording, stream=True))
    assert [event.type for event in events] == [*["transcript.text.delta"] * 2, "transcript.text.done"]
    verbose = hear(
        model="studio", file=recording, response_format="verbose_json", timestamp_granularities=["segment", "word"]
    )
    assert [segment.start for segment in verbose.segments or ()] == [0, 1]
    asked: dict[str, Any] = {"model": "studio", "voice": "alloy", "input": "good morning"}
    assert client.audio.speech.create(**asked).content == b"goodmorning"
    with client.audio.speech.with_streaming_response.create(**asked, response_format="pcm") as spoken:
        assert b"".join(spoken.iter_bytes()) == b"goodmorning"


def test_an_image_is_painted_and_texts_are_judged(client: openai.OpenAI) -> None:
    painted = client.images.generate(model="studio", prompt="a dot", n=2, response_format="b64_json").data or ()
    assert [base64.b64decode(image.b64_json or "") for image in painted] == [b"a dot"] * 2
    judged = client.moderations.create(model="studio", input=["a fight", "a cat"]).results
    assert [result.flagged for result in judged] == [True, False]
    assert judged[0].categories.violence and judged[0].category_scores.violence == 0.9


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    ids = [model.id for model in client.models.list()]
    assert {TINY, "minilm", "script"} <= {*ids}
    assert client.models.retrieve(TINY).id == TINY
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


def test_a_base_url_of_one_model_needs_no_name(url: str, key: str) -> None:
    with openai.OpenAI(base_url=f"{url}/models/{TINY}/v1", api_key=key, max_retries=0, timeout=PATIENCE) as client:
        messages: list[Any] = [{"role": "user", "content": QUESTION}]
        assert client.chat.completions.create(model="gpt-4", messages=messages).choices[0].message.content == ANSWER
        assert [model.id for model in client.models.list()] == [TINY]
