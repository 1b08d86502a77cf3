"""POST /v1/moderations: OpenAI's moderations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import BadRequest, InvalidOutput
from ...hookspecs import hookimpl
from ...spec import Endpoint
from ...wording import counted
from .. import answer_schemas
from ..base import Context, Dialect, Prepared
from ..events import checked
from ..fields import MOST_ECHOED, missing, take, wrong_type
from ..single_value import MAX_TEXTS, ValueEncoder, finite, is_number, rows

MOST_KINDS = 8  # types of an input that each category of the answer repeats; there are two
THRESHOLD = 0.5  # for a score whose category the model does not decide
# OpenAI's categories, which typed clients require. A model may add others.
CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
RESULT = frozenset({"flagged", "categories", "category_scores"})
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "model": {"type": "string", "description": "Optional if only one model serves the route"},
        "input": {"type": ["string", "array"], "items": {"type": ["string", "object"]}, "maxItems": MAX_TEXTS},
    },
    "additionalProperties": True,
    "example": {"input": "I will find you."},
}


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(
        Endpoint(path="/v1/moderations", method="moderations", dialect="moderations", summary="OpenAI moderations.")
    )


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("moderations", ModerationsDialect())


class ModerationsDialect(Dialect):
    request_schema = SCHEMA
    response_schema = answer_schemas.MODERATION

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        inputs["input"] = read_input(inputs.get("input"))
        inputs.pop("stream", None)
        return Prepared(model, inputs)

    def encoder(self, prepared: Prepared, context: Context) -> ModerationsEncoder:
        return ModerationsEncoder(prepared, context)


def read_input(value: Any) -> list[Any]:
    """Return the inputs as a list: texts, or one list of content parts, which are judged together."""
    if value is None:
        raise missing("input")
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and not value:
        raise BadRequest("'input' must hold at least one text", param="input")
    if isinstance(value, list) and len(value) > MAX_TEXTS:
        told = f"'input' may hold at most {MAX_TEXTS} texts or parts, not {len(value)}; send them in several requests"
        raise BadRequest(told, param="input")
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    if isinstance(value, list) and all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in value):
        return [value]
    raise wrong_type("input", "a string, an array of strings, or an array of content parts", value)


class ModerationsEncoder(ValueEncoder):
    """Encodes one result for each input: scores by category, whether it is flagged, or OpenAI's result, completed."""

    method = "moderations"

    def answer(self, value: Any) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if isinstance(value, dict) and "results" in value:
            given = checked({name: item for name, item in value.items() if name not in ("results", "usage")}, "it")
            value = value["results"]
        judged = len(self.inputs["input"])
        items = [value] if isinstance(value, bool | dict) and judged == 1 else rows(value)
        if items is None:
            raise self.invalid(value, f"a list of {counted(judged, 'result')}")
        if len(items) != judged:
            raise InvalidOutput(f"moderations returned {counted(len(items), 'result')} for {counted(judged, 'input')}")
        results = [self._result(item) for item in items]
        return {"id": f"modr-{self.context.hex_id}", **given, "model": self.context.model, "results": results}

    def _result(self, item: Any) -> dict[str, Any]:
        if isinstance(item, bool):
            item = {"flagged": item}
        if not isinstance(item, dict):
            raise self.invalid(item, "scores by category")
        if RESULT.isdisjoint(item):
            item = {"category_scores": item}
        scores, decided = item.get("category_scores") or {}, item.get("categories") or {}
        if not isinstance(scores, dict) or not all(is_number(score) for score in scores.values()):
            raise self.invalid(scores, "scores by category")
        if not isinstance(decided, dict) or not all(isinstance(value, bool) for value in decided.values()):
            raise self.invalid(decided, "true or false by category")
        finite(*scores.values())
        names = dict.fromkeys((*CATEGORIES, *scores, *decided))
        categories = {name: decided.get(name, scores.get(name, 0.0) >= THRESHOLD) for name in names}
        flagged = item.get("flagged")
        kinds = self._kinds()
        return {
            "flagged": flagged if isinstance(flagged, bool) else any(categories.values()),
            "categories": categories,
            "category_scores": {name: float(scores.get(name, 0.0)) for name in names},
            "category_applied_input_types": dict.fromkeys(names, kinds),
            **checked({name: value for name, value in item.items() if name not in RESULT}, "a result"),
        }

    def _kinds(self) -> list[str]:
        """Return the types of the input: text, image, or both."""
        first = self.inputs["input"][0]
        if isinstance(first, str):
            return ["text"]
        given = dict.fromkeys("image" if part["type"] == "image_url" else part["type"] for part in first)
        return [kind[:MOST_ECHOED] for kind in given][:MOST_KINDS]  # each category repeats them
