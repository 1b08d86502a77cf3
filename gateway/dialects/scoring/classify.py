"""POST /v1/classify: the class of each text, in vLLM's format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...errors import InvalidOutput
from ...hookspecs import hookimpl
from ...spec import Endpoint
from ...wording import counted
from .. import answer_schemas
from ..base import Context, Dialect, Prepared
from ..fields import take
from ..single_value import MAX_TEXTS, ValueEncoder, floats, rows
from .score import read_texts

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "model": {"type": "string", "description": "Optional if only one model serves the route"},
        "input": {"type": ["string", "array"], "items": {"type": "string"}, "maxItems": MAX_TEXTS},
    },
    "additionalProperties": True,
    "example": {"input": ["What a film!", "Never again."]},
}


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(
        Endpoint(path="/v1/classify", method="classify", dialect="classify", summary="Classes of texts as in vLLM.")
    )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("classify", ClassifyDialect())


class ClassifyDialect(Dialect):
    request_schema = SCHEMA
    response_schema = answer_schemas.CLASSIFY

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        inputs["input"] = read_texts(inputs, "input")
        inputs.pop("stream", None)
        return Prepared(model, inputs)

    def encoder(self, prepared: Prepared, context: Context) -> ClassifyEncoder:
        return ClassifyEncoder(prepared, context)


class ClassifyEncoder(ValueEncoder):
    """Accepts for each text: probabilities by label, a list of them, items of a transformers pipeline, or vLLM's."""

    method = "classify"

    def texts(self) -> Sequence[str]:
        texts: list[str] = self.inputs["input"]
        return texts

    def answer(self, value: Any) -> dict[str, Any]:
        found = [self._class(item) for item in self._items(value)]
        data = [
            {"index": index, "label": label, "probs": probs, "num_classes": len(probs)}
            for index, (label, probs) in enumerate(found)
        ]
        return {
            "id": f"classify-{self.context.hex_id}",
            "object": "list",
            "created": self.context.created,
            "model": self.context.model,
            "data": data,
            "usage": self.openai_usage(),
        }

    def _items(self, value: Any) -> list[Any]:
        """Return the result for each text. For a single text the value may be the item itself."""
        texts = len(self.inputs["input"])
        if isinstance(value, dict) and "data" in value:
            value = value["data"]
        items = rows(value)
        flat = items is None or (floats(items) is not None)
        if texts == 1 and (flat or len(items or ()) != 1):
            return [value]
        if items is None or flat:
            raise self.invalid(value, f"a list of {counted(texts, 'item')}")
        if len(items) != texts:
            raise InvalidOutput(f"classify returned {counted(len(items), 'item')} for {counted(texts, 'text')}")
        return items

    def _class(self, item: Any) -> tuple[str | None, list[float]]:
        """Return the best label, and the probability of every class."""
        if isinstance(item, dict):
            return self._dict(item)
        probs = floats(item)
        if probs:
            return None, probs
        items = rows(item)
        if items and all(isinstance(one, dict) and isinstance(one.get("label"), str) for one in items):
            return self._best({one["label"]: one.get("score") for one in items})
        raise self.invalid(item, "probabilities of classes")

    def _dict(self, item: dict[str, Any]) -> tuple[str | None, list[float]]:
        label = item.get("label")
        if "label" not in item or not isinstance(label, str | None):
            return self._best(item)
        probs = floats(item["probs"] if "probs" in item else [item.get("score")])
        if not probs:
            raise self.invalid(item, "a label with `probs` or a `score`")
        return label, probs

    def _best(self, by_label: dict[str, Any]) -> tuple[str, list[float]]:
        probs = floats(list(by_label.values()))
        if not probs:
            raise self.invalid(by_label, "probabilities by label")
        return list(by_label)[probs.index(max(probs))], probs
