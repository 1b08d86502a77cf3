"""Read the fields of requests: texts, and how many labels or which vectors are wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway_fields import texts_of, unsupported

from gateway import BadRequest

SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "One text, whose labels are the answer"},
        "texts": {"type": "array", "items": {"type": "string"}, "description": "Several; the answer has `predictions`"},
        "k": {"type": "integer", "minimum": 1, "default": 1, "description": "At most so many labels"},
        "threshold": {"type": "number", "minimum": 0, "maximum": 1, "default": 0, "description": "Their probability"},
    },
    "examples": [{"text": "an example", "k": 3}],
}
Unit = Literal["sentence", "word"]


@dataclass(frozen=True, slots=True)
class Ask:
    texts: Sequence[str]
    is_one: bool
    k: int = 1
    threshold: float = 0.0


def read_predict(body: Any) -> Ask:
    """Return what a body of predict asks for.

    Raises:
        BadRequest: it is no such request.
    """
    found = texts_of(body, "k", "threshold")
    lines = [line(text, found.where(place), found.name) for place, text in enumerate(found.values)]
    return Ask(lines, found.is_one, _count(found.fields), _threshold(found.fields))


def _count(body: Mapping[str, Any]) -> int:
    value = body.get("k")
    if value is None:
        return 1
    if type(value) is not int or value < 1:
        raise BadRequest("k has to be a whole number from 1 on", param="k")
    return min(value, 1 << 30)


def _threshold(body: Mapping[str, Any]) -> float:
    value = body.get("threshold")
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 or math.isnan(value):
        raise BadRequest("threshold has to be a number from 0 to 1", param="threshold")
    return float(value)


def line(text: Any, where: str, param: str) -> str:
    """Return a text as one line, which is what the library reads.

    Raises:
        BadRequest: it is no text.
    """
    if not isinstance(text, str):
        raise BadRequest(f"{where} has to be a text", param=param, code="invalid_type")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"{where} has half a character", param=param) from error
    return text.replace("\n", " ")


def read_classify(inputs: Mapping[str, Any]) -> list[str]:
    """Return the texts of a request of classify, whose answer has every label.

    Raises:
        BadRequest: a field cannot be honoured.
    """
    for name in ("k", "top_k", "threshold"):
        if inputs.get(name) is not None:
            raise unsupported(f"classify answers with every label: use predict for {name}", name)
    given = inputs["input"]
    texts = [given] if isinstance(given, str) else given
    return [line(text, f"input[{place}]", "input") for place, text in enumerate(texts)]


def read_unit(inputs: Mapping[str, Any]) -> Unit:
    """Return whether an input of embeddings is a sentence or one word.

    Raises:
        BadRequest: it is another.
    """
    value = inputs.get("unit")
    if value not in (None, "sentence", "word"):
        raise BadRequest('unit has to be "sentence" or "word"', param="unit")
    return "word" if value == "word" else "sentence"
