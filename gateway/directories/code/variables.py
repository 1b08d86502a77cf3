"""Find environment variables that a model's code reads but its process will not have: it inherits few of the gateway's.

They are found in the source. A read with a default value, or handled by the author, is no problem. A variable that is
set for the gateway is reported anyway: it was probably meant for the model.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

from ...devices.visibility import thread_environment
from ...system.inherited_environment import is_of_workers
from ...wording import TOML, table_of
from .own_files import OwnFile, own_files
from .syntax import MOST

if TYPE_CHECKING:
    from ...spec import ModelSpec

MADE = frozenset("GW_WORKER PYTHONUNBUFFERED TMPDIR VIRTUAL_ENV".split()) | thread_environment(1).keys()
# Set by a login or a terminal: the gateway has these by chance.
BY_CHANCE = frozenset("COLUMNS DISPLAY EDITOR HOSTNAME LINES LOGNAME OLDPWD PWD SHELL SHLVL TERM USER _".split())
LOADERS = ("dotenv", "environs", "dynaconf", "decouple")  # libraries that set environment variables from files
DEALT_WITH = ("KeyError", "LookupError", "Exception", "BaseException")


class Need(IntEnum):
    """How much the code needs a variable; the highest value of its reads applies."""

    DEFAULT = 0  # another value is used
    TESTED = 1  # only tested for presence or value
    WANTED = 2  # None if missing
    REQUIRED = 3  # KeyError if missing


@dataclass(frozen=True, slots=True)
class Unset:
    """A variable that will be missing, where it is read, and the message."""

    level: Literal["warning", "note"]
    where: str
    name: str
    what: str
    fix: str


def unset(spec: ModelSpec, environ: Mapping[str, str] = os.environ, most_tokens: int = MOST) -> Iterator[Unset]:
    """Yield variables that will be missing, each once, in the order of the files. `environ` is the gateway's own."""
    reads: dict[str, tuple[Need, str]] = {}
    known: set[str] = set()
    for file in own_files(spec, most_tokens):
        look = _Look(file)
        if look.is_beyond_us:
            return
        known |= look.known
        for name, need, line in look.reads:
            if name not in reads or need > reads[name][0]:
                place = file.path.relative_to(spec.root) if file.path.is_relative_to(spec.root) else file.path
                reads[name] = need, f"{place}:{line}"
    for name, (need, where) in reads.items():
        if name in known or name in spec.environment or name in MADE or is_of_workers(name):
            continue
        is_secret = name.lower() in map(str.lower, spec.secrets)
        is_here = name in environ and name not in BY_CHANCE
        if need == Need.REQUIRED or (is_here and not is_secret):
            level: Literal["warning", "note"] = "warning"
        elif need == Need.WANTED and not is_secret and name not in BY_CHANCE:
            level = "note"
        else:
            continue
        does = "is needed" if need == Need.REQUIRED else "is read"
        has = "it is set for the gateway, but " if is_here else ""
        what = f"{name} {does} and will not be set: {has}models do not inherit the environment of the gateway"
        yield Unset(level, where, name, what, _fix(name, spec.name, is_secret, is_here))


def _fix(name: str, model: str, is_secret: bool, is_here: bool) -> str:
    if is_secret:
        return f"it is a secret: read secrets[{name!r}]"
    settings = f"set it under {table_of(model, 'environment')} in {TOML}"
    if not is_here:
        return f"{settings}, or make it a secret: secrets[{name!r}]"
    # It was set in the shell, so it may be a value that must not be stored in a file.
    shell = f"set GATEWAY_SECRET_{name.upper()} in its place, write `{name}: null` below `secrets:` in config.yaml"
    return f"{shell}, and read secrets[{name!r}]; or {settings}"


class _Look:
    """The variables that one file reads, and those it sets or tests itself."""

    def __init__(self, file: OwnFile) -> None:
        self.reads: list[tuple[str, Need, int]] = []
        self.known: set[str] = set()
        self.is_beyond_us = False
        if "environ" not in file.text and "getenv" not in file.text and "dotenv" not in file.text:
            return
        self._modules: set[str] = set()  # names bound to os
        self._environs: set[str] = set()  # names bound to os.environ
        self._getters: set[str] = set()  # names bound to os.getenv
        self._constants: dict[str, str] = {}
        for node in ast.walk(file.tree):
            self._bind(node)
        self._visit(file.tree.body, dealt_with=False)

    def _bind(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            self._modules |= {alias.asname or alias.name for alias in node.names if alias.name == "os"}
            self.is_beyond_us |= any(alias.name.partition(".")[0] in LOADERS for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            self.is_beyond_us |= (node.module or "").partition(".")[0] in LOADERS
            if node.module == "os":
                named = {alias.name: alias.asname or alias.name for alias in node.names}
                self._environs |= {named["environ"]} if "environ" in named else set()
                self._getters |= {named["getenv"]} if "getenv" in named else set()
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                self._constants[node.targets[0].id] = node.value.value
            elif self._is_environ(node.value):
                self._environs.add(node.targets[0].id)

    def _is_environ(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Name):
            return node.id in self._environs
        return isinstance(node, ast.Attribute) and node.attr == "environ" and self._is_os(node.value)

    def _is_os(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Name) and node.id in self._modules

    def _name(self, node: ast.AST) -> str | None:
        if isinstance(node, ast.Name):
            return self._constants.get(node.id)
        return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None

    # ── statements and expressions ───────────────────────────────────────────────────────────────────────────────

    def _visit(self, nodes: Sequence[ast.AST], *, dealt_with: bool, tested: bool = False) -> None:
        for node in nodes:
            self._one(node, dealt_with, tested)

    def _one(self, node: ast.AST, dealt_with: bool, tested: bool) -> None:
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
            self._visit(node.orelse, dealt_with=dealt_with)
        elif isinstance(node, ast.Try):
            catches = any(_catches(handler) for handler in node.handlers)
            self._visit(node.body, dealt_with=dealt_with or catches)
            rest: list[ast.AST] = [*node.handlers, *node.orelse, *node.finalbody]
            self._visit(rest, dealt_with=dealt_with)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            suppresses = any("suppress" in ast.unparse(item.context_expr) for item in node.items)
            self._visit([item.context_expr for item in node.items], dealt_with=dealt_with)
            self._visit(node.body, dealt_with=dealt_with or suppresses)
        elif isinstance(node, (ast.If, ast.While, ast.IfExp)):
            self._one(node.test, dealt_with, True)
            inner: list[ast.AST] = [each for each in ast.iter_child_nodes(node) if each is not node.test]
            self._visit(inner, dealt_with=dealt_with)
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):  # `a or b`: another value is used
            for value in node.values:
                self._one(value, dealt_with, True)
        elif isinstance(node, (ast.Compare, ast.UnaryOp, ast.BoolOp)):
            self._compare(node)
            self._visit(list(ast.iter_child_nodes(node)), dealt_with=dealt_with, tested=True)
        else:
            self._read(node, dealt_with, tested)
            is_bool = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "bool"
            self._visit(list(ast.iter_child_nodes(node)), dealt_with=dealt_with, tested=is_bool)

    def _compare(self, node: ast.AST) -> None:
        """Note `"X" in os.environ`: the author expects that the variable may be missing."""
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], (ast.In, ast.NotIn)):
            return
        if self._is_environ(node.comparators[0]) and (name := self._name(node.left)) is not None:
            self.known.add(name)

    def _read(self, node: ast.AST, dealt_with: bool, tested: bool) -> None:
        if isinstance(node, ast.Subscript) and self._is_environ(node.value):
            if (name := self._name(node.slice)) is None:
                return
            if isinstance(node.ctx, ast.Store):
                self.known.add(name)
            elif isinstance(node.ctx, ast.Load):
                self._add(name, Need.DEFAULT if dealt_with else Need.REQUIRED, node)
        elif isinstance(node, ast.Call):
            self._call(node, tested)
        elif isinstance(node, ast.AugAssign) and self._is_environ(node.target):
            self._filled(node.value)

    def _call(self, node: ast.Call, tested: bool) -> None:
        function, method = node.func, ""
        if isinstance(function, ast.Attribute):
            if self._is_environ(function.value):
                method = function.attr
            elif self._is_os(function.value) and function.attr in ("getenv", "putenv"):
                method = {"getenv": "get", "putenv": "setdefault"}[function.attr]
        elif isinstance(function, ast.Name) and function.id in self._getters:
            method = "get"
        if method == "update":
            for argument in node.args:
                self._filled(argument)
            self.known |= {keyword.arg for keyword in node.keywords if keyword.arg}
            self.is_beyond_us |= any(keyword.arg is None for keyword in node.keywords)
        elif method in ("get", "setdefault", "pop") and node.args and (name := self._name(node.args[0])) is not None:
            if method == "setdefault":
                self.known.add(name)
            elif len(node.args) > 1 or node.keywords:
                self._add(name, Need.DEFAULT, node)
            elif method == "get":
                self._add(name, Need.TESTED if tested else Need.WANTED, node)

    def _filled(self, value: ast.expr) -> None:
        """Note variables set together; if their names cannot be read, any variable may be set."""
        keys = (
            [self._name(key) if key is not None else None for key in value.keys]
            if isinstance(value, ast.Dict)
            else [None]
        )
        self.known |= {key for key in keys if key is not None}
        self.is_beyond_us |= None in keys

    def _add(self, name: str, need: Need, node: ast.expr) -> None:
        self.reads.append((name, need, node.lineno))


def _catches(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or any(name in ast.unparse(handler.type) for name in DEALT_WITH)
