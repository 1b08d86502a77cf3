"""Helpers for request fields, for plugins that serve models without code.

Tables of fields are in the `fields` modules of gateway_language and gateway_sentence_transformers. `texts_of` reads the
texts of a predict for gateway_fasttext and gateway_spacy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gateway import BadRequest

TEXTS = ("text", "texts", "inputs")  # a text, or a list of texts
MOST_TEXTS = 10_000
IGNORED = ("model", "id")  # fields of every predict
EMPTY: tuple[Any, ...] = ("", [], {})


@dataclass(frozen=True, slots=True)
class Field:
    """A request field. `means` is its documentation. A value in `neutral`, or null, has no effect."""

    does: Literal["honoured", "refused", "passed"]
    means: str = ""
    neutral: tuple[Any, ...] = ()
    instead: str = ""  # what to send instead
    alias: str | None = None  # our name for it
    only: str | None = None  # the only route that takes it
    of_prompt: bool = False  # it changes the prompt, so it matters when only tokens are counted

    def is_neutral(self, value: Any) -> bool:
        return any(value == each and isinstance(value, bool) is isinstance(each, bool) for each in self.neutral)

    def refusal(self, name: str) -> BadRequest:
        hint = f": send {self.instead}" if self.instead else ""
        return unsupported(f"this model does not support {name}{hint}", name)


def honoured(neutral: tuple[Any, ...] = (), /, **fields: str) -> dict[str, Field]:
    return {name: Field("honoured", means, neutral) for name, means in fields.items()}


def refused(*neutral: Any, names: str, instead: str = "") -> dict[str, Field]:
    return dict.fromkeys(names.split(), Field("refused", neutral=neutral, instead=instead))


def passed(means: str, names: str) -> dict[str, Field]:
    return dict.fromkeys(names.split(), Field("passed", means))


def misspelt(name: str, known: Mapping[str, str]) -> BadRequest | None:
    """Return an error for a name that differs from a known one only by case, `-` or `_`; `known` is from `folded`."""
    meant = known.get(_fold(name))
    if meant is None or meant == name:
        return None
    return unsupported(f"there is no field {name}; did you mean {meant}?", name)


def folded(names: list[str]) -> dict[str, str]:
    return {_fold(name): name for name in names}


def _fold(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def unsupported(what: str, param: str) -> BadRequest:
    return BadRequest(what, param=param, code="unsupported_value")


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of a body, which have not been looked at. `fields` is the whole body."""

    fields: Mapping[str, Any]
    name: str  # of the field that has them
    values: Sequence[Any]
    is_one: bool

    def where(self, place: int) -> str:
        return self.name if self.is_one else f"{self.name}[{place}]"


def texts_of(body: Any, *others: str) -> Texts:
    """Return the texts of a body of predict, which may also have the fields `others`.

    Raises:
        BadRequest: it has another field, or no text or list of texts.
    """
    if not isinstance(body, Mapping):
        body = {"texts" if isinstance(body, list) else "text": body}
    for name, value in body.items():
        if name not in (*TEXTS, *IGNORED, *others) and value is not None:
            have = ", ".join(("text", "texts", *others))
            raise unsupported(f"there is no field {str(name)[:60]!a} (have: {have})", str(name)[:60])
    given = [name for name in TEXTS if body.get(name) is not None]
    if len(given) != 1:
        raise BadRequest('send one of "text" and "texts"', param="text")
    (name,) = given
    value = body[name]
    is_one = isinstance(value, str)
    if not is_one and (name == "text" or not isinstance(value, list)):
        wanted = "a text" if name == "text" else "a list of texts"
        raise BadRequest(f"{name} has to be {wanted}", param=name, code="invalid_type")
    values = [value] if is_one else value
    if len(values) > MOST_TEXTS:
        raise BadRequest(f"{name} has more than {MOST_TEXTS} texts", param=name)
    return Texts(body, name, values, is_one)
