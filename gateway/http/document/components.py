"""Shared parts of the API document: schemas of errors, models and tensors, and the groups of routes."""

from __future__ import annotations

from typing import Any

from ...dialects.answer_schemas import COUNT, MAYBE_TEXT, NUMBER, OBJECT, TEXT, always, items, record
from ...dialects.oip.tensors import DATATYPES
from ..errors import Shape
from .hoisting import PLACE

Json = dict[str, Any]

# The schema of an error in each format.
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
    "TrussError": record(error={"description": "A message, or the `detail` that the model raised"}),
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

# The groups of routes, in the order of the page, with a description. A plugin's own group is named by its path.
TAGS = {
    "chat": "OpenAI's chat, from the method `chat_completions`.",
    "completions": "OpenAI's completions of a text.",
    "responses": "OpenAI's responses, which can be stored and continued.",
    "messages": "Anthropic's messages and their token counts.",
    "embeddings": "OpenAI's embeddings: vectors of texts.",
    "rerank": "Reranking, scores of text pairs, classification.",
    "tokens": "Token ids of a text, and the reverse.",
    "audio": "OpenAI's speech and transcriptions.",
    "images": "OpenAI's images.",
    "moderations": "OpenAI's moderations.",
    "decisions": "OpenAI's decisions: typed questions, answered with probabilities.",
    "predict": "The method `predict` of a model, as Truss serves it.",
    "inference": "The Open Inference Protocol: predict on tensors, and models by name.",
    "models": "The models and their state.",
    "gateway": "The gateway itself: health, metrics, version.",
}
_FAMILIES = (
    {"score": "rerank", "classify": "rerank"}
    | dict.fromkeys(("tokenize", "detokenize", "tokenizer_info"), "tokens")
    | {"systemone": "decisions"}
)


def family(path: str) -> str:
    """Return the tag of an endpoint: "audio" for /v1/audio/speech, "rerank" for /v2/rerank."""
    parts = [part for part in path.split("/") if part]
    first = parts[1] if len(parts) > 1 and parts[0] in ("v1", "v2") else parts[0]
    return _FAMILIES.get(first, first)
