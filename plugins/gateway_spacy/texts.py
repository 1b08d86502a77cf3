"""Read a request to a pipeline: its texts, and the parts of a document that are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway_fields import MOST_TEXTS, texts_of

from gateway import BadRequest, ConfigError

PARTS = ("text", "ents", "sents", "tokens", "cats", "spans")
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": "One text, whose document is the answer"},
        "texts": {
            "type": "array",
            "items": {"type": "string"},
            "maxItems": MOST_TEXTS,
            "description": "Several texts; the answer has `documents`",
        },
        "include": {
            "type": "array",
            "items": {"enum": list(PARTS)},
            "description": "Parts of a document that the answer has; all that the pipeline gives by default",
        },
    },
    "examples": [{"text": "Ada Lovelace was born in London in 1815."}],
}


@dataclass(frozen=True, slots=True)
class Request:
    texts: Sequence[str]
    is_one: bool
    parts: frozenset[str]


def read_request(body: Any, parts: frozenset[str], longest: int) -> Request:
    """Return the texts of a body. `longest`: the characters that the pipeline reads, of all texts together.

    Raises:
        BadRequest: it is no such request.
    """
    found = texts_of(body, "include")
    for place, text in enumerate(found.values):
        where, name = found.where(place), found.name
        if not isinstance(text, str):
            raise BadRequest(f"{where} has to be a text", param=name, code="invalid_type")
        if len(text) > longest:
            what = f"{where} has {len(text)} characters, and the pipeline reads up to {longest}: send it in parts"
            raise BadRequest(what, param=name, code="context_length_exceeded")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRequest(f"{where} has half a character", param=name) from error
    if (size := sum(map(len, found.values))) > longest:
        what = f"the texts have {size} characters, and the pipeline reads up to {longest} at once"
        raise BadRequest(f"{what}: send several requests", param=found.name, code="context_length_exceeded")
    if found.fields.get("include") is not None:
        parts = read_parts(found.fields["include"])
    return Request(found.values, found.is_one, parts)


def read_parts(given: Any) -> frozenset[str]:
    """Return the parts of a document that a list names.

    Raises:
        BadRequest: it is no list of such parts.
    """
    if not isinstance(given, list) or not all(isinstance(each, str) and each in PARTS for each in given):
        raise BadRequest(f"include has to be a list of some of {', '.join(PARTS)}", param="include")
    return frozenset(given)


def default_parts(options: Mapping[str, Any]) -> frozenset[str]:
    """Return the parts that the option `include` names; all if it is not set.

    Raises:
        ConfigError: the option is wrong.
    """
    try:
        return read_parts(options.get("include", list(PARTS)))
    except BadRequest as error:
        raise ConfigError(f"config.yaml: options: {error.message}") from error
