"""A method that no route calls, and whose name is nearly that of one that a route does call."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from ..near_names import CALLED, near


def hint(model: Any, endpoint_methods: Collection[str], have: Collection[str]) -> str:
    """A sentence that names it, with a space before; empty when there is none. `have` are those that are served."""
    return "".join(
        f" the class has `{name}`, which nothing calls: did you mean `{meant}`?"
        for name, meant in near(_own_methods(type(model)), {*endpoint_methods, *CALLED}, have)
        if not hasattr(model, meant)
    )


def _own_methods(cls: type) -> list[str]:
    """Of the class and of its bases that are in the same file: a library's may be called as it likes."""
    found: dict[str, None] = {}
    for base in cls.__mro__:
        if base.__module__ == cls.__module__ and base is not object:
            found.update({name: None for name, value in vars(base).items() if inspect.isroutine(value)})
    return [name for name in found if not name.startswith("_")]
