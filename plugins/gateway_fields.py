"""Helpers for tables of request fields, for plugins that serve models without code.

The tables are in the `fields` modules of gateway_transformers and gateway_sentence_transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway import BadRequest

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
