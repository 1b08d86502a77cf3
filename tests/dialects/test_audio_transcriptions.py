"""Transcripts, judged by the official SDK: whatever way a Model says what it heard, each format has it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import httpx2
import openai
import pytest
from openai.types.audio import TranscriptionDiarized, TranscriptionVerbose

from gateway.dialects.base import Context
from gateway.dialects.openai.transcriptions import TranscriptionsDialect
from gateway.errors import BadRequest, HTTPError, InvalidOutput, ModelError
from gateway.wire.values import decode
from gateway.worker.bodies.results import pack

FILE = {"filename": "a.wav", "content_type": "audio/wav", "data": b"RIFF"}
SEGMENTS = [{"start": 0, "end": 1.5, "text": " Good"}, {"start": 1.5, "end": 2.5, "text": " morning."}]


@dataclasses.dataclass
class Segment:
    start: float
    end: float
    text: str


def encoded(*values: Any, task: Any = "transcribe", **fields: Any) -> tuple[bytes, bytes]:
    """The bytes of an answer and their type when the Model gives these values."""
    dialect = TranscriptionsDialect(task)
    prepared = dialect.read({"model": "m", "file": FILE, **fields}, "transcriptions")
    encoder = dialect.encoder(prepared, Context("m", "0" * 32, 1))
    out = b"".join([encoder.feed([decode(pack(value))]) for value in values])
    if prepared.stream:
        return encoder.start() + out + encoder.finish(), encoder.stream_type
    assert out == b""
    return encoder.whole()[0], encoder.content_type


def heard(*values: Any, **fields: Any) -> Any:
    """As the SDK reads it."""
    sent = {**fields, **({"stream": "true"} if fields.get("stream") else {})}
    body, content_type = encoded(*values, **sent)

    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": content_type.decode()}, content=body)

    transport = httpx2.Client(transport=httpx2.MockTransport(reply))
    with openai.OpenAI(base_url="http://test/v1", api_key="k", http_client=transport) as client:
        answer = client.audio.transcriptions.create(model="m", file=b"RIFF", **fields)
        return list(answer) if fields.get("stream") else answer


@pytest.mark.parametrize(
    "values",
    [
        ["Good morning."],
        ["Good", " morning."],
        [{"text": "Good morning."}],
        [{"text": "Good morning.", "segments": SEGMENTS, "language": "en"}],
        [{"segments": SEGMENTS}],
        [SEGMENTS],
        SEGMENTS,
        [Segment(**item) for item in SEGMENTS],
        [*SEGMENTS, {"language": "en"}],
        [*SEGMENTS, {"text": "Good morning."}],
        [None, "Good morning.", {"usage": {"type": "duration", "seconds": 3}}],
    ],
)
def test_every_documented_shape_is_the_same_text(values: list[Any]) -> None:
    assert heard(*values).text == "Good morning."
    assert heard(*values, response_format="text") == "Good morning."
    assert heard(*values, response_format="verbose_json").text == "Good morning."
    events = heard(*values, stream=True)
    assert [event.type for event in events[:-1]] == ["transcript.text.delta"] * (len(events) - 1)
    assert "".join(event.delta for event in events[:-1]).strip() == "Good morning."
    assert (events[-1].type, events[-1].text) == ("transcript.text.done", "Good morning.")


def test_silence_is_a_transcript() -> None:
    for values in ([""], [[]], [{"text": ""}], [{"segments": []}]):
        assert heard(*values).text == ""
    with pytest.raises(InvalidOutput, match="nothing"):
        encoded(None)


@pytest.mark.parametrize("values", [SEGMENTS, [{"text": "x", "segments": SEGMENTS}]])
def test_subtitles_are_made_of_segments(values: list[Any]) -> None:
    assert heard(*values, response_format="srt").startswith("1\n00:00:00,000 --> 00:00:01,500\nGood\n\n2\n")
    assert heard(*values, response_format="vtt").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nGood\n")


def test_subtitles_that_the_model_made_itself_go_out_as_they_are() -> None:
    made = "WEBVTT\n\n00:00.000 --> 00:01.000\nGood morning.\n"
    assert encoded(made, response_format="vtt") == (made.encode(), b"text/plain; charset=utf-8")


def test_a_verbose_answer_has_every_field_of_its_type() -> None:
    words = [{"word": "Good", "start": 0, "end": 1}]
    answer = heard(*SEGMENTS, {"language": "english", "words": words}, response_format="verbose_json")
    assert isinstance(answer, TranscriptionVerbose) and answer.segments is not None and answer.words is not None
    assert (answer.language, answer.duration, answer.words[0].word) == ("english", 2.5, "Good")
    assert [(item.id, item.start, item.end, item.text) for item in answer.segments] == [
        (0, 0, 1.5, " Good"),
        (1, 1.5, 2.5, " morning."),
    ]
    assert answer.segments[0].tokens == [] and answer.segments[0].no_speech_prob == 0.0
    body = json.loads(encoded("x", response_format="verbose_json", language="de", task="translate")[0])
    assert body == {"task": "translate", "duration": 0.0, "text": "x", "language": "de"}


def test_what_the_model_knows_of_a_segment_stays() -> None:
    known = {**SEGMENTS[0], "id": 7, "seek": 3, "tokens": [1], "avg_logprob": -0.5}
    answer = heard(known, {"duration": 9.5}, response_format="verbose_json")
    assert (answer.segments[0].id, answer.segments[0].avg_logprob, answer.duration) == (7, -0.5, 9.5)


def test_speakers_are_told_apart() -> None:
    values = [{**SEGMENTS[0], "speaker": "ada"}, SEGMENTS[1]]
    answer = heard(*values, response_format="diarized_json")
    assert isinstance(answer, TranscriptionDiarized)
    assert [(item.speaker, item.text, item.id) for item in answer.segments] == [
        ("ada", " Good", "seg_0"),
        ("A", " morning.", "seg_1"),
    ]
    events = heard(*values, response_format="diarized_json", stream=True)
    assert [event.speaker for event in events if event.type == "transcript.text.segment"] == ["ada", "A"]


def test_usage_is_told_where_the_model_counts() -> None:
    usage = {"type": "tokens", "input_tokens": 14, "output_tokens": 2, "total_tokens": 16}
    assert heard("a", {"usage": usage}).usage.total_tokens == 16
    assert heard("a", {"usage": usage}, stream=True)[-1].usage.total_tokens == 16
    assert heard("a").usage is None


def test_a_stream_that_fails_is_an_error_for_the_sdk() -> None:
    dialect = TranscriptionsDialect("transcribe")
    encoder = dialect.encoder(dialect.read({"file": FILE, "stream": "true"}, ""), Context("m", "0" * 32, 1))
    body = encoder.feed(["Good"]) + encoder.fail(ModelError("it broke"))

    def reply(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)

    transport = httpx2.Client(transport=httpx2.MockTransport(reply))
    with (
        openai.OpenAI(base_url="http://test/v1", api_key="k", http_client=transport) as client,
        pytest.raises(openai.APIError, match="it broke"),
    ):
        list(client.audio.transcriptions.create(model="m", file=b"RIFF", stream=True))


@pytest.mark.parametrize(
    "value",
    [
        5,
        b"text",
        {},
        {"text": 5},
        {"text": "a", "segments": "b"},
        {"segments": [{"start": 0, "text": "a"}]},
        [{"start": 0, "end": "1", "text": "a"}],
        ["a", "b"],
        {"text": "a", "duration": float("nan")},
        {"start": 0, "end": float("inf"), "text": "a"},
    ],
)
def test_what_is_no_transcript_is_invalid_output(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        encoded(value)


def test_an_error_dict_is_the_models_own_failure() -> None:
    with pytest.raises(HTTPError, match="no speech"):
        encoded({"error": {"message": "no speech", "status": 422}})


def test_the_fields_of_the_form_have_their_types() -> None:
    form = {
        "file": FILE,
        "model": "m",
        "temperature": "0.5",
        "stream": "TRUE",
        "timestamp_granularities": ["word"],
        "include": "logprobs",
        "mine": "1",
    }
    prepared = TranscriptionsDialect("transcribe").read(form, "transcriptions")
    assert prepared.stream and prepared.model == "m"
    assert prepared.inputs == {
        "file": FILE,
        "model": "m",
        "temperature": 0.5,
        "stream": True,
        "timestamp_granularities": ["word"],
        "include": ["logprobs"],
        "mine": "1",
        "response_format": "json",
    }


def test_an_object_in_the_form_is_one() -> None:
    form = {"file": FILE, "chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.4"}
    inputs = TranscriptionsDialect("transcribe").read(form, "transcriptions").inputs
    assert inputs["chunking_strategy"] == {"type": "server_vad", "threshold": 0.4}
    assert not [name for name in inputs if "[" in name]
    plain = {"file": FILE, "chunking_strategy": "auto", "languages": "de"}
    inputs = TranscriptionsDialect("transcribe").read(plain, "transcriptions").inputs
    assert (inputs["chunking_strategy"], inputs["languages"]) == ("auto", ["de"])


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        (
            {"chunking_strategy": "auto", "chunking_strategy[type]": "server_vad"},
            "chunking_strategy",
            "invalid_value",
        ),
        ({"chunking_strategy[type]": ["a", "b"]}, "chunking_strategy[type]", "invalid_type"),
        ({"file": None}, "file", "missing_required_parameter"),
        ({"file": "text"}, "file", "invalid_type"),
        ({"file": [FILE, FILE]}, "file", "invalid_type"),
        ({"file": {**FILE, "data": b""}}, "file", "invalid_value"),
        ({"temperature": "warm"}, "temperature", "invalid_type"),
        ({"temperature": "nan"}, "temperature", "invalid_value"),
        ({"temperature": ["1", "2"]}, "temperature", "invalid_type"),
        ({"stream": "maybe"}, "stream", "invalid_type"),
        ({"language": ["de", "en"]}, "language", "invalid_type"),
        ({"response_format": "xml"}, "response_format", "invalid_value"),
        ({"timestamp_granularities": ["letter"]}, "timestamp_granularities", "invalid_value"),
        ({"include": [FILE]}, "include", "invalid_type"),
    ],
)
def test_a_request_that_makes_no_sense_names_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        TranscriptionsDialect("transcribe").read({"file": FILE, **fields}, "transcriptions")
    assert (caught.value.param, caught.value.code) == (param, code)
