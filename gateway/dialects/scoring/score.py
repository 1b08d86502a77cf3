"""POST /v1/score: the similarity of two texts, in vLLM's format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...errors import BadRequest, InvalidOutput
from ...hookspecs import hookimpl
from ...spec import Endpoint
from ...wording import counted
from .. import answer_schemas
from ..base import Context, Dialect, Prepared
from ..fields import missing, take, wrong_type
from ..single_value import MAX_TEXTS, ValueEncoder, finite, floats, is_number, rows

_TEXTS: dict[str, Any] = {"type": ["string", "array"], "items": {"type": "string"}, "maxItems": MAX_TEXTS}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["text_1", "text_2"],
    "properties": {
        "model": {"type": "string", "description": "Optional if only one model serves the route"},
        "text_1": _TEXTS,
        "text_2": _TEXTS,
    },
    "additionalProperties": True,
    "example": {"text_1": "capital of France", "text_2": ["Paris", "Berlin"]},
}


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(Endpoint(path="/v1/score", method="score", dialect="score", summary="Scores of text pairs, as in vLLM."))


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("score", ScoreDialect())


class ScoreDialect(Dialect):
    request_schema = SCHEMA
    response_schema = answer_schemas.SCORE

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        first, second = read_texts(inputs, "text_1"), read_texts(inputs, "text_2")
        if len(first) == 1:
            first *= len(second)
        if len(first) != len(second):
            raise BadRequest(
                f"'text_1' holds {counted(len(first), 'text')} and 'text_2' {len(second)}; "
                "send the same number in both, or one in 'text_1'",
                param="text_1",
            )
        inputs.update(text_1=first, text_2=second)
        inputs.pop("stream", None)
        return Prepared(model, inputs, options={"texts": [*first, *second]})

    def encoder(self, prepared: Prepared, context: Context) -> ScoreEncoder:
        return ScoreEncoder(prepared, context)


def read_texts(inputs: dict[str, Any], name: str) -> list[str]:
    """Return one or more texts as a list."""
    value = inputs.get(name)
    if value is None:
        raise missing(name)
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts[:MAX_TEXTS]):
        raise wrong_type(name, "a string or an array of strings", value)
    if not texts:
        raise BadRequest(f"'{name}' must hold at least one text", param=name)
    if len(texts) > MAX_TEXTS:
        told = f"'{name}' may hold at most {MAX_TEXTS} texts, not {len(texts)}; send them in several requests"
        raise BadRequest(told, param=name)
    return list(texts)


class ScoreEncoder(ValueEncoder):
    """Accepts a list of scores, one for each pair; a number for one pair; a dict with `scores` or vLLM's `data`."""

    method = "score"

    def texts(self) -> Sequence[str]:
        texts: list[str] = self.options["texts"]
        return texts

    def answer(self, value: Any) -> dict[str, Any]:
        scores = self._scores(value)
        pairs = len(self.inputs["text_2"])
        if len(scores) != pairs:
            raise InvalidOutput(f"score returned {counted(len(scores), 'score')} for {counted(pairs, 'pair')}")
        return {
            "id": f"score-{self.context.hex_id}",
            "object": "list",
            "created": self.context.created,
            "model": self.context.model,
            "data": [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)],
            "usage": self.openai_usage(),
        }

    def _scores(self, value: Any) -> list[float]:
        if isinstance(value, dict):
            value = next((value[name] for name in ("scores", "data", "score") if name in value), value)
        if is_number(value):
            value = [value]
        scores = floats(value)
        if scores is not None:
            return scores
        items = rows(value)
        if items and all(isinstance(item, dict) and is_number(item.get("score")) for item in items):
            if all(type(item.get("index")) is int for item in items):
                items.sort(key=lambda item: item["index"])
            finite(*(item["score"] for item in items))
            return [float(item["score"]) for item in items]
        raise self.invalid(value, "a list of scores")
