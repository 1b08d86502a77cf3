"""JSON schemas of whole answers and of stream events, for the API document. Fields in every answer are required.

Models may add fields, so all of these schemas allow more.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
COUNT: Json = {"type": "integer", "minimum": 0}
MAYBE_TEXT: Json = {"type": ["string", "null"]}
OBJECT: Json = {"type": "object"}


def record(optional: Json | None = None, /, **required: Json) -> Json:
    """Return the schema of an object with these properties."""
    return {"type": "object", "required": list(required), "properties": {**required, **(optional or {})}}


def items(of: Json) -> Json:
    return {"type": "array", "items": of}


def always(value: str) -> Json:
    return {"const": value}


USAGE = record({"completion_tokens": COUNT}, prompt_tokens=COUNT, total_tokens=COUNT)
_TOOL_CALL = record(id=TEXT, type=TEXT, function=record(name=TEXT, arguments=TEXT))
_MESSAGE = record(
    {"refusal": MAYBE_TEXT, "reasoning_content": TEXT, "tool_calls": items(_TOOL_CALL)}, role=TEXT, content=MAYBE_TEXT
)
_DELTA: Json = {"type": "object", "properties": {"role": TEXT, "content": MAYBE_TEXT, "reasoning_content": TEXT}}
_CHUNK_USAGE: Json = {"anyOf": [USAGE, {"type": "null"}]}

CHAT = record(
    id=TEXT,
    object=always("chat.completion"),
    created=COUNT,
    model=TEXT,
    choices=items(record(index=COUNT, message=_MESSAGE, finish_reason=MAYBE_TEXT)),
    usage=USAGE,
)
CHAT_EVENT = record(
    {"usage": _CHUNK_USAGE},
    id=TEXT,
    object=always("chat.completion.chunk"),
    created=COUNT,
    model=TEXT,
    choices=items(record({"finish_reason": MAYBE_TEXT}, index=COUNT, delta=_DELTA)),
)
_TEXT_CHOICE = record({"logprobs": {"type": ["object", "null"]}}, index=COUNT, text=TEXT, finish_reason=MAYBE_TEXT)
COMPLETION_EVENT = record(
    {"usage": _CHUNK_USAGE},
    id=TEXT,
    object=always("text_completion"),
    created=COUNT,
    model=TEXT,
    choices=items(_TEXT_CHOICE),
)
COMPLETION = {**COMPLETION_EVENT, "required": [*COMPLETION_EVENT["required"], "usage"]}
RESPONSE = record(
    id=TEXT,
    object=always("response"),
    created_at=NUMBER,
    status=TEXT,
    model=TEXT,
    output=items(record({"id": TEXT, "status": TEXT, "role": TEXT, "content": {"type": "array"}}, type=TEXT)),
    usage={"type": ["object", "null"]},
    error={"type": ["object", "null"]},
)
RESPONSE_EVENT = record(type=TEXT, sequence_number=COUNT)
INPUT_TOKENS = record(object=always("response.input_tokens"), input_tokens=COUNT)
MESSAGE = record(
    id=TEXT,
    type=always("message"),
    role=always("assistant"),
    model=TEXT,
    content=items(record({"text": TEXT}, type=TEXT)),
    stop_reason=MAYBE_TEXT,
    stop_sequence=MAYBE_TEXT,
    usage=record(input_tokens=COUNT, output_tokens=COUNT),
)
MESSAGE_EVENT = record(type=TEXT)
MESSAGE_TOKENS = record(input_tokens=COUNT)
EMBEDDINGS = record(
    object=always("list"),
    data=items(
        record(index=COUNT, object=always("embedding"), embedding={"type": ["array", "string"], "items": NUMBER})
    ),
    model=TEXT,
    usage=USAGE,
)
RERANK = record(
    results=items(record({"document": {"type": ["object", "string"]}}, index=COUNT, relevance_score=NUMBER))
)
SCORE = record(model=TEXT, data=items(record(index=COUNT, score=NUMBER)), usage=USAGE)
CLASSIFY = record(model=TEXT, data=items(record(index=COUNT, label=MAYBE_TEXT, probs=items(NUMBER))), usage=USAGE)
MODERATION = record(
    id=TEXT,
    model=TEXT,
    results=items(record(flagged={"type": "boolean"}, categories=OBJECT, category_scores=OBJECT)),
)
DECISIONS = record(
    answers=items(record({"name": MAYBE_TEXT}, type=TEXT)),
    model=TEXT,
    usage=record(input_tokens=COUNT, output_tokens=COUNT, total_tokens=COUNT),
)
SYSTEM_ONE = record(
    model=TEXT,
    answers={"type": "object", "additionalProperties": record(type=TEXT)},
    usage=record(input_tokens=COUNT, output_tokens=COUNT),
)
IMAGES = record(created=COUNT, data=items({"type": "object", "properties": {"b64_json": TEXT, "url": TEXT}}))
TRANSCRIPTION = record(text=TEXT)
TRANSCRIPTION_EVENT = record(type=TEXT)
SPEECH_EVENT = record(type=TEXT)
TOKENS = record(
    {"token_strs": {"type": ["array", "null"], "items": TEXT}},
    count=COUNT,
    max_model_len={"type": ["integer", "null"]},
    tokens=items(COUNT),
)
PROMPT = record(prompt=TEXT)
TOKENIZER = record(tokenizer_class=TEXT)
