"""What a model returned and no route can answer with is told with its path."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gateway.dialects.anthropic.messages import MessagesDialect
from gateway.dialects.base import Context, Dialect
from gateway.dialects.events import checked
from gateway.dialects.normalize import Normalizer
from gateway.dialects.oip.tensors import in_json, to_tensor
from gateway.dialects.openai.embeddings import EmbeddingsDialect
from gateway.dialects.openai.transcriptions import TranscriptionsDialect
from gateway.dialects.output_paths import at
from gateway.dialects.responses.route import ResponsesDialect
from gateway.dialects.scoring.classify import ClassifyDialect
from gateway.dialects.scoring.rerank import RerankDialect
from gateway.errors import InvalidOutput
from gateway.wire.values import Structured

NAN, DEEP = math.nan, {"x": 1}


@pytest.mark.parametrize(
    ("whole", "path"),
    [
        ({"rows": [1, DEEP]}, " (at $.rows[1])"),
        ([{"a b": [[], DEEP]}], " (at $[0]['a b'][1])"),
        (Structured({"x": [DEEP]}, ""), " (at $.x[0])"),
        (DEEP, ""),
        ([{"x": 1}], ""),  # equal, and not the one
        ([DEEP, DEEP], ""),  # nobody knows which
    ],
)
def test_the_path_is_that_of_the_very_object(whole: Any, path: str) -> None:
    assert at(DEEP, whole) == path


def answered(dialect: Dialect, method: str, body: dict[str, Any], value: Any) -> str:
    encoder = dialect.encoder(dialect.read(body, method), Context("m", "0" * 32, 0))
    with pytest.raises(InvalidOutput) as caught:
        encoder.feed([value])
        encoder.whole()
    return caught.value.message


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([[0.1, 0.2], [0.1, "x"]], "a str where a number belongs (at $[1][1])"),
        (
            {"data": [{"embedding": [0.1]}, {"embedding": None}]},
            "None where a vector belongs (at $.data[1].embedding); return a list with a list of numbers for each text "
            "of the input",
        ),
        ({"embeddings": [[0.1], [1e300]]}, "(at $.embeddings[1])"),
        ([[0.1, 0.2], [0.1, NAN]], "NaN or infinity (number 1 of vector 1)"),
        ([[0.1, 0.2], [0.1]], "1 number in vector 1, 2 in vector 0"),
    ],
)
def test_embeddings_that_are_none(value: Any, told: str) -> None:
    message = answered(EmbeddingsDialect(), "embeddings", {"input": ["a", "b"]}, value)
    assert message.startswith("embeddings returned") and message.endswith(told)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([0.5, NAN], "(at $[1])"),
        ({"results": [{"index": 0, "score": NAN}, {"index": 1, "score": 1.0}]}, "(at $.results[0].score)"),
        ([{"index": 0, "score": 1.0}, {"index": 1, "score": "high"}], "(at $[1])"),
    ],
)
def test_scores_of_rerank_that_are_none(value: Any, path: str) -> None:
    assert path in answered(RerankDialect(), "rerank", {"query": "q", "documents": ["a", "b"]}, value)


def test_classes_that_are_none() -> None:
    value = [{"label": "a", "score": 0.5}, {"label": "b", "score": "high"}]
    assert "(at $[1])" in answered(ClassifyDialect(), "classify", {"input": ["a", "b"]}, value)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"type": "message", "content": 5}, "is an int, not a list of blocks (at $.content)"),
        (
            {"type": "message", "content": [{"type": "text", "text": "a"}, {"text": "b"}]},
            "not a block with a type (at $.content[1])",
        ),
        ({"type": "message", "content": [{"type": "text", "text": [1]}]}, "not a string (at $.content[0].text)"),
        ({"type": "content_block_delta", "delta": "a"}, "is a str, not a dict (at $.delta)"),
        (Structured({"type": "message", "content": [7]}, ""), "not a block with a type (at $.content[0])"),
    ],
)
def test_messages_that_are_none(value: Any, told: str) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    assert answered(MessagesDialect(), "messages", body, value).endswith(told)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"object": "response", "output": "a"}, "is a str, not a list (at $.output)"),
        ({"object": "response", "output": [{"type": "x"}, {"id": 1}]}, "not a dict with a type (at $.output[1])"),
        ({"type": "response.completed", "response": "a"}, "without a response (at $.response)"),
        ({"type": "response.output_item.done", "item": [DEEP]}, "not a dict with a type (at $.item)"),
        (Structured({"object": "response", "output": [7]}, ""), "not a dict with a type (at $.output[0])"),
    ],
)
def test_responses_that_are_none(value: Any, told: str) -> None:
    assert answered(ResponsesDialect(), "responses", {"input": "hi"}, value).endswith(told)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"text": [5]}, "(at $.text)"),
        ({"segments": {"a": 1}}, "(at $.segments)"),
        (
            {"segments": [{"start": 0, "end": 1, "text": "a"}, {"start": 1, "text": "b"}]},
            "segments are not all dicts with start, end and text (at $.segments[1])",
        ),
    ],
)
def test_transcripts_that_are_none(value: Any, told: str) -> None:
    file = {"name": "a.wav", "type": "audio/wav", "data": b"x"}
    assert answered(TranscriptionsDialect("transcribe"), "transcriptions", {"file": file}, value).endswith(told)


def test_what_a_chat_puts_into_its_logprobs() -> None:
    with pytest.raises(InvalidOutput, match=r"put nan into logprobs \(at \$\[1\]\.logprob\), which JSON"):
        checked([{"logprob": 0.5}, {"logprob": NAN}], "logprobs")


def test_outputs_of_the_open_inference_protocol() -> None:
    value = [[1.0, 2.0], [math.inf, 3.0]]
    with pytest.raises(InvalidOutput, match=r"predict's 'y' contains infinity \(at \$\[1\]\[0\]\)"):
        in_json("y", [each for row in value for each in row], value)
    with pytest.raises(InvalidOutput, match=r"put nan into y \(at \$\[1\]\.a\)"):
        to_tensor("y", [{"a": 1}, {"a": NAN}])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"choices": [{"text": "a"}, {"message": {"content": {"x": 1}}}]}, "(at $.choices[1].message.content)"),
        ({"choices": [{"delta": {"tool_calls": [["f"]]}}]}, "(at $.choices[0].delta.tool_calls[0])"),
        ({"content": "x", "finish_reason": "tired"}, "(at $.finish_reason)"),
        (Structured({"content": "x", "usage": ["many"]}, ""), "(at $.usage)"),
        ({"tool_calls": [{"function": {"arguments": "{}"}}]}, "(at $.tool_calls[0])"),
    ],
)
def test_parts_of_a_chat_that_have_no_meaning(value: Any, told: str) -> None:
    with pytest.raises(InvalidOutput) as caught:
        Normalizer(width=2).feed(value)
    assert caught.value.message.endswith(told)
