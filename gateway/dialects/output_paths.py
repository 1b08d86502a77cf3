"""Find the path to an invalid part of a model's output. It is searched only after an error was found."""

from __future__ import annotations

from typing import Any, Self

from ..errors import InvalidOutput
from ..wire.values import Structured
from ..wording import path_of


def at(part: Any, whole: Any) -> str:
    """Return " (at $.results[1].score)" for the object `part` in `whole`; "" if it is all of it or not in it.

    Also "" if it occurs twice, as None or a small number may: a wrong path would be worse than none.
    """
    todo: list[tuple[Any, tuple[str | int, ...]]] = [(whole, ())]
    found: tuple[str | int, ...] | None = None
    while todo:
        item, steps = todo.pop()
        if isinstance(item, Structured) and part is not item:
            item = item.fields
        if item is part:
            if found is not None:
                return ""
            found = steps
        elif isinstance(item, dict):
            todo += [(each, (*steps, key)) for key, each in reversed(item.items())]
        elif isinstance(item, list):
            todo += [(each, (*steps, index)) for index, each in reversed(list(enumerate(item)))]
    return f" (at {path_of(found)})" if found else ""


class Odd(InvalidOutput):
    """An invalid part of an output. Code that has the whole output adds the path to it."""

    def __init__(self, message: str, part: Any) -> None:
        super().__init__(message)
        self.part = part

    def within(self, whole: Any) -> Self:
        self.message += at(self.part, whole)
        return self
