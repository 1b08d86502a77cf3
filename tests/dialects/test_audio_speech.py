"""Speech: the Model's bytes come out as they are, or in OpenAI's events."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from gateway.dialects.base import Context
from gateway.dialects.openai.speech import TYPES, SpeechDialect
from gateway.errors import BadRequest, HTTPError, InvalidOutput

ASK = {"input": "Good morning.", "voice": "alloy"}


def spoken(*values: Any, **fields: Any) -> tuple[bytes, bytes]:
    dialect = SpeechDialect()
    prepared = dialect.read({**ASK, **fields}, "speech")
    assert prepared.stream
    encoder = dialect.encoder(prepared, Context("m", "0" * 32, 1))
    out = encoder.start() + b"".join([encoder.feed([value]) for value in values]) + encoder.finish()
    return out, encoder.stream_type


@pytest.mark.parametrize(
    "values", [[b"abcd"], [b"ab", b"cd"], [{"audio": b"abcd"}], [b"ab", b"", None, {"audio": b"cd"}]]
)
def test_bytes_come_out_as_they_are(values: list[Any]) -> None:
    assert spoken(*values) == (b"abcd", b"audio/mpeg")


@pytest.mark.parametrize(("name", "content_type"), TYPES.items())
def test_the_format_that_was_asked_for_is_the_content_type(name: str, content_type: bytes) -> None:
    assert spoken(b"a", response_format=name)[1] == content_type


def test_events_hold_the_bytes_in_base64() -> None:
    stream, content_type = spoken(b"ab", b"cd", stream_format="sse")
    assert content_type == b"text/event-stream"
    events = [json.loads(line[6:]) for line in stream.decode().split("\n\n") if line]
    assert [event["type"] for event in events] == ["speech.audio.delta"] * 2 + ["speech.audio.done"]
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == b"abcd"
    assert events[-1]["usage"] == {"input_tokens": 4, "output_tokens": 0, "total_tokens": 4}


def test_the_models_own_counts_are_told() -> None:
    stream, _ = spoken(b"a", {"usage": {"input_tokens": 7, "output_tokens": 9}}, stream_format="sse")
    assert b'"usage":{"input_tokens":7,"output_tokens":9,"total_tokens":16}' in stream


@pytest.mark.parametrize("value", [None, "text", 5, [b"a"], {}, {"audio": "text"}, {"sound": b"a"}])
def test_what_is_no_recording_is_invalid_output(value: Any) -> None:
    with pytest.raises(InvalidOutput):
        spoken(value)


@pytest.mark.parametrize("values", [[], [b""], [{"usage": {"input_tokens": 1}}]])
def test_silence_is_no_recording(values: list[Any]) -> None:
    with pytest.raises(InvalidOutput):
        spoken(*values)


def test_an_error_dict_is_the_models_own_failure() -> None:
    with pytest.raises(HTTPError, match="no such voice"):
        spoken({"error": {"message": "no such voice", "status": 400}})


def test_the_method_always_finds_both_formats() -> None:
    inputs = SpeechDialect().read({**ASK, "voice": {"id": "mine"}, "mine": 1}, "speech").inputs
    assert inputs == {
        "input": "Good morning.",
        "voice": {"id": "mine"},
        "mine": 1,
        "response_format": "mp3",
        "stream_format": "audio",
    }


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", "missing_required_parameter"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": ["a"]}, "input", "invalid_type"),
        ({"voice": 5}, "voice", "invalid_type"),
        ({"speed": 0.1}, "speed", "invalid_value"),
        ({"speed": "fast"}, "speed", "invalid_type"),
        ({"response_format": "midi"}, "response_format", "invalid_value"),
        ({"stream_format": "chunks"}, "stream_format", "invalid_value"),
    ],
)
def test_a_request_that_makes_no_sense_names_the_field(fields: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(BadRequest) as caught:
        SpeechDialect().read({**ASK, **fields}, "speech")
    assert (caught.value.param, caught.value.code) == (param, code)
