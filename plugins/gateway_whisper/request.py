"""Read what a client asks for: the fields of OpenAI's form that Whisper can honour, and those that it cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway_fields import unsupported

from gateway import BadRequest

from .languages import CODES, NAMES

Task = Literal["transcribe", "translate"]
# Fields of other models of OpenAI's, with what does not change anything.
OTHERS: Mapping[str, tuple[Any, ...]] = {
    "include": ([],),
    "chunking_strategy": ("auto",),
    "known_speaker_names": ([],),
    "known_speaker_references": ([],),
    "keywords": ([],),
    "languages": ([],),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    task: Task
    language: str | None  # a code such as "en"; None: heard in the recording
    prompt: str | None  # text that the recording continues
    temperature: float  # 0: the likeliest words
    words: bool  # the time of each word is wanted
    format: str


def read(inputs: Mapping[str, Any], task: Task, *, multilingual: bool) -> Wanted:
    """Return what is asked for.

    Raises:
        BadRequest: the model cannot do it, or a value is invalid.
    """
    for name, neutral in OTHERS.items():
        if (value := inputs.get(name)) is not None and value not in neutral:
            raise unsupported(f"Whisper does not support {name}", name)
    kind = inputs["response_format"]
    if kind == "diarized_json":
        raise unsupported("Whisper does not tell speakers apart: use another response_format", "response_format")
    wanted = inputs.get("timestamp_granularities") or []
    if wanted and kind != "verbose_json":
        raise BadRequest(
            "timestamp_granularities needs response_format verbose_json, which has the times",
            param="timestamp_granularities",
        )
    temperature = inputs.get("temperature") or 0.0
    if not 0 <= temperature <= 1:
        raise BadRequest("temperature must be from 0 to 1", param="temperature")
    language = _language(inputs.get("language"))
    if not multilingual and task == "translate":
        raise unsupported("this model knows English only, and does not translate", "model")
    if not multilingual and language not in (None, "en"):
        raise unsupported("this model knows English only", "language")
    return Wanted(task, language, inputs.get("prompt") or None, float(temperature), "word" in wanted, kind)


def _language(value: Any) -> str | None:
    if not value:
        return None
    code = str(value).strip().lower()
    code = CODES.get(code, code)
    if code not in NAMES:
        raise BadRequest(
            f"{str(value)[:32]!r} is not a language that Whisper knows: send its code, such as en or de",
            param="language",
        )
    return code
