"""Read the fields that ask for an answer of a certain form: OpenAI's, vLLM's, llama.cpp's and Ollama's.

The routes have already converted `text.format` of responses and `output_config.format` of messages to
`response_format`. A request has one form, however it is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway_fields import unsupported

from gateway import BadRequest

Kind = Literal["json", "regex", "choice", "grammar"]

VLLM = {"json": "json", "regex": "regex", "choice": "choice", "grammar": "grammar", "json_object": "object"}
# Keys of `structured_outputs` besides the form, with the values that change nothing.
VLLM_MORE: Mapping[str, tuple[Any, ...]] = {
    "disable_fallback": (True, False),
    "disable_any_whitespace": (True, False),
    "disable_additional_properties": (False,),
}
MOST_CHOICES = 1000
LONGEST = 2**17  # characters of a regular expression or a grammar


@dataclass(frozen=True, slots=True)
class Constraint:
    """The form of an answer. `where` is the JSON path of `value` in the request, for errors."""

    kind: Kind
    value: Any  # a schema; texts of a choice; the text of the others
    where: str
    spaced: bool = True  # blanks may be between the parts of JSON


def read_constraint(inputs: Mapping[str, Any]) -> Constraint | None:
    """Return the form that the request asks for; None if any text will do.

    Raises:
        BadRequest: two fields ask for a form, one has a wrong type, or this model cannot do it.
    """
    found = [form for read in READERS for form in read(inputs)]
    if len(found) > 1:
        both = " and ".join(form.where for form in found[:2])
        raise BadRequest(f"{both} both set the form of the answer; send one of them", param=found[1].where)
    return found[0] if found else None


def _response_format(inputs: Mapping[str, Any]) -> Iterator[Constraint]:
    form, name = inputs.get("response_format"), "response_format"
    if form is None:
        return
    if not isinstance(form, dict):
        raise _wrong_type(name, "an object")
    kind, rest = form.get("type"), {key: value for key, value in form.items() if key != "type" and value is not None}
    if kind == "json_object":
        schema = rest.pop("schema", None)  # of llama.cpp
        yield _schema({"type": "object"} if schema is None else schema, f"{name}.schema" if schema else name)
    elif kind == "json_schema":
        where, given = f"{name}.json_schema", rest.pop("json_schema", None)
        if not isinstance(given, dict):
            raise _wrong_type(where, "an object")
        if given.get("schema") is None:
            raise BadRequest(f"{where} has no schema", param=f"{where}.schema")
        if not isinstance(given.get("strict"), bool | None):
            raise _wrong_type(f"{where}.strict", "true or false")
        yield _schema(given["schema"], f"{where}.schema")
    elif kind != "text":
        raise unsupported(f"{name}.type must be text, json_object or json_schema", f"{name}.type")
    if rest:
        key = next(iter(rest))[:64]
        raise unsupported(f"this model does not support {name}.{key}", f"{name}.{key}")


def _structured_outputs(inputs: Mapping[str, Any]) -> Iterator[Constraint]:
    given, name = inputs.get("structured_outputs"), "structured_outputs"
    if not given:
        return
    if not isinstance(given, dict):
        raise _wrong_type(name, "an object")
    for key, value in given.items():
        if key in VLLM or value is None:
            continue
        if not any(value is each for each in VLLM_MORE.get(key, ())):
            raise unsupported(f"this model does not support {name}.{key[:64]}", f"{name}.{key[:64]}")
    forms = [key for key in VLLM if given.get(key) not in (None, False)]
    if len(forms) != 1:
        raise BadRequest(f"{name} must have one of {', '.join(VLLM)}", param=name)
    (form,) = forms
    constraint = _form(VLLM[form], given[form], f"{name}.{form}")
    is_tight = given.get("disable_any_whitespace") is True
    yield Constraint(constraint.kind, constraint.value, constraint.where, spaced=not is_tight)


def _guided(inputs: Mapping[str, Any]) -> Iterator[Constraint]:
    names = {f"guided_{form}": form for form in ("json", "regex", "choice", "grammar")}
    for name, form in {**names, "guided_json_object": "object", "grammar": "grammar", "json_schema": "json"}.items():
        value = inputs.get(name)
        if value is not None and value is not False and (value != "" or form == "json"):
            yield _form(form, value, name)


def _ollama(inputs: Mapping[str, Any]) -> Iterator[Constraint]:
    value = inputs.get("format")
    if value == "json":
        yield _form("object", True, "format")
    elif value not in (None, ""):
        yield _schema(value, "format")


READERS: tuple[Callable[[Mapping[str, Any]], Iterator[Constraint]], ...] = (
    _response_format,
    _structured_outputs,
    _guided,
    _ollama,
)


def _form(form: str, value: Any, where: str) -> Constraint:
    if form == "object":
        if value is not True:
            raise _wrong_type(where, "true or false")
        return _schema({"type": "object"}, where)
    if form == "json":
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise BadRequest(f"{where} is not JSON", param=where) from error
        return _schema(value, where)
    if form == "choice":
        if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
            raise _wrong_type(where, "a list of texts")
        if len(value) > MOST_CHOICES:
            raise BadRequest(f"{where} may have at most {MOST_CHOICES} texts", param=where)
        return Constraint("choice", tuple(dict.fromkeys(value)), where)
    if not isinstance(value, str) or not value:
        raise _wrong_type(where, "a text")
    if len(value) > LONGEST:
        raise BadRequest(f"{where} may have at most {LONGEST} characters", param=where)
    return Constraint("regex" if form == "regex" else "grammar", value, where)


def _schema(value: Any, where: str) -> Constraint:
    if not isinstance(value, dict | bool):
        raise _wrong_type(where, "a JSON schema, which is an object")
    return Constraint("json", value, where)


def _wrong_type(where: str, wanted: str) -> BadRequest:
    return BadRequest(f"{where} must be {wanted}", param=where, code="invalid_type")
