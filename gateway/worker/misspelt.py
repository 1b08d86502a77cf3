"""A method that no route calls, and whose name is nearly that of one that a route does call."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from ..near_names import CALLED, is_asked_about, near

SELF = ("self", "this", "me", "_", "__self__")  # what authors call the model itself


def hint(model: Any, endpoint_methods: Collection[str], have: Collection[str]) -> str:
    """A sentence that names it, with a space before; empty when there is none. `have` are those that are served."""
    return "".join(
        f" the class has `{name}`, which nothing calls: did you mean `{meant}`?"
        for name, meant in near(_own_methods(type(model)), {*endpoint_methods, *CALLED}, have)
        if not hasattr(model, meant)
    )


def without_self(name: str, function: Any) -> str:
    """A sentence about a method whose one parameter is the model itself, for its author left `self` out; else empty."""
    plain = getattr(function, "__func__", None)
    if not inspect.isfunction(plain) or not inspect.ismethod(function) or inspect.isclass(function.__self__):
        return ""
    taken = list(inspect.signature(plain, follow_wrapped=False).parameters.values())
    first = taken[0].name if len(taken) == 1 and taken[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD else "self"
    if first in SELF:
        return ""
    return (
        f"WARNING gateway: `{name}({first})` has no self, so {first} is the model itself and not what was sent: write "
        f"`{name}(self, {first})`"
    )


def _own_methods(cls: type) -> list[str]:
    """Of the class and of its bases that are in the same file: a library's may be called as it likes."""
    found: dict[str, None] = {}
    for base in cls.__mro__:
        if base.__module__ == cls.__module__ and base is not object:
            found.update({name: None for name, value in vars(base).items() if inspect.isroutine(value)})
    return [name for name in found if is_asked_about(name)]
