"""POST /v1/decisions: typed questions about an input, answered with probabilities, as in OpenAI's API.

A question is a `predicate` (how likely is this?), a `choice` among options, or a `score` on ordered levels. The method
returns for each question only probabilities; the answers are made of them here. Confidence is the probability of the
best option, times the probability mass on all options: below 1 if the model considered others too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...errors import InvalidOutput
from ...hookspecs import hookimpl
from ...spec import Endpoint
from ...wording import counted
from .. import answer_schemas
from ..base import Context, Dialect, Prepared
from ..fields import missing, take
from ..single_value import ValueEncoder, finite, floats, is_number, rows
from .decision_request import MOST_OPTIONS, MOST_QUESTIONS, OPTIONS, read_input, read_questions, texts_of

ROUNDING = 1e-3  # by which a sum of probabilities may exceed 1
TEXT = {"type": ["string", "array"], "items": {"type": "object"}}
OPTION = {
    "type": "object",
    "properties": {"value": {"type": ["string", "boolean"]}, "label": {"type": "string"}},
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["input", "questions"],
    "properties": {
        "model": {"type": "string", "description": "Optional if only one model serves the route"},
        "input": TEXT,
        "questions": {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_QUESTIONS,
            "items": {
                "type": "object",
                "required": ["type", "instructions"],
                "properties": {
                    "type": {"enum": list(OPTIONS)},
                    "instructions": TEXT,
                    "name": {"type": "string"},
                    "choices": {"type": "array", "minItems": 2, "maxItems": MOST_OPTIONS, "items": OPTION},
                    "levels": {"type": "array", "minItems": 2, "maxItems": MOST_OPTIONS, "items": OPTION},
                },
            },
        },
    },
    "additionalProperties": True,
    "example": {
        "input": "What a film!",
        "questions": [
            {
                "type": "choice",
                "instructions": "The tone of the review.",
                "choices": [{"value": "positive"}, {"value": "negative"}],
            }
        ],
    },
}


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(Endpoint(path="/v1/decisions", method="decide", dialect="decisions", summary="OpenAI decisions."))


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("decisions", DecisionsDialect())


class DecisionsDialect(Dialect):
    request_schema = SCHEMA
    response_schema = answer_schemas.DECISIONS

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        if "input" not in inputs:
            raise missing("input", inputs.keys() - {"model", "questions"})
        inputs["input"] = read_input(inputs["input"])
        inputs["questions"] = read_questions(inputs.get("questions"))
        inputs.pop("stream", None)
        return Prepared(model, inputs)

    def encoder(self, prepared: Prepared, context: Context) -> DecisionsEncoder:
        return DecisionsEncoder(prepared, context)


class DecisionsEncoder(ValueEncoder):
    """Accepts for each question probabilities in the order of the options, or by option; None is a refusal."""

    method = "decide"

    def texts(self) -> Sequence[str]:
        given = self.inputs["input"]
        contents = [given] if isinstance(given, str) else [item.get("content", item.get("output")) for item in given]
        asked = [question["instructions"] for question in self.inputs["questions"]]
        return [text for content in (*contents, *asked) for text in texts_of(content)]

    def answer(self, value: Any) -> dict[str, Any]:
        questions = self.inputs["questions"]
        if isinstance(value, dict) and "answers" in value:
            value = value["answers"]
        items = [value] if len(questions) == 1 and not isinstance(value, list) else rows(value)
        if items is None:
            raise self.invalid(value, f"a list of {counted(len(questions), 'answer')}")
        if len(items) != len(questions):
            raise InvalidOutput(
                f"decide returned {counted(len(items), 'answer')} for {counted(len(questions), 'question')}"
            )
        tokens = self.prompt_tokens
        return {
            "answers": [self._answer(question, item) for question, item in zip(questions, items, strict=True)],
            "model": self.context.model,
            "usage": {
                "input_tokens": tokens,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
                "output_tokens": 0,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": tokens,
            },
        }

    def _answer(self, question: dict[str, Any], item: Any) -> dict[str, Any]:
        kind, name = question["type"], question.get("name")
        if item is None:
            return {"type": "refusal", "name": name}
        if (options := OPTIONS[kind]) is None:
            return {"type": kind, "name": name, "probability": self._probability(item)}
        field, key = options
        values = [option[key] for option in question[field]]
        masses = self._masses(item, values)
        mass = sum(masses)
        shares = [each / mass for each in masses]
        best = shares.index(max(shares))
        found: dict[str, Any] = {"type": kind, "name": name, "confidence": shares[best] * min(mass, 1.0)}
        if kind == "choice":
            found["choice"] = values[best]
            pairs = zip(values, shares, strict=True)
            return {**found, "probabilities": [{"value": value, "probability": share} for value, share in pairs]}
        found["score"] = sum(level * share for level, share in enumerate(shares))
        levels = zip(range(len(values)), values, shares, strict=True)
        return {
            **found,
            "probabilities": [{"label": label, "value": level, "probability": share} for level, label, share in levels],
        }

    def _probability(self, item: Any) -> float:
        if isinstance(item, list) and len(item) == 1:
            item = item[0]
        if not is_number(item):
            raise self.invalid(item, "a probability")
        finite(item)
        if not 0 <= item <= 1 + ROUNDING:
            raise InvalidOutput(f"decide returned {item}, which is no probability")
        return min(float(item), 1.0)

    def _masses(self, item: Any, values: list[Any]) -> list[float]:
        """Return the probability of each option. Together they may be less than 1, but more than 0."""
        if isinstance(item, dict):
            names = [str(value).lower() if isinstance(value, bool) else value for value in values]
            if unknown := [name for name in item if name not in names]:
                raise InvalidOutput(f"decide returned a probability for {unknown[0]!r}, which is none of the options")
            item = [item.get(name, 0.0) for name in names]
        found = floats(item)
        if found is None:
            raise self.invalid(item, "probabilities of the options")
        if len(found) != len(values):
            raise InvalidOutput(
                f"decide returned {counted(len(found), 'probability', 'probabilities')} for "
                f"{counted(len(values), 'option')}"
            )
        if min(found) < 0 or not 0 < sum(found) <= 1 + ROUNDING:
            raise InvalidOutput(f"decide returned probabilities with the sum {sum(found):g}; each must be 0 or more")
        return found
