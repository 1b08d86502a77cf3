"""The rows of a table of request fields, for plugins that serve models without code.

Which fields there are, and what a request with them asks for, is left to gateway_lm_fields and gateway_st_fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway import BadRequest

EMPTY: tuple[Any, ...] = ("", [], {})


@dataclass(frozen=True, slots=True)
class Field:
    """`means` is what it does, for the documentation. With a value in `neutral`, or null, it asks for nothing."""

    does: Literal["honoured", "refused", "passed"]
    means: str = ""
    neutral: tuple[Any, ...] = ()
    instead: str = ""  # what to send in its place
    alias: str | None = None  # our name for it
    only: str | None = None  # the one route that takes it
    of_prompt: bool = False  # it changes the prompt, so it counts where tokens are only counted

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
    """The refusal of a name that is a known one but for case, `-` or `_`; `known` is what `folded` made."""
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
