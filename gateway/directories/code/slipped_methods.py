"""Find functions that were probably meant to be methods of a class, and the names that the file itself uses.

Values only: other modules parse the source and report the findings.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ...near_names import ANY

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Stray:
    """A function with a self parameter and the name of a served method, but not defined in the class."""

    name: str
    line: int
    inside: str  # the method that contains it; "" if it is outside the class

    @property
    def what(self) -> str:
        place = f"inside `{self.inside}`" if self.inside else "outside the class"
        return f"`{self.name}` is defined {place}, so nothing calls it"

    @property
    def fix(self) -> str:
        return f"give it the indentation of `{self.inside}`" if self.inside else "indent it, as a method of the class"


def used(module: ast.Module) -> frozenset[str]:
    """Return the attributes that the code of the file uses; includes `ANY` if their names are computed."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            found.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            asked = node.args[1] if len(node.args) > 1 else None
            found.add(str(asked.value) if isinstance(asked, ast.Constant) else ANY)
        elif isinstance(node, ast.ClassDef):  # such as `predict = generate` between its methods
            found |= {name for each in node.body if not isinstance(each, _Function) for name in _read(each)}
    return frozenset(found)


def strays(module: ast.Module, cls: ast.ClassDef, known: Collection[str]) -> list[Stray]:
    """Return functions below the class, and inside its methods, that were probably meant to be methods of it."""
    read = set(_read(module))  # functions called by name, or assigned to the class explicitly, are where they should be
    after = [node for node in module.body if isinstance(node, _Function) and node.lineno > cls.lineno]
    methods = [node for node in cls.body if isinstance(node, _Function)]
    found = [Stray(node.name, node.lineno, "") for node in after if _takes_self(node)]
    found += [
        Stray(node.name, node.lineno, method.name)
        for method in methods
        for node in _within(method)
        if _takes_self(node)
    ]
    own = {method.name for method in methods}
    return [stray for stray in found if stray.name in known and stray.name not in own | read]


def _read(node: ast.AST) -> Iterator[str]:
    return (each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load))


def _within(method: _Function) -> Iterator[_Function]:
    """Yield the functions in a method, except those of a class inside it."""
    waiting: list[ast.AST] = list(method.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Function):
            yield node
        if not isinstance(node, ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _takes_self(node: _Function) -> bool:
    taken = [*node.args.posonlyargs, *node.args.args]
    return bool(taken) and taken[0].arg == "self" and not node.decorator_list
