"""A method of the model's own code that returned None, as one that lacks its `return` or `yield`: said once in the log.

None is a legal answer. Who means it writes `return None`, or `-> None` behind the parameters, and nothing is said.
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

from .adapter import Method
from .failures import say
from .run import Run
from .tracebacks import is_own


class Nothing:
    """What was said of the methods of the model of that name. `places` are the directories of its own code."""

    def __init__(self, model: str, places: Sequence[str]) -> None:
        self._model, self._places = model, places
        self._seen: set[str] = set()  # methods that need not be looked at again

    def renew(self) -> None:
        """The methods have new code."""
        self._seen.clear()

    def seen(self, run: Run) -> None:
        """The method that ran last for this call returned None."""
        method = run.step or run.method
        if method.name in self._seen:
            return
        self._seen.add(method.name)
        if (place := _unsaid(method, self._places)) is not None:
            told = run.told(self._model)
            say(
                f"[{run.head.request_id}] WARNING gateway: {told} returned None ({place}): "
                "is a `return` or `yield` missing? Where nothing is meant, write `return None`. This is said once"
            )


def _unsaid(method: Method, places: Sequence[str]) -> str | None:
    """Where a method of the model's own stands, as file:line, when nothing in it says that it returns None."""
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
    """Whether its source says `return None`; a bare `return` may be half of a line."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, ValueError):
        return False
    returned = [node.value for body in tree.body for node in _own(body) if isinstance(node, ast.Return)]
    return any(isinstance(value, ast.Constant) and value.value is None for value in returned)


def _own(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below one, without those of functions inside it."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _own(child)
