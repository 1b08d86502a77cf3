"""Who may import whom. The worker stays light, the dialects pure, and no layer knows the one above it.

    spec errors wire …  <  worker
    spec errors wire …  <  parts  <  hosted  <  hub  <  http  <  app  <  serve  <  cli
    spec errors wire …  <  dialects  <  http

Imports inside functions count, for they say who depends on whom; those for type checkers only do not.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import gateway

ROOT = Path(gateway.__file__).parent
PLUGINS = ROOT.parent / "plugins"

# Values and what serves both sides of the channel. Whatever is not named here or in ABOVE is a part.
BASE = {
    *("", "spec", "errors", "wire", "cache", "hookspecs", "plain", "channel", "contents", "weighing"),
    *("distributions", "submodules", "weights", "downloads", "buckets", "fingerprints", "mounts", "memory", "ordinary"),
    *("near_names", "slips", "selfless", "wording", "family", "counts"),
}
ABOVE = ("hosted", "hub", "http", "app", "serve", "cli")  # each may import those before it
# Of an imported module only what its importer may have too: to peek at weights is the formats' business.
EXCEPTIONS = {("weights", "formats.config")}
# Tools around the gateway: they may use anything but the command line, and nothing may use them but that.
TOOLS = {"testing", "checking", "doctor", "preview", "foreground"}
FRAMEWORKS = {"torch", "transformers", "numpy", "sentence_transformers", "sklearn", "skops", "onnxruntime"}
WEB = {"litestar", "uvicorn", "starlette", "sse_starlette", "fastapi", "httptools"}


class Import:
    def __init__(self, importer: str, imported: str, names: tuple[str, ...], in_function: bool) -> None:
        self.importer, self.imported, self.names, self.in_function = importer, imported, names, in_function

    def __repr__(self) -> str:
        return f"{self.importer or 'gateway'} imports {self.imported or 'gateway'}"


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, by its name below `gateway`."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, name: str, package: str) -> Iterator[Import]:
    """Absolute names of what a file imports, with the names taken from it."""

    def walk(node: ast.AST, in_function: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(name, alias.name, (), in_function)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    above = package.split(".")[: len(package.split(".")) - child.level + 1]
                    base = ".".join([*above, *filter(None, [child.module])])
                yield Import(name, base, tuple(alias.name for alias in child.names), in_function)
            inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, inside)

    yield from walk(ast.parse(path.read_text()), False)


@cache
def all_imports() -> tuple[Import, ...]:
    found = []
    for name, path in modules().items():
        full = f"gateway.{name}".rstrip(".")
        package = full if path.name == "__init__.py" else full.rpartition(".")[0]
        found += imports_of(path, name, package)
    return tuple(found)


@cache
def inner_imports() -> tuple[Import, ...]:
    """Those of the package itself; `from . import wire` is an import of wire."""
    found = []
    for each in all_imports():
        if each.imported.partition(".")[0] != "gateway":
            continue
        below = each.imported.removeprefix("gateway").lstrip(".")
        for name in each.names or ("",):
            inner = f"{below}.{name}".strip(".")
            found.append(Import(each.importer, inner if inner in modules() else below, (), each.in_function))
    return tuple(found)


def package_of(module: str) -> str:
    return module.partition(".")[0]


def layer(module: str) -> int:
    package = package_of(module)
    if package in BASE:
        return 0
    return ABOVE.index(package) + 2 if package in ABOVE else 1


def outside(each: Import) -> str:
    return each.imported.partition(".")[0]


def test_the_table_names_modules_that_exist() -> None:
    packages = {package_of(name) for name in modules()}
    assert packages >= BASE | set(ABOVE) | TOOLS | {"worker", "dialects"}


def test_no_layer_imports_the_one_above_it() -> None:
    wrong = [
        each
        for each in inner_imports()
        if layer(each.imported) > layer(each.importer)
        and (each.importer, each.imported) not in EXCEPTIONS
        and package_of(each.importer) not in TOOLS | {"worker", "__main__", ""}
    ]
    assert wrong == []


def test_the_worker_imports_values_and_the_channel_and_nobody_imports_the_worker() -> None:
    wrong = [
        each
        for each in inner_imports()
        if (package_of(each.importer) == "worker") != (package_of(each.imported) == "worker")
        and (package_of(each.imported) == "worker" or package_of(each.imported) not in BASE)
    ]
    assert wrong == []


def test_what_the_worker_imports_at_its_start_is_python_and_msgspec() -> None:
    """Followed through our own modules; what a function imports, it imports when it is called."""
    todo, seen, foreign = ["worker.__main__"], set[str](), set[str]()
    lazy = {"uvloop", "starlette", "msgpack", "numpy"}
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        todo += [each.imported for each in inner_imports() if each.importer == name and not each.in_function]
        if package_of(name) == "worker":  # its own functions run in every worker
            todo += [each.imported for each in inner_imports() if each.importer == name and each.imported != "weights"]
        foreign |= {outside(each) for each in all_imports() if each.importer == name and not each.in_function}
    assert foreign - set(sys.stdlib_module_names) - {"gateway", "msgspec"} - lazy == set()
    assert not {"hub", "hosted", "plugins", "settings"} & seen


def test_dialects_are_pure() -> None:
    wrong = [
        each
        for each in inner_imports()
        if package_of(each.importer) == "dialects" and package_of(each.imported) not in BASE | {"dialects"}
    ]
    assert wrong == []
    foreign = {outside(each) for each in all_imports() if package_of(each.importer) == "dialects"}
    assert not foreign & (WEB | {"asyncio", "pluggy", "click"})


def test_nothing_imports_a_framework_of_models() -> None:
    found = {(each.importer, outside(each)) for each in all_imports() if outside(each) in FRAMEWORKS}
    # Truss's binary bodies hold arrays; the worker needs numpy when one comes, and not before.
    assert found == {("worker.truss", "numpy")}
    assert all(each.in_function for each in all_imports() if outside(each) in FRAMEWORKS)


def test_only_the_app_and_http_import_the_web_framework() -> None:
    wrong = [
        each
        for each in all_imports()
        if outside(each) == "litestar" and package_of(each.importer) not in ("app", "http")
    ]
    assert wrong == []


def test_only_plugins_py_touches_pluggys_manager() -> None:
    users = set()
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute | ast.Name) and "PluginManager" in ast.unparse(node):
                users.add(name)
    assert users == {"plugins"}
    assert {each.importer for each in all_imports() if outside(each) == "pluggy"} <= {"plugins", "hookspecs"}


def test_the_package_itself_imports_nothing_until_it_is_asked() -> None:
    assert [
        each for each in all_imports() if each.importer == "" and not each.in_function and outside(each) == "gateway"
    ] == []


def test_plugins_use_public_names_only_and_load_neither_a_framework_nor_each_other() -> None:
    """Those with an entry point are loaded at every start; what they split off is loaded by their models."""
    loaded = {point.value for point in entry_points(group="gateway") if point.value.startswith("gateway_")}
    files = {path.stem: path for path in PLUGINS.glob("*.py")}
    assert loaded <= files.keys()
    wrong = []
    for name, path in files.items():
        for each in imports_of(path, name, ""):
            if each.imported == "gateway":
                wrong += [f"{name} takes {taken}" for taken in each.names if taken not in gateway.__all__]
            elif outside(each) == "gateway":
                wrong.append(f"{name} imports {each.imported}")
            elif name in loaded and not each.in_function and outside(each) in FRAMEWORKS | files.keys():
                wrong.append(f"{name} imports {each.imported} when it is loaded")
            elif outside(each) in loaded:
                wrong.append(f"{name} imports {each.imported}")
    assert wrong == []
