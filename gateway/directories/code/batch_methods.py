"""Check what the source of a class tells about batches: methods that get lists, and those that settings name."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from ...spec import Batching, Problem
from ...wording import listed
from .slipped_methods import used

if TYPE_CHECKING:
    from .source import ClassInfo

SUFFIX = "_batch"
NONE = "batch_size is set, but the class has no method for batches"
INSTEAD = "write predict_batch(self, inputs), which gets a list and returns a list, or remove batch_size"


def names_of(methods: Collection[str]) -> list[str]:
    """Return the names of the methods that answer these methods, or predict, in batches."""
    return [f"{name}{SUFFIX}" for name in dict.fromkeys(("predict", *methods))]


def answers(found: ClassInfo, method: str) -> bool:
    """Return whether a class answers a method, by itself or in batches."""
    return found.has(method) or found.has(f"{method}{SUFFIX}")


def problems(path: str, found: ClassInfo, methods: Collection[str], settings: Batching) -> Iterator[Problem]:
    """Yield what is wrong with the batch methods of a class, and with the settings for them."""
    have = [name for name in names_of(methods) if found.has(name)]
    in_use = [name for name in have if settings.size is not None or not found.has(name.removesuffix(SUFFIX))]
    for name in in_use:
        if (method := found.methods.get(name)) and not _takes_lists(method):
            what = (
                f"`{name}` gets a list of inputs, and the list of their requests if its second parameter is `requests`"
            )
            yield Problem(where=f"{path}:{method.lineno}", what=what, code="bad_signature")
    if settings.size is None:
        if in_vain := settings.in_vain:
            what = f"{listed(in_vain)} {'has' if len(in_vain) == 1 else 'have'} no effect without batch_size"
            yield Problem(where=f"{path}:{found.line}", what=what, code="no_effect", level="warning")
        called = used(found.module) if found.module is not None else frozenset[str]()
        for name in have:
            if name not in in_use and name not in called and name in found.methods:
                what, fix = f"`{name}` is not used, because batch_size is not set", "set runtime.batch_size"
                place = f"{path}:{found.methods[name].lineno}"
                yield Problem(where=place, what=what, fix=fix, code="unused_batch", level="note")
        return
    if not found.whole:
        return
    if not have:
        yield Problem(where=f"{path}:{found.line}", what=NONE, fix=INSTEAD, code="no_batch_method")
    for setting, named in (("batch_cost", settings.cost), ("batch_key", settings.key)):
        if named is not None and not found.has(named):
            close = difflib.get_close_matches(named, found.methods, n=1)
            what = f"{setting} names `{named}`, but the class has no such method"
            fix = f"did you mean {close[0]}?" if close else f"define {named}(self, item)"
            yield Problem(where=f"{path}:{found.line}", what=what, fix=fix, code="no_batch_method")


def _takes_lists(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    taken = method.args
    if method.decorator_list or taken.vararg or taken.kwarg:
        return True  # only the loaded class can tell
    parameters = [*taken.posonlyargs, *taken.args][1:]
    if len(parameters) != 2:
        return len(parameters) == 1 and not taken.kwonlyargs
    annotation = ast.unparse(parameters[1].annotation) if parameters[1].annotation else ""
    return parameters[1].arg == "requests" or "Request" in annotation
