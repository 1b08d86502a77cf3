"""POST /v1/audio/speech: text to speech. The model's bytes are sent as they arrive, or as OpenAI's events."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any

from ...errors import BadRequest, GatewayError, InvalidOutput
from ...hookspecs import hookimpl
from ...spec import Endpoint
from .. import answer_schemas
from ..base import Context, Dialect, Encoder, Prepared, client_message
from ..events import encode_json, estimate_tokens, unwrap, usage_of
from ..fields import echoed, missing, take
from ..relayed_errors import error_of
from ..single_value import what

TYPES = {
    "mp3": b"audio/mpeg",
    "opus": b"audio/ogg",
    "aac": b"audio/aac",
    "flac": b"audio/flac",
    "wav": b"audio/wav",
    "pcm": b"audio/pcm",
}
SLOWEST, FASTEST = 0.25, 4.0  # OpenAI's bounds of `speed`
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "model": {"type": "string", "description": "Optional if only one model serves the route"},
        "input": {"type": "string", "minLength": 1},
        "voice": {"type": ["string", "object"]},
        "instructions": {"type": "string"},
        "response_format": {"enum": list(TYPES), "default": "mp3"},
        "speed": {"type": "number", "minimum": SLOWEST, "maximum": FASTEST, "default": 1.0},
        "stream_format": {"enum": ["audio", "sse"], "default": "audio"},
    },
    "additionalProperties": True,
    "example": {"input": "Good morning.", "voice": "alloy"},
}


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(Endpoint(path="/v1/audio/speech", method="speech", dialect="audio_speech", summary="OpenAI speech."))


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("audio_speech", SpeechDialect())


class SpeechDialect(Dialect):
    request_schema = SCHEMA
    event_schema = answer_schemas.SPEECH_EVENT
    response_type = "audio/*"

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        if take(inputs, "input", str) is None:
            raise missing("input")
        if not inputs["input"]:
            raise BadRequest("'input' must not be empty", param="input")
        take(inputs, "instructions", str)
        if not isinstance(inputs.get("voice"), dict):  # {"id": …} is a custom voice
            take(inputs, "voice", str)
        speed = take(inputs, "speed", float, 1.0)
        if not SLOWEST <= speed <= FASTEST:
            raise BadRequest(f"'speed' must be between {SLOWEST} and {FASTEST}, not {echoed(speed)}", param="speed")
        _one_of(inputs, "response_format", tuple(TYPES))
        _one_of(inputs, "stream_format", ("audio", "sse"))
        inputs.pop("stream", None)
        return Prepared(model, inputs, stream=True)

    def encoder(self, prepared: Prepared, context: Context) -> Encoder:
        return SpeechEncoder(prepared.inputs)


def _one_of(inputs: dict[str, Any], name: str, known: tuple[str, ...]) -> None:
    """Check a field, and set its default, the first of `known`, so that the Model always has a value."""
    value = take(inputs, name, str, known[0])
    if value not in known:
        raise BadRequest(f"'{name}' must be one of {', '.join(known)}", param=name)
    inputs[name] = value


class SpeechEncoder(Encoder):
    """Accepts bytes, or a dict with `audio` and optional `usage`. Always a stream: a whole recording is one piece."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        self._text: str = inputs["input"]
        self._as_events = inputs["stream_format"] == "sse"
        self.stream_type = Encoder.stream_type if self._as_events else TYPES[inputs["response_format"]]
        self._usage: dict[str, Any] = {}
        self._size = 0

    def feed(self, items: list[Any], call: int = 0) -> bytes:
        chunks = [chunk for item in items if (chunk := self._audio(unwrap(item)))]
        if not chunks and not self._size:  # raised before the status is sent
            self._nothing(items)
        self._size += sum(map(len, chunks))
        if not self._as_events:
            return b"".join(chunks)
        return b"".join([_event("speech.audio.delta", audio=b64encode(chunk).decode()) for chunk in chunks])

    def finish(self) -> bytes:
        if not self._size:
            raise InvalidOutput("speech returned no audio")
        if not self._as_events:
            return b""
        prompt = estimate_tokens(len(self._text.encode()))
        counts = usage_of(self._usage)
        given = (counts.prompt, counts.completion) if counts is not None else (None, None)
        tokens = {"input_tokens": prompt if given[0] is None else given[0], "output_tokens": given[1] or 0}
        return _event("speech.audio.done", usage={**tokens, "total_tokens": sum(tokens.values())})

    def fail(self, error: GatewayError) -> bytes:
        if not self._as_events:
            return b""
        body = {"message": client_message(error), "type": error.type, "param": error.param, "code": error.code}
        return b"data: " + encode_json({"error": body}) + b"\n\n"

    def _audio(self, value: Any) -> bytes:
        if value is None:
            return b""
        if isinstance(value, bytes):
            return value
        if isinstance(value, dict):
            if isinstance(value.get("error"), str | dict):
                raise error_of(value)
            counts, audio = unwrap(value.get("usage")), value.get("audio")
            if isinstance(counts, dict):
                self._usage = counts
            if isinstance(audio, bytes) or (audio is None and isinstance(counts, dict)):
                return audio or b""
        raise InvalidOutput(f"speech returned {what(value)}, not the bytes of a recording")

    def _nothing(self, items: list[Any]) -> None:
        if all(item is None for item in items):
            raise InvalidOutput("speech returned no audio")


def _event(kind: str, **fields: Any) -> bytes:
    return b"data: " + encode_json({"type": kind, **fields}) + b"\n\n"
