"""Log once for a method that returned None and seems to lack a `return` or `yield`.

None is a valid result. `return None` in the code, or `-> None` as its annotation, shows that it is intended; then
nothing is logged.
"""

from __future__ import annotations

import ast
import inspect
import os
import textwrap
import typing
from collections.abc import Iterator, Sequence
from types import CodeType
from typing import Any

from ..bodies.failures import say
from ..loading.descriptor import Method
from ..loading.tracebacks import is_own
from .run import Run


class Nothing:
    """Tracks which methods have been checked. `places` are the directories of the model's own code."""

    def __init__(self, model: str, places: Sequence[str]) -> None:
        self._model, self._places = model, places
        self._seen: set[str] = set()  # names of methods already checked

    def renew(self) -> None:
        """Check all methods again; they have new code."""
        self._seen.clear()

    def seen(self, run: Run) -> None:
        """The last method of this run returned None."""
        method = run.step or run.method
        if method.name in self._seen:
            return
        self._seen.add(method.name)
        if (place := _unsaid(method, self._places)) is not None:
            told = run.told(self._model)
            say(
                f"[{run.head.request_id}] WARNING gateway: {told} returned None ({place}): "
                "is a `return` or `yield` missing? If None is intended, write `return None`. This is logged once"
            )


def _unsaid(method: Method, places: Sequence[str]) -> str | None:
    """Return where a method of the model's code is (file:line), unless it declares that it may return None."""
    function = inspect.unwrap(method.function)
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if not isinstance(code, CodeType) or not is_own(code.co_filename, places):
        return None
    if _may_be_none(method.returns) or _is_written(function):
        return None
    return f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}"


def _may_be_none(annotation: Any) -> bool:
    return annotation in (None, type(None), "None") or type(None) in typing.get_args(annotation)


def _is_written(function: Any) -> bool:
    """Return whether its source has `return None`. A bare `return` does not count: it may be incomplete."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return False
    returned = [node.value for body in tree.body for node in _own(body) if isinstance(node, ast.Return)]
    return any(isinstance(value, ast.Constant) and value.value is None for value in returned)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes below this one, except those of nested functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _own(child)
