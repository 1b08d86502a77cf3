"""Read requests of predict, and answer several at once, in the form of Hugging Face's inference API.

For plugins that serve what transformers has a pipeline for.

    {"inputs": "a text", "parameters": {"top_k": 3}}

`inputs` may be a list, and the answer then is one too. Parameters may stand beside `inputs` as well, as some clients
send them. A parameter that a task does not know is refused, because it would change the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway_fields import unsupported

from gateway import BadRequest

MOST = 1024  # inputs of one request
# Beside the inputs: names of the gateway, and how the inference API is to wait for a model.
NEUTRAL = frozenset(("model", "id", "options"))
Job = tuple[Any, Mapping[str, Any]]  # an input, and the parameters of its request


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a task. `reads` returns what a value stands for, or raises `ValueError` with what it must be."""

    default: Any
    reads: Callable[[Any], Any]
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its inputs, whether they were a list, and all parameters of the task."""

    inputs: Sequence[Any]
    is_list: bool
    parameters: Mapping[str, Any]


def read(body: Any, parameters: Mapping[str, Parameter], item: Callable[[Any], Any], most: int = MOST) -> Asked:
    """Return what a request asks for. `item` reads one of its at most `most` inputs, or raises `BadRequest`.

    Raises:
        BadRequest: it has another form, an unknown parameter, or an input or parameter that is invalid.
    """
    if not isinstance(body, Mapping) or body.get("inputs") is None:
        raise BadRequest(
            'the body must be an object with inputs: {"inputs": …}', param="inputs", code="missing_required_parameter"
        )
    given = body["inputs"]
    is_list = isinstance(given, list)
    inputs = given if is_list else [given]
    if len(inputs) > most:
        raise BadRequest(f"inputs has {len(inputs):,} entries, and {most:,} are the most", param="inputs")
    found = [_item(each, place if is_list else None, item) for place, each in enumerate(inputs)]
    return Asked(found, is_list, _parameters(body, parameters))


def _item(value: Any, place: int | None, item: Callable[[Any], Any]) -> Any:
    try:
        return item(value)
    except BadRequest as error:
        raise located(error, place) from None


def located(error: BadRequest, place: int | None) -> BadRequest:
    """Return an error about one input of a list, with its place."""
    if place is None:
        return error
    return BadRequest(f"inputs[{place}]: {error}", param=f"inputs[{place}]", code=error.code)


def answer_all(
    bodies: Sequence[Any], read: Callable[[Any], Asked], compute: Callable[[list[Job]], list[Any]]
) -> list[Any]:
    """Return the answer to each request, or the exception that is its result.

    `compute` gets the inputs of all requests with their parameters, and returns an answer or an exception for each.
    """
    asked = [caught(read, each) for each in bodies]
    jobs = [(one, each.parameters) for each in asked if isinstance(each, Asked) for one in each.inputs]
    found = iter(compute(jobs) if jobs else ())
    return [each if isinstance(each, Exception) else _answer(each, found) for each in asked]


def caught(function: Callable[..., Any], *values: Any) -> Any:
    """Return what a function returns for one input, or the exception that it raises."""
    try:
        return function(*values)
    except Exception as error:
        return error


def _answer(asked: Asked, found: Iterator[Any]) -> Any:
    """Return the answer to a request, or the first exception among its results."""
    results = [next(found) for _ in asked.inputs]
    for place, each in enumerate(results):
        if isinstance(each, BadRequest):
            return located(each, place if asked.is_list else None)
        if isinstance(each, Exception):
            return each
    return results if asked.is_list else results[0]


def _parameters(body: Mapping[str, Any], known: Mapping[str, Parameter]) -> dict[str, Any]:
    inside = body.get("parameters")
    if inside is not None and not isinstance(inside, Mapping):
        raise BadRequest("parameters must be an object", param="parameters", code="invalid_type")
    beside = {name: value for name, value in body.items() if name not in ("inputs", "parameters", *NEUTRAL)}
    values = {name: each.default for name, each in known.items()}
    for name, value in (*beside.items(), *(inside or {}).items()):
        if value is None:
            continue
        if name not in known:
            listed = ", ".join(known)
            raise unsupported(f"this model has no parameter {str(name)[:64]} (have: {listed})", str(name)[:64])
        if name in beside and name in (inside or {}) and beside[name] != value:
            raise BadRequest(f"{name} stands in parameters and beside inputs: send one of them", param=name)
        try:
            values[name] = known[name].reads(value)
        except ValueError as error:
            raise BadRequest(f"{name} must be {error}", param=name) from None
    return values


# ── kinds of parameters ──────────────────────────────────────────────────────────────────────────────────────────────


def flag(default: bool | None, what: str) -> Parameter:
    def reads(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value

    return Parameter(default, reads, {"type": "boolean", "default": bool(default), "description": what})


def whole(default: int | None, least: int, most: int, what: str) -> Parameter:
    def reads(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return value

    schema = {"type": "integer", "minimum": least, "maximum": most, "description": what}
    return Parameter(default, reads, schema if default is None else {**schema, "default": default})


def one_of(default: str | None, values: Sequence[str], what: str) -> Parameter:
    def reads(value: Any) -> str:
        if value not in values:
            raise ValueError(f"one of {', '.join(values)}")
        return str(value)

    schema = {"enum": list(values), "description": what}
    return Parameter(default, reads, schema if default is None else {**schema, "default": default})


def words(default: Sequence[str] | None, most: int, what: str) -> Parameter:
    """A list of texts, or one text."""

    def reads(value: Any) -> list[str]:
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or len(listed) > most or not all(isinstance(each, str) for each in listed):
            raise ValueError(f"a list of at most {most} texts")
        return listed

    schema = {"type": ["array", "string"], "items": {"type": "string"}, "maxItems": most, "description": what}
    return Parameter(default, reads, schema if default is None else {**schema, "default": list(default)})


# Without it in a request, the option of the same name decides.
TRUNCATE = flag(None, "cut texts that are too long; otherwise they are refused")


def text(value: Any) -> str:
    """Read an input that is a text."""
    if not isinstance(value, str):
        raise BadRequest("the input must be a text", param="inputs", code="invalid_type")
    return value


def request_schema(
    item: Mapping[str, Any], parameters: Mapping[str, Parameter], example: Mapping[str, Any], most: int = MOST
) -> dict[str, Any]:
    """Return the JSON schema of requests with at most `most` inputs, which are as `item` says."""
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "inputs": {"anyOf": [dict(item), {"type": "array", "items": dict(item), "maxItems": most}]},
            "parameters": {
                "type": "object",
                "properties": {name: dict(each.schema) for name, each in parameters.items()},
            },
        },
        "examples": [dict(example)],
    }


def answer_schema(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of answers: of one input, or of a list."""
    return {"anyOf": [dict(item), {"type": "array", "items": dict(item)}]}
