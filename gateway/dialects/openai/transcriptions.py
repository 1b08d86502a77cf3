"""POST /v1/audio/transcriptions and /v1/audio/translations: speech to text, in OpenAI's formats."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Literal

from ...errors import BadRequest, GatewayError, InvalidOutput
from ...hookspecs import hookimpl
from ...spec import Endpoint
from .. import answer_schemas
from ..base import Context, Dialect, Encoder, Prepared, client_message
from ..events import checked, encode_json, unwrap
from ..fields import echoed, missing, take, wrong_type
from ..output_paths import Odd
from ..relayed_errors import error_of
from ..single_value import is_number, what
from .subtitles import srt, vtt

NUMBER = re.compile(r"\d{1,15}(\.\d{1,15})?", re.ASCII)
TEXT = b"text/plain; charset=utf-8"
FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
GRANULARITIES = ("word", "segment")
LISTS = "timestamp_granularities include known_speaker_names known_speaker_references keywords languages".split()
# Fields of OpenAI's segments besides times and text. A model may omit them.
SEGMENT: dict[str, Any] = {
    "seek": 0,
    "tokens": [],
    "temperature": 0.0,
    "avg_logprob": 0.0,
    "compression_ratio": 0.0,
    "no_speech_prob": 0.0,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "model": {"type": "string", "description": "Optional if only one model serves the route"},
        "language": {"type": "string"},
        "prompt": {"type": "string"},
        "response_format": {"enum": list(FORMATS), "default": "json"},
        "temperature": {"type": "number"},
        "timestamp_granularities[]": {"type": "array", "items": {"enum": list(GRANULARITIES)}},
        "stream": {"type": "boolean", "default": False},
    },
    "additionalProperties": True,
}


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    for method, summary in (("transcriptions", "OpenAI transcriptions."), ("translations", "OpenAI translations.")):
        register(Endpoint(path=f"/v1/audio/{method}", method=method, dialect=f"audio_{method}", summary=summary))


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("audio_transcriptions", TranscriptionsDialect("transcribe"))
    register("audio_translations", TranscriptionsDialect("translate"))


class TranscriptionsDialect(Dialect):
    """`task` is OpenAI's name of the task in verbose answers."""

    body = "form"
    request_schema = SCHEMA
    response_schema = answer_schemas.TRANSCRIPTION
    event_schema = answer_schemas.TRANSCRIPTION_EVENT

    def __init__(self, task: Literal["transcribe", "translate"]) -> None:
        self._task = task

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = dict(body)
        model = take(inputs, "model", str)
        _check_file(inputs.get("file"))
        _to_number(inputs, "temperature")
        _to_flag(inputs, "stream")
        for name in ("language", "prompt", "response_format"):
            take(inputs, name, str)
        for name in LISTS:
            _to_list(inputs, name)
        _to_object(inputs, "chunking_strategy")
        if unknown := [item for item in inputs.get("timestamp_granularities", ()) if item not in GRANULARITIES]:
            raise BadRequest(
                f"'timestamp_granularities' holds {echoed(unknown[0])}; have: {', '.join(GRANULARITIES)}",
                param="timestamp_granularities",
            )
        wanted = inputs.setdefault("response_format", "json")
        if wanted not in FORMATS:
            raise BadRequest(f"'response_format' must be one of {', '.join(FORMATS)}", param="response_format")
        return Prepared(model, inputs, inputs.setdefault("stream", False), options={"task": self._task})

    def encoder(self, prepared: Prepared, context: Context) -> TranscriptEncoder:
        return TranscriptEncoder(prepared)


def _check_file(value: Any) -> None:
    if value is None:
        raise missing("file")
    if not isinstance(value, dict):
        raise wrong_type("file", "one file", value)
    if not value["data"]:
        raise BadRequest("'file' is empty", param="file")


def _to_number(inputs: dict[str, Any], name: str) -> None:
    """Convert a form's text field to a number."""
    if name in inputs:
        try:
            inputs[name] = float(inputs[name])
        except (TypeError, ValueError):
            raise wrong_type(name, "a number", inputs[name]) from None
        if not math.isfinite(inputs[name]):
            raise BadRequest(f"'{name}' must be a finite number", param=name)


def _to_flag(inputs: dict[str, Any], name: str) -> None:
    if name in inputs:
        word = str(inputs[name]).lower()
        if word not in ("true", "1", "false", "0"):
            raise wrong_type(name, "a boolean", inputs[name])
        inputs[name] = word in ("true", "1")


def _to_list(inputs: dict[str, Any], name: str) -> None:
    if isinstance(inputs.get(name), str):
        inputs[name] = [inputs[name]]
    for item in take(inputs, name, list, []):
        if not isinstance(item, str):
            raise wrong_type(name, "an array of strings", item)


def _to_object(inputs: dict[str, Any], name: str) -> None:
    """Collect the fields `name[key]`, as OpenAI's SDKs write an object into a form. Numeric texts become numbers."""
    found: dict[str, Any] = {}
    for field in [field for field in inputs if field.startswith(f"{name}[") and field.endswith("]")]:
        value, key = inputs.pop(field), field[len(name) + 1 : -1]
        if name in inputs:
            raise BadRequest(f"'{name}' and '{field[:64]}' are both set; send one of them", param=name)
        if not isinstance(value, str):
            raise wrong_type(field[:64], "one text", value)
        found[key] = float(value) if NUMBER.fullmatch(value) else value
    if found:
        inputs[name] = found


class TranscriptEncoder(Encoder):
    """Accepts pieces of text, segments, or a dict with the text and further fields.

    Segments have `start`, `end` and `text`; a single segment is also a piece of the text. If subtitles are requested
    and there are no segments, the text is sent unchanged: the model was given `response_format`.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._inputs, self._task = prepared.inputs, prepared.options["task"]
        self._stream, self._format = prepared.stream, prepared.inputs["response_format"]
        self._pieces: list[str] = []
        self._segments: list[dict[str, Any]] = []
        self._about: dict[str, Any] = {}  # language, duration, words, usage …
        self._spoke = False  # the model returned something, even if the recording has no speech
        self._has_text = False  # there is text besides the segments
        self._final: str | None = None  # a whole text that came after its segments
        if self._format in ("text", "srt", "vtt"):
            self.content_type = TEXT

    # ── items ────────────────────────────────────────────────────────────────────────────────────────────────────

    def feed(self, items: list[Any], call: int = 0) -> bytes:
        return b"".join([self._located(unwrap(item)) for item in items if item is not None])

    def _located(self, value: Any) -> bytes:
        try:
            return self._take(value)
        except Odd as error:
            raise error.within(value) from None

    def _take(self, value: Any) -> bytes:
        self._spoke = True
        if isinstance(value, str):
            self._has_text = True
            return self._piece(value)
        if isinstance(value, list) and all(_is_segment(unwrap(item)) for item in value):
            return b"".join([self._segment(unwrap(item)) for item in value])
        if not isinstance(value, dict):
            raise InvalidOutput(f"the model returned {what(value)}, which is no transcript")
        if isinstance(value.get("error"), str | dict):
            raise error_of(value)
        if _is_segment(value):
            return self._segment(value)
        return self._dict(value)

    def _dict(self, value: dict[str, Any]) -> bytes:
        about = {name: item for name, item in value.items() if name not in ("text", "segments", "task")}
        if not about.keys() | value.keys() & {"text", "segments"}:
            raise InvalidOutput("the model returned an empty dict, which is no transcript")
        self._about.update(checked(about, "a transcript"))
        text, segments = value.get("text"), value.get("segments")
        if not isinstance(text, str | None):
            raise Odd(f"text is {what(text)}, not a string", text)
        out = b""
        if text is not None and self._segments and not self._has_text:
            self._final = text
        elif text is not None:
            self._has_text = True
            out = self._piece(text)
        if segments is not None:
            if not isinstance(segments, list):
                raise Odd(f"segments is {what(segments)}, not a list", segments)
            found = [unwrap(item) for item in segments]
            for item in found:
                if not _is_segment(item):
                    raise Odd("segments are not all dicts with start, end and text", item)
            out += b"".join([self._segment(item) for item in found])
        return out

    def _segment(self, segment: dict[str, Any]) -> bytes:
        self._segments.append(checked(segment, "a segment"))
        out = b"" if self._has_text else self._piece(segment["text"])
        if self._stream and self._format == "diarized_json":
            out += _event("transcript.text.segment", **self._diarized(len(self._segments) - 1, segment))
        return out

    def _piece(self, text: str) -> bytes:
        if not text:
            return b""
        self._pieces.append(text)
        return _event("transcript.text.delta", delta=text) if self._stream else b""

    # ── stream ───────────────────────────────────────────────────────────────────────────────────────────────────

    def finish(self) -> bytes:
        return _event("transcript.text.done", text=self._text(), **self._known("logprobs", "languages", "usage"))

    def fail(self, error: GatewayError) -> bytes:
        body = {"message": client_message(error), "type": error.type, "param": error.param, "code": error.code}
        return b"data: " + encode_json({"error": body}) + b"\n\n"

    # ── whole ────────────────────────────────────────────────────────────────────────────────────────────────────

    def whole(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        if self._format == "srt" and self._segments:
            return srt(self._segments).encode(), []
        if self._format == "vtt" and self._segments:
            return vtt(self._segments).encode(), []
        text = self._text()
        if self.content_type == TEXT:
            return text.encode(), []
        if self._format == "json":
            return encode_json({"text": text, **self._known("logprobs", "languages", "usage")}), []
        body: dict[str, Any] = {"task": self._task, "duration": self._duration(), "text": text}
        if self._format == "diarized_json":
            segments = [
                {"type": "transcript.text.segment", **self._diarized(index, segment)}
                for index, segment in enumerate(self._segments)
            ]
            return encode_json({**body, "segments": segments, **self._known("usage")}), []
        body["language"] = self._about.get("language") or self._inputs.get("language") or ""
        if self._segments:
            body["segments"] = [{"id": index, **SEGMENT, **item} for index, item in enumerate(self._segments)]
        return encode_json({**body, **{name: item for name, item in self._about.items() if name not in body}}), []

    def _text(self) -> str:
        if not self._spoke:
            raise InvalidOutput("the model returned nothing")
        if self._final is not None:
            return self._final
        text = "".join(self._pieces)
        return text if self._has_text else text.strip()  # texts of segments begin with a space

    def _duration(self) -> float:
        """Return the duration in seconds: the model's value, or else the end of the last segment."""
        given = self._about.get("duration")
        if isinstance(given, int | float):
            return float(given)
        return float(max((segment["end"] for segment in self._segments), default=0.0))

    def _known(self, *names: str) -> dict[str, Any]:
        return {name: self._about[name] for name in names if self._about.get(name) is not None}

    def _diarized(self, index: int, segment: dict[str, Any]) -> dict[str, Any]:
        """Return a segment in OpenAI's format with speakers."""
        return {
            "id": str(segment.get("id", f"seg_{index}")),
            "start": float(segment["start"]),
            "end": float(segment["end"]),
            "text": segment["text"],
            "speaker": str(segment.get("speaker") or "A"),
        }


def _is_segment(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and is_number(value.get("start"))
        and is_number(value.get("end"))
        and isinstance(value.get("text"), str)
    )


def _event(kind: str, **fields: Any) -> bytes:
    return b"data: " + encode_json({"type": kind, **fields}) + b"\n\n"
