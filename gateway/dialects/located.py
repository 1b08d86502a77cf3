"""Where in the output of a model something is that cannot be answered with. Looked for only when it was found wrong."""

from __future__ import annotations

from typing import Any

from ..wire import Structured
from ..wording import path_of


def at(part: Any, whole: Any) -> str:
    """ " (at $.results[1].score)" for the very object `part` of `whole`; "" where it is all of it, or none of it."""
    todo: list[tuple[Any, tuple[str | int, ...]]] = [(whole, ())]
    while todo:
        item, steps = todo.pop()
        if isinstance(item, Structured) and part is not item:
            item = item.fields
        if item is part:
            return f" (at {path_of(steps)})" if steps else ""
        if isinstance(item, dict):
            todo += [(each, (*steps, key)) for key, each in reversed(item.items())]
        elif isinstance(item, list):
            todo += [(each, (*steps, index)) for index, each in reversed(list(enumerate(item)))]
    return ""
