"""Where in the output of a model something is that cannot be answered with. Looked for only when it was found wrong."""

from __future__ import annotations

from typing import Any, Self

from ..errors import InvalidOutput
from ..wire import Structured
from ..wording import path_of


def at(part: Any, whole: Any) -> str:
    """ " (at $.results[1].score)" for the very object `part` of `whole`; "" where it is all of it, or none of it.

    Also where it is there twice, as None or a small number may be: a wrong path would be worse than none.
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
    """A part of an output that has no meaning there. Whoever has the whole of it says where that part is."""

    def __init__(self, message: str, part: Any) -> None:
        super().__init__(message)
        self.part = part

    def within(self, whole: Any) -> Self:
        self.message += at(self.part, whole)
        return self
