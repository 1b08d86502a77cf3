"""Check a model's source without running it: does it parse, does the class exist, can its methods be called?

Fatal problems are reported at discovery, others by `gateway check`. A worker finds the same at load, with certainty.
What the source does not reveal (inherited methods, names bound in other ways) is not reported.

Messages and rules are Truss's, with two exceptions: a second parameter named `request` needs no annotation, and a class
needs no `predict` if it has another method that serves.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from ... import near_names
from ...files import ordinary
from ...spec import Batching, Problem
from ...wording import MOST_NAMES, few, ungiven, whole_body
from . import batch_methods, missing_self, slipped_methods
from .frameworks import Written, written
from .syntax import Parser

FATAL = frozenset({"unreadable_source", "syntax_error", "class_not_found"})
MOST_CLASSES = 50  # classes in a file without the expected one: each is compared with all known frameworks
OFF = Batching()
PIPELINE = ("preprocess", "predict", "postprocess")
ENDPOINTS = ("chat_completions", "completions", "embeddings", "messages", "responses", "rerank")
OFFERED = ("config", "data_dir", "secrets", "environment", "lazy_data_resolver")  # arguments available to a constructor

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """What the source of a class tells. `whole` is false if bases or decorators may add methods."""

    line: int
    methods: Mapping[str, _Function]
    assigned: frozenset[str]  # self.NAME = …, and NAME = … in the class body
    whole: bool
    written: Written | None = None  # another server for which it was written
    module: ast.Module | None = None  # its module, which may call its methods and may contain misplaced ones
    node: ast.ClassDef | None = None

    def has(self, name: str) -> bool:
        return name in self.methods or name in self.assigned


def inspect_source(
    path: Path, class_name: str, methods: Collection[str] = ENDPOINTS, batching: Batching = OFF
) -> list[Problem]:
    """Return the problems of class `class_name` in the file `path`; `methods` are those that serve a route."""
    try:
        found = read_class(path, class_name)
    except SourceError as error:
        return [error.problem]
    if found is None:
        return []
    return [*_check(path, found, methods, batching), *batch_methods.problems(str(path), found, methods, batching)]


class SourceError(Exception):
    """The class cannot be found in its source file."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def read_class(path: Path, class_name: str) -> ClassInfo | None:
    """Return what the source tells about the class.

    Returns None if the name is not bound by `class`, or if the source is expensive to parse: then it is left to the
    worker, because the gateway has other requests to serve.

    Raises `SourceError` if the file cannot be read or parsed, or if it does not bind the name.
    """
    if (module := _parse(path)) is None:
        return None
    classes = {node.name: node for node in _statements(module.body) if isinstance(node, ast.ClassDef)}
    if class_name in classes:
        node = classes[class_name]
        return replace(_class_info(node), written=written(module, node), module=module, node=node)
    bound = set(_bound_names(module))
    if class_name in bound or "*" in bound or "__getattr__" in bound:
        return None
    have = f"have: {few(list(classes), MOST_NAMES)}" if classes else "it defines no class"
    what = f"no class {class_name} in {path.name} ({have})"
    fix = _way_to(class_name, dict(islice(classes.items(), MOST_CLASSES)), module)
    raise SourceError(Problem(where=str(path), what=what, fix=fix, code="class_not_found"))


FUNCTIONS = ("predict", "predict_fn", "inference", "infer", "generate", "handle", "handler", "run")  # of other servers


def _way_to(class_name: str, classes: Mapping[str, ast.ClassDef], module: ast.Module) -> str:
    """Return how an existing class could become the model; preferably the last one with a method `predict`.

    A class that was written for another server needs more than another name.
    """
    if not classes:
        there = {node.name for node in _statements(module.body) if isinstance(node, _Function)}
        called = next((f" that calls {name}" for name in FUNCTIONS if name in there), "")
        return f"write class {class_name} with a method predict{called}"
    foreign = {name: found for name, node in classes.items() if (found := written(module, node))}
    serving = [name for name, node in classes.items() if "predict" in _class_info(node).methods]
    own = [name for name in serving if name not in foreign or foreign[name].is_network]
    name = (
        own or [name for name in foreign if not foreign[name].is_network] or list(foreign) or serving or list(classes)
    )[-1]
    if name in foreign and name not in own:
        return f"{name} is {foreign[name].what}: {foreign[name].instead.replace('class Model', f'class {class_name}')}"
    return f"rename {name} to {class_name}, or write model_class_name: {name} into config.yaml"


def _parse(path: Path) -> ast.Module | None:
    try:
        return Parser().parse(ordinary.content(path))
    except SyntaxError as error:
        where = f"{path}:{error.lineno}" if error.lineno else str(path)
        raise SourceError(Problem(where=where, what=f"syntax error: {error.msg}", code="syntax_error")) from None
    except ValueError as error:  # null bytes, thousands of nested brackets
        raise SourceError(Problem(where=str(path), what=f"syntax error: {error}", code="syntax_error")) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        raise SourceError(Problem(where=str(path), what=what, code="unreadable_source")) from None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run at import, including those under if, try and with."""
    for node in body:
        yield node
        for name in ("body", "orelse", "finalbody"):
            if isinstance(node, (ast.If, ast.Try, ast.With)):
                yield from _statements(getattr(node, name, []))
        for handler in getattr(node, "handlers", []):
            yield from _statements(handler.body)


def _bound_names(module: ast.Module) -> Iterator[str]:
    for node in _statements(module.body):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, _Function):
            yield node.name
        else:
            for inner in ast.walk(node):
                if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    yield inner.id


def _class_info(node: ast.ClassDef) -> ClassInfo:
    body = list(_statements(node.body))
    assigned = {
        inner.attr
        for inner in ast.walk(node)
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store) and isinstance(inner.value, ast.Name)
    }
    for statement in body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        assigned |= {target.id for target in targets if isinstance(target, ast.Name)}
    bases = [base for base in node.bases if not (isinstance(base, ast.Name) and base.id == "object")]
    return ClassInfo(
        line=node.lineno,
        methods={item.name: item for item in body if isinstance(item, _Function)},
        assigned=frozenset(assigned),
        whole=not (bases or node.keywords or node.decorator_list),
    )


def _check(path: Path, found: ClassInfo, methods: Collection[str], batching: Batching) -> Iterator[Problem]:
    def problem(line: int, what: str, code: str, fix: str = "") -> Problem:
        return Problem(where=f"{path}:{line}", what=what, code=code, fix=fix)

    in_batches = batch_methods.names_of(methods)
    for name, offered in (("__init__", OFFERED), ("load", ()), ("unload", ())):
        if (called := found.methods.get(name)) and (needed := _not_offered(called, offered)):
            yield problem(called.lineno, ungiven(name, needed, offered), "bad_signature")
    for name, method in found.methods.items():
        if (parameters := _parameters(method)) is None:
            continue
        if not method.decorator_list and (name in ("__init__", *methods, *in_batches, *near_names.CALLED)):
            as_written = _as_written(method)
            if told := missing_self.cannot_be_called(name, as_written):
                yield problem(method.lineno, told, "bad_signature", missing_self.remedy(name, as_written))
                continue
            if told := missing_self.is_given_the_model(name, as_written):
                fix, place = missing_self.remedy(name, as_written), f"{path}:{method.lineno}"
                yield Problem(where=place, what=told, fix=fix, code="no_self", level="warning")
        if name in PIPELINE or name in methods:
            if what := _signature_problem(name, method, parameters):
                yield problem(method.lineno, what, "bad_signature", _in_the_body(method, parameters))
        elif name == "is_healthy" and parameters:
            yield problem(method.lineno, f"`{name}` must have only one argument: `self`.", "bad_signature")
        elif name == "websocket":
            if len(parameters) != 1:
                what = "`websocket` must have only one argument: `websocket`."
                yield problem(method.lineno, what, "bad_signature")
            if not isinstance(method, ast.AsyncFunctionDef):
                what = "`websocket` endpoints must be async function definitions."
                yield problem(method.lineno, what, "sync_websocket")
    if found.has("websocket") and any(found.has(name) for name in (*PIPELINE, "predict_batch")):
        what = "Truss model cannot have both `websocket` and any of `predict`, `preprocess`, or `postprocess methods."
        yield problem(found.line, what, "websocket_and_predict")
    have = [name for name in ("predict", "websocket", *methods, *in_batches) if found.has(name)]
    if found.written and not found.written.is_network:
        what = f"the class is {found.written.what}, whose methods have other names than a model's"
        fix, place = found.written.instead, f"{path}:{found.line}"
        yield Problem(where=place, what=what, fix=fix, code="other_framework", level="warning" if have else "error")
    known = (*methods, *in_batches) if batching.size is not None or not have else methods
    asked = list(_asked(found, known, have))
    if found.whole and not have:
        fix, place = "; ".join(each.told for each in asked) or near_names.SMALLEST, f"{path}:{found.line}"
        yield Problem(where=place, what=near_names.NONE, fix=fix, code="no_method")
    elif have:
        for each in asked:
            place = f"{path}:{each.line}"
            yield Problem(where=place, what=each.what, fix=each.fix, code="misspelt", level="warning")
    if _only_request(found, "predict") and found.has("preprocess"):
        what = (
            "When using `preprocess`, the predict method cannot only have the request argument (because the result of"
            " `preprocess` would be  discarded)."
        )
        yield problem(found.methods["predict"].lineno, what, "discarded_result")
    if _only_request(found, "postprocess"):
        what = (
            "The `postprocess` method cannot only have the request argument (because the result of `predict` would be"
            " discarded)."
        )
        yield problem(found.methods["postprocess"].lineno, what, "discarded_result")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A probable mistake in a class; `told` describes it in one clause."""

    line: int
    what: str
    fix: str
    told: str


def _asked(found: ClassInfo, methods: Collection[str], have: Collection[str]) -> Iterator[_Asked]:
    """Yield methods that nothing calls, and functions that were probably meant to be methods."""
    known = {*methods, *near_names.CALLED}
    called = (
        slipped_methods.used(found.module) if found.module is not None and found.whole else frozenset((near_names.ANY,))
    )
    own = [name for name in found.methods if near_names.is_asked_about(name)]
    pairs = [pair for pair in near_names.near(own, known, have, called) if not found.has(pair[1])]
    if name := near_names.near_init({name: len(_as_written(each)) > 1 for name, each in found.methods.items()}, called):
        pairs.append((name, "__init__"))
    for name, meant in pairs:
        fix = f"did you mean {meant}?"
        yield _Asked(found.methods[name].lineno, f"nothing calls `{name}`", fix, f"it has {name}: {fix}")
    for stray in (
        slipped_methods.strays(found.module, found.node, {*known, "__init__"}) if found.module and found.node else ()
    ):
        if not found.has(stray.name):
            yield _Asked(stray.line, stray.what, stray.fix, f"{stray.what} (line {stray.line}): {stray.fix}")


def _as_written(method: _Function) -> list[str]:
    """Return the parameters without types and defaults."""
    taken = method.args
    star = [f"*{taken.vararg.arg}"] if taken.vararg else ["*"] if taken.kwonlyargs else []
    last = [f"**{taken.kwarg.arg}"] if taken.kwarg else []
    positional = [each.arg for each in (*taken.posonlyargs, *taken.args)]
    return [*positional, *star, *(each.arg for each in taken.kwonlyargs), *last]


def _parameters(method: _Function) -> list[ast.arg] | None:
    """Return the parameters of the bound method, including *args and **kwargs; None if a decorator may change them."""
    decorators = {node.id if isinstance(node, ast.Name) else "" for node in method.decorator_list}
    if decorators - {"staticmethod", "classmethod"}:
        return None
    arguments = method.args
    positional = [*arguments.posonlyargs, *arguments.args]
    if "staticmethod" not in decorators and positional:
        positional = positional[1:]
    rest = [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    return [*positional, *arguments.kwonlyargs, *rest]


def _not_offered(method: _Function, offered: Collection[str]) -> list[str]:
    """Return the required arguments of a method that it does not get."""
    arguments = method.args
    if method.decorator_list:
        return []
    positional = [*arguments.posonlyargs, *arguments.args]
    needed = positional[1 : len(positional) - len(arguments.defaults)]
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    needed += [argument for argument, default in pairs if default is None]
    return [argument.arg for argument in needed if argument.arg not in offered or argument in arguments.posonlyargs]


def _signature_problem(name: str, method: _Function, parameters: list[ast.arg]) -> str | None:
    signature = f"({', '.join(ast.unparse(parameter) for parameter in parameters)})"
    if method.returns:
        signature += f" -> {ast.unparse(method.returns)}"
    if len(parameters) > 2:
        return f"`{name}` method cannot have more than two arguments. Got: {signature}"
    if len(parameters) == 2:
        if _is_request(parameters[0]):
            return (
                f"`{name}` method with two arguments is not allowed to have request as first argument, request must be"
                f" second. Got: {signature}"
            )
        second = parameters[1]
        if not _is_request(second) and not (second.arg == "request" and second.annotation is None):
            return (
                f"`{name}` method with two arguments must have request as second argument (type annotated)."
                f" Got: {signature} "
            )
    return None


def _in_the_body(method: _Function, parameters: list[ast.arg]) -> str:
    if method.args.vararg or method.args.kwarg or _is_request(parameters[0]):
        return ""
    return whole_body(parameter.arg for parameter in parameters)


def _is_request(parameter: ast.arg) -> bool:
    """Return whether the annotation looks like Request, fastapi.Request, "Request", or a subclass by its name."""
    node = parameter.annotation
    text = node.value if isinstance(node, ast.Constant) else ast.unparse(node) if node else ""
    return str(text).rpartition(".")[2].endswith("Request")


def _only_request(found: ClassInfo, name: str) -> bool:
    method = found.methods.get(name)
    parameters = _parameters(method) if method else None
    return parameters is not None and len(parameters) == 1 and _is_request(parameters[0])
