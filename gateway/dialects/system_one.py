"""POST /v1/systemone: named questions about a state, in the form of System One models (Jev, transformers, vLLM).

The same decisions as at /v1/decisions, in an older form: the questions become those of that route, so any `decide`
answers both, and its probabilities become the answers of this one. `noul` is its word for a statement that is true or
not. Confidence is 0 if all options are equally likely and 1 if one is certain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import BadRequest, GatewayError
from ..hookspecs import hookimpl
from ..spec import Endpoint
from . import answer_schemas
from .base import Context, Dialect, Prepared
from .events import encode_json
from .fields import MOST_ECHOED, missing, take, wrong_type
from .openai.decision_request import FEWEST_OPTIONS, MOST_OPTIONS, refuse_others
from .openai.decisions import DecisionsEncoder

MOST_QUESTIONS = 64
FIELDS = frozenset({"type", "instructions", "criteria"})
KINDS = ("noul", "choice", "score")
SIDES = ("true", "false")  # the options of a noul that may be described
CONTENT = (str, dict, list)  # a text, or JSON that is read as a text
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["state", "questions"],
    "properties": {
        "model": {"type": "string", "description": "Optional if only one model serves the route"},
        "state": {"type": ["string", "object", "array"]},
        "questions": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": MOST_QUESTIONS,
            "additionalProperties": {
                "type": "object",
                "required": ["type"],
                "properties": {
                    "type": {"enum": list(KINDS)},
                    "instructions": {"type": ["string", "object", "array"]},
                    "criteria": {"type": ["object", "array"]},
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": True,
    "example": {
        "state": "What a film!",
        "questions": {
            "tone": {
                "type": "choice",
                "instructions": "The tone of the review.",
                "criteria": {"positive": None, "negative": None},
            }
        },
    },
}


@hookimpl
def register_endpoints(register: Callable[[Endpoint], None]) -> None:
    register(Endpoint(path="/v1/systemone", method="decide", dialect="system_one", summary="System One decisions."))


@hookimpl
def register_dialects(register: Callable[[str, Any], None]) -> None:
    register("system_one", SystemOneDialect())


class SystemOneDialect(Dialect):
    request_schema = SCHEMA
    response_schema = answer_schemas.SYSTEM_ONE

    def read(self, body: dict[str, Any], method: str) -> Prepared:
        inputs = {name: value for name, value in body.items() if value is not None}
        model = take(inputs, "model", str)
        if "state" not in inputs:
            raise missing("state", inputs.keys() - {"model", "questions"})
        questions = _read_questions(inputs.pop("questions", None))
        if inputs.pop("assets", None):
            what = "'assets' are images, which these models do not read; send the state as text"
            raise BadRequest(what, param="assets", code="unsupported_value")
        inputs["input"] = _text(inputs.pop("state"), "state")
        inputs["questions"] = [_asked(name, question) for name, question in questions.items()]
        inputs.pop("stream", None)
        return Prepared(model, inputs, options={"questions": questions})

    def encoder(self, prepared: Prepared, context: Context) -> SystemOneEncoder:
        return SystemOneEncoder(prepared, context)


class SystemOneEncoder(DecisionsEncoder):
    """Accepts what the encoder of decisions accepts, and writes its answers by their names."""

    def answer(self, value: Any) -> dict[str, Any]:
        found = super().answer(value)["answers"]
        questions = self.options["questions"].items()
        return {
            "model": self.context.model,
            "answers": {name: _told(question, each) for (name, question), each in zip(questions, found, strict=True)},
            "usage": {"input_tokens": self.prompt_tokens, "output_tokens": 0},
        }

    def retell(self, error: GatewayError, call: int) -> None:
        """An error about `questions[1].choices[0].value` is about the criteria of the second question."""
        param = getattr(error, "param", None) or ""
        if param.startswith("questions["):
            index, _, rest = param.removeprefix("questions[").partition("]")
            names = list(self.options["questions"])
            if index.isdecimal() and int(index) < len(names):
                field = "instructions" if rest.startswith(".instructions") else "criteria"
                error.param = f"questions.{names[int(index)][:MOST_ECHOED]}.{field}"
        elif param == "input" or param.startswith("input["):
            error.param = "state"


def _read_questions(value: Any) -> dict[str, dict[str, Any]]:
    """Return the questions by name.

    Raises:
        BadRequest: there are none or too many, or one is malformed.
    """
    if value is None:
        raise missing("questions")
    if not isinstance(value, dict):
        raise wrong_type("questions", "an object with a question for each name", value)
    if not 1 <= len(value) <= MOST_QUESTIONS:
        raise BadRequest(f"'questions' must have 1 to {MOST_QUESTIONS} questions", param="questions")
    return {name: _read_question(each, f"questions.{name[:MOST_ECHOED]}") for name, each in value.items()}


def _read_question(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(where, "an object", value)
    question: dict[str, Any] = {name: each for name, each in value.items() if each is not None}
    kind = question.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadRequest(f"'{where}.type' must be one of {', '.join(KINDS)}", param=f"{where}.type")
    refuse_others(question, FIELDS, where)
    _text(question.get("instructions", ""), f"{where}.instructions")
    criteria: Any = question.get("criteria")
    place = f"{where}.criteria"
    if kind == "noul":
        _read_sides(question, criteria, place)
    elif criteria is None:
        raise missing(place)
    elif not isinstance(criteria, dict if kind == "choice" else list):
        raise wrong_type(place, "an object" if kind == "choice" else "an array", criteria)
    elif not FEWEST_OPTIONS <= len(criteria) <= MOST_OPTIONS:
        raise BadRequest(f"'{place}' must have {FEWEST_OPTIONS} to {MOST_OPTIONS} options", param=place)
    elif isinstance(criteria, dict):
        for name, each in criteria.items():
            _text("" if each is None else each, f"{place}.{name[:MOST_ECHOED]}")
    else:
        levels = [_text(each, f"{place}[{index}]") for index, each in enumerate(criteria)]
        if len(set(levels)) < len(levels):
            raise BadRequest(f"'{place}' has a level twice", param=place)
    return question


def _read_sides(question: Mapping[str, Any], criteria: Any, place: str) -> None:
    if criteria is None:
        if "instructions" not in question:
            raise missing(place.replace(".criteria", ".instructions"))
        return
    if not isinstance(criteria, dict):
        raise wrong_type(place, "an object with true and false", criteria)
    refuse_others(criteria, SIDES, place)
    for name, each in criteria.items():
        _text("" if each is None else each, f"{place}.{name}")


def _asked(name: str, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return a question as /v1/decisions has it."""
    kind: str = question["type"]
    criteria: Any = question.get("criteria") or {}
    asked: dict[str, Any] = {"name": name, "instructions": _text(question.get("instructions", ""), "")}
    if kind == "noul" and not any(criteria.values()):
        return {"type": "predicate", **asked}
    if kind == "noul":  # a predicate has no descriptions
        return {"type": "choice", **asked, "choices": [_option(side == "true", criteria.get(side)) for side in SIDES]}
    if kind == "choice":
        return {"type": "choice", **asked, "choices": [_option(*each) for each in criteria.items()]}
    return {"type": "score", **asked, "levels": [{"label": _text(each, "")} for each in criteria]}


def _option(value: str | bool, description: Any) -> dict[str, Any]:
    return {"value": value, "description": _text(description, "")} if description else {"value": value}


def _told(question: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Return an answer in the form of this route, from that of /v1/decisions."""
    kind = question["type"]
    if answer["type"] == "refusal":
        return {"type": "refusal"}
    if answer["type"] == "predicate":
        return {"type": "noul", "noul": answer["probability"]}
    shares = [each["probability"] for each in answer["probabilities"]]
    if kind == "noul":
        return {"type": "noul", "noul": shares[0]}
    count, best = len(shares), shares.index(max(shares))
    if kind == "choice":
        confidence = (shares[best] - 1 / count) / (1 - 1 / count)
        by_name = dict(zip(question["criteria"], shares, strict=True))
        told = {"choice": answer["choice"], "confidence": max(0.0, confidence), "probabilities": by_name}
        return {"type": "choice", **told}
    # The mean distance from the likeliest level, relative to that of levels which are all as likely from the middle.
    distance = sum(share * abs(level - best) for level, share in enumerate(shares))
    even = sum(abs(level - (count - 1) / 2) for level in range(count)) / count
    return {
        "type": "score",
        "score": answer["score"],
        "legend": {str(level): each for level, each in enumerate(question["criteria"])},
        "confidence": max(0.0, 1 - distance / even),
        "probabilities": {str(level): share for level, share in enumerate(shares)},
    }


def _text(value: Any, where: str) -> str:
    """Return a text, or JSON as its text.

    Raises:
        BadRequest: it is a number or a boolean.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, CONTENT):
        raise wrong_type(where, "a string, an object or an array", value)
    return encode_json(value).decode()
