"""Find methods that check whether their client has disconnected, directly or through functions of the model's own code.

Determined at load by the names in the compiled code. Code that checks in another way, such as in a library, is known
when it first does so, see `request.py`.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from ...spec import ModelSpec
from .descriptor import Descriptor, Method

ASKING = frozenset({"is_disconnected", "watch_disconnect"})

Named = dict[str, list[CodeType]]  # code of the model's own functions and classes, by name


def mark(descriptor: Descriptor, spec: ModelSpec) -> Descriptor:
    """Return the descriptor with `looks` set on the methods that check."""
    found = [*descriptor.methods.values(), descriptor.preprocess, descriptor.postprocess]
    if not any(method is not None and method.wants_request for method in found):
        return descriptor
    named = _named_code(_own_modules((spec.root, *spec.import_dirs)))

    works = descriptor.batcher.works if descriptor.batcher is not None else {}

    def marked(method: Method | None) -> Method | None:
        if method is None or not method.wants_request:
            return method
        function = works[method.name].function if method.name in works else method.function
        return replace(method, looks=looks(function, named))

    methods = {name: marked(method) or method for name, method in descriptor.methods.items()}
    before, after = marked(descriptor.preprocess), marked(descriptor.postprocess)
    return replace(descriptor, methods=methods, preprocess=before, postprocess=after)


def looks(function: Callable[..., Any], named: Named) -> bool:
    """Return whether its code uses one of the names in ASKING, or calls (by name) code that does."""
    todo, seen = list(_code_of(function)), set[CodeType]()
    while todo:
        code = todo.pop()
        if code in seen:
            continue
        seen.add(code)
        names = {*code.co_names, *(value for value in code.co_consts if isinstance(value, str))}
        if names & ASKING:
            return True
        todo += (value for value in code.co_consts if isinstance(value, CodeType))
        for name in names & named.keys():
            todo += named[name]
    return False


def _code_of(function: Any) -> Iterator[CodeType]:
    """Yield the code of a function, a bound or wrapped one, a partial, or a callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    for one in (function, inspect.unwrap(function), getattr(type(function), "__call__", None)):  # noqa: B004
        code = getattr(getattr(one, "__func__", one), "__code__", None)
        if isinstance(code, CodeType):
            yield code


def _own_modules(places: Iterable[Path]) -> Iterator[ModuleType]:
    roots = [place.resolve() for place in places]
    for module in tuple(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and "site-packages" not in file:
            path = Path(file).resolve()
            if any(path.is_relative_to(root) for root in roots):
                yield module


def _named_code(modules: Iterable[ModuleType]) -> Named:
    named: Named = defaultdict(list)
    for module in modules:
        for name, value in tuple(vars(module).items()):
            if isinstance(value, FunctionType):
                named[name] += _code_of(value)
            elif isinstance(value, type) and value.__module__ == module.__name__:
                for inner, part in tuple(vars(value).items()):
                    if not isinstance(part, (FunctionType, staticmethod, classmethod)):
                        continue
                    codes = list(_code_of(part))
                    named[inner] += codes
                    if inner.startswith("__"):  # code that names the class may create, enter or iterate it
                        named[name] += codes
    return dict(named)
