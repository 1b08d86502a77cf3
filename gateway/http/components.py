"""What the API document refers to: schemas of errors, of models and of tensors, and the families of routes."""

from __future__ import annotations

from typing import Any

from ..dialects.answer_schemas import COUNT, MAYBE_TEXT, NUMBER, OBJECT, TEXT, always, items, record
from ..dialects.oip_tensors import DATATYPES
from .errors import Shape

Json = dict[str, Any]
PLACE = "#/components/schemas/"

# The schema of an error in each shape.
ERRORS: dict[Shape, str] = {
    "openai": "Error",
    "responses": "Error",
    "anthropic": "AnthropicError",
    "truss": "TrussError",
    "oip": "InferenceError",
}
STATES = ["unloaded", "loading", "ready", "restarting", "draining", "failed"]
_TENSOR = record(
    name=TEXT,
    datatype={"enum": list(DATATYPES)},
    shape=items(COUNT),
    data={"type": "array"},
)
_DESCRIBED = record(name=TEXT, datatype={"enum": list(DATATYPES)}, shape=items({"type": "integer"}))

SCHEMAS: Json = {
    "Error": record(error=record(message=TEXT, type=TEXT, param=MAYBE_TEXT, code=MAYBE_TEXT)),
    "AnthropicError": record(
        {"request_id": TEXT}, type=always("error"), error=record({"details": OBJECT}, type=TEXT, message=TEXT)
    ),
    "TrussError": record(error={"description": "A sentence, or what the model raised it with"}),
    "InferenceError": record(error=TEXT),
    "Model": record(
        {
            "status_reason": TEXT,
            "loads_on_demand": {"type": "boolean"},
            "max_model_len": COUNT,
            "display_name": TEXT,
        },
        id=TEXT,
        object=always("model"),
        created=COUNT,
        owned_by=TEXT,
        status={"enum": STATES},
        capabilities={"type": ["object", "null"]},
    ),
    "Models": record(object=always("list"), data=items({"$ref": f"{PLACE}Model"})),
    "PredictSchema": record(
        input_schema={"type": ["object", "null"]},
        output_schema={"type": ["object", "null"]},
        supports_streaming={"type": ["boolean", "null"]},
    ),
    "InferenceRequest": {
        **record(
            {"id": TEXT, "outputs": items(record(name=TEXT)), "parameters": OBJECT},
            inputs=items(_TENSOR),
        ),
    },
    "InferenceAnswer": record({"id": TEXT, "parameters": OBJECT}, model_name=TEXT, outputs=items(record(name=TEXT))),
    "InferenceModel": record(
        name=TEXT, versions=items(TEXT), platform=TEXT, inputs=items(_DESCRIBED), outputs=items(_DESCRIBED)
    ),
    "InferenceServer": record(name=TEXT, version=TEXT, extensions=items(TEXT)),
    "InferenceReady": record(name=TEXT, ready={"type": "boolean"}),
    "InferenceStats": record(model_stats=items(record(name=TEXT, inference_count=COUNT, last_inference=NUMBER))),
    "InferenceIndex": items(record({"reason": TEXT}, name=TEXT, state=TEXT)),
    "DeletedResponse": record(id=TEXT, object=always("response"), deleted={"const": True}),
    "InputItems": record(object=always("list"), data=items(OBJECT), has_more={"type": "boolean"}),
}

# The families of routes, in the order of the page, and what they are. A plugin's own has the name of its path.
TAGS = {
    "chat": "OpenAI's chat, from the method `chat_completions`.",
    "completions": "OpenAI's completions of a text.",
    "responses": "OpenAI's responses, which may be kept and gone on from.",
    "messages": "Anthropic's messages, and how many tokens they are.",
    "embeddings": "OpenAI's embeddings: vectors of texts.",
    "rerank": "Texts by relevance, scores of pairs, classes.",
    "tokens": "Token ids of a text, and back.",
    "audio": "OpenAI's speech and transcriptions.",
    "images": "OpenAI's images.",
    "moderations": "OpenAI's moderations.",
    "predict": "The method `predict` of a model, as Truss serves it.",
    "inference": "The Open Inference Protocol: predict on tensors, and models by name.",
    "models": "Which models there are, and how they are.",
    "gateway": "The gateway itself: health, metrics, version.",
}
_FAMILIES = {"score": "rerank", "classify": "rerank"} | dict.fromkeys(
    ("tokenize", "detokenize", "tokenizer_info"), "tokens"
)


def family(path: str) -> str:
    """The tag of an endpoint: /v1/audio/speech is of audio, /v2/rerank of rerank."""
    parts = [part for part in path.split("/") if part]
    first = parts[1] if len(parts) > 1 and parts[0] in ("v1", "v2") else parts[0]
    return _FAMILIES.get(first, first)
