"""Who may import whom, read from the source; each test lists every import that is wrong.

Imports inside functions count, because they say who depends on whom; those for type checkers only do not.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import gateway

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gateway"
PLUGINS = ROOT / "plugins"

# Rooms, lowest first: folders and modules directly in `gateway/`. Each imports from itself and from those before it.
ORDER = """
    errors spec wording near_names json_costs field_copies hookspecs system wire telemetry files devices settings
    access environments directories linear_patterns schema_words json_schemas plugin_checks plugin_files
    plugin_manager plugins worker runners admission hosting dialects examples http inspection lifetime cli chat
    testing __main__
""".split()
WORKER_MAY = (
    *("errors", "spec", "wording", "near_names", "field_copies", "system", "wire", "environments.distributions"),
    *("files.integrity", "files.ordinary"),
    *(
        "directories.weights",
        "directories.code.missing_self",
        "directories.code.slipped_methods",
        "directories.code.submodules",
    ),
)
# library → the only places that may import it
OWNERS = {
    "click": ("cli",),
    "rich": ("cli",),
    "litestar": ("http",),
    "uvicorn": ("http",),
    "pluggy": ("plugins", "plugin_manager", "hookspecs"),
    "numpy": ("worker.bodies.truss",),
}
FRAMEWORKS = {
    "torch",
    "transformers",
    "sentence_transformers",
    "sklearn",
    "skops",
    "onnxruntime",
    "onnx",
    "xgboost",
    "lightgbm",
    "catboost",
    "spacy",
    "fasttext",
    "keras",
    "diffusers",
    "pyarrow",
}  # nowhere in gateway/
HEAVY = FRAMEWORKS | {
    "numpy",
    "tokenizers",
    "safetensors",
    "gguf",
    "joblib",
    "PIL",
    "soundfile",
    "faster_whisper",
    "ctranslate2",
}  # what plugins import when it is needed
IMPURE = {"litestar", "uvicorn", "starlette", "sse_starlette", "fastapi", "httptools", "asyncio", "pluggy", "click"}
WHEN_NEEDED = {"uvloop", "starlette", "msgpack", "numpy"}  # what a worker imports when a model has a use for it


class Import(NamedTuple):
    importer: str  # both dotted, those of the package below `gateway`
    imported: str
    line: int
    in_function: bool

    @property
    def library(self) -> str:
        return self.imported.partition(".")[0]


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, by its name below `gateway`; the package itself is ""."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports_of(path: Path) -> tuple[tuple[int, str, bool], ...]:
    """Line and absolute name of all that a file imports at run time, and whether in a function."""
    package = path.relative_to(ROOT if path.is_relative_to(PACKAGE) else PLUGINS).parts[:-1]

    def walk(node: ast.AST, in_function: bool) -> Iterator[tuple[int, str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.Import):
                yield from ((child.lineno, alias.name, in_function) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else ()
                base = ".".join([*base, *filter(None, [child.module])])
                yield from ((child.lineno, f"{base}.{alias.name}", in_function) for alias in child.names)
            inside = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, inside)

    return tuple(walk(ast.parse(path.read_text("utf-8")), False))


@cache
def inner() -> tuple[Import, ...]:
    """Imports of the package's own modules; `from .wire import frames` is an import of wire.frames."""
    found = []
    for importer, path in modules().items():
        for line, name, in_function in imports_of(path):
            if name.partition(".")[0] == "gateway":
                below = name.partition(".")[2]
                while below not in modules():  # a name in a module
                    below = below.rpartition(".")[0]
                found.append(Import(importer, below, line, in_function))
    return tuple(found)


@cache
def outer() -> tuple[Import, ...]:
    return tuple(
        Import(importer, name, line, in_function)
        for importer, path in modules().items()
        for line, name, in_function in imports_of(path)
        if name.partition(".")[0] != "gateway"
    )


def room(module: str) -> str:
    return module.partition(".")[0]


def circles(imports: dict[str, set[str]]) -> dict[str, set[str]]:
    """Those of the modules that import each other, with what they import."""
    below = {name: imported - {name} for name, imported in imports.items()}
    while leaves := [name for name, imported in below.items() if not imported & below.keys()]:
        for name in leaves:
            del below[name]
    return below


def is_in(module: str, places: tuple[str, ...]) -> bool:
    return any(module == place or module.startswith(f"{place}.") for place in places)


def test_the_order_names_every_room() -> None:
    assert sorted(ORDER) == sorted({room(name) for name in modules()} - {""})


def test_imports_point_downwards() -> None:
    """The package itself gives its public names when they are asked for, and may be asked by all."""
    wrong = [
        each
        for each in inner()
        if each.importer and each.imported and ORDER.index(room(each.imported)) > ORDER.index(room(each.importer))
    ]
    assert wrong == []


def test_a_worker_imports_little_and_nobody_imports_a_worker() -> None:
    wrong = [
        each
        for each in inner()
        if (room(each.importer) == "worker") != (room(each.imported) == "worker")
        and (room(each.imported) == "worker" or not is_in(each.imported, WORKER_MAY))
    ]
    assert wrong == []


def test_what_a_worker_imports_at_its_start_is_python_and_msgspec() -> None:
    """Followed through our own modules; what a function imports, it imports when it is called."""
    todo, seen = ["worker.__main__"], set[str]()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            of_worker = room(name) == "worker"  # their functions run in every worker; but one mounts weights if asked
            todo += [
                each.imported
                for each in inner()
                if each.importer == name
                and (not each.in_function or (of_worker and each.imported != "directories.weights"))
            ]
    foreign = {each.library for each in outer() if each.importer in seen and not each.in_function}
    assert foreign - set(sys.stdlib_module_names) - {"msgspec"} - WHEN_NEEDED == set()
    assert {room(name) for name in seen} & {"hosting", "plugins", "settings", "http"} == set()


def test_no_module_imports_itself_in_a_circle() -> None:
    assert (
        circles({name: {each.imported for each in inner() if each.importer == name} for name in modules() if name})
        == {}
    )


def test_dialects_are_pure() -> None:
    wrong = [each for each in outer() if room(each.importer) == "dialects" and each.library in IMPURE]
    assert wrong == []


def test_libraries_stay_where_they_belong() -> None:
    wrong = [
        each
        for each in outer()
        if each.library in FRAMEWORKS or (each.library in OWNERS and not is_in(each.importer, OWNERS[each.library]))
    ]
    assert wrong == []
    assert [each for each in outer() if each.library == "numpy" and not each.in_function] == []


def test_the_package_itself_imports_nothing_until_it_is_asked() -> None:
    assert [each for each in inner() if each.importer == "" and not each.in_function] == []


def plugin_modules() -> dict[str, Path]:
    """Every module of plugins/ by the name that it is imported by."""
    found = {}
    for path in PLUGINS.rglob("*.py"):
        parts = path.relative_to(PLUGINS).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def of_plugins() -> tuple[Import, ...]:
    """Imports of the modules in plugins/; one of a name in a module of theirs is an import of that module."""
    modules, found = plugin_modules(), []
    for importer, path in modules.items():
        for line, name, in_function in imports_of(path):
            while name.partition(".")[0] in modules and name not in modules:
                name = name.rpartition(".")[0]
            found.append(Import(importer, name, line, in_function))
    return tuple(found)


@cache  # it reads what every installed package says of itself
def entered() -> set[str]:
    """The modules of our entry points."""
    found = {point.value for point in entry_points(group="gateway") if point.value.startswith("gateway_")}
    assert found
    assert found <= plugin_modules().keys()
    return found


def test_plugins_use_public_names_only() -> None:
    wrong = [
        each
        for each in of_plugins()
        if each.library == "gateway" and each.imported.partition(".")[2] not in gateway.__all__
    ]
    assert wrong == []


def test_no_plugin_imports_another() -> None:
    """What two of them share has no entry point."""
    wrong = [each for each in of_plugins() if each.library in entered() - {room(each.importer)}]
    assert wrong == []


def test_a_plugin_is_loaded_at_every_start_without_what_it_is_made_of() -> None:
    ours = {room(name) for name in plugin_modules()}
    wrong = [
        each
        for each in of_plugins()
        if each.importer in entered() and not each.in_function and each.library in HEAVY | ours
    ]
    assert wrong == []


def test_the_hooks_of_a_plugin_import_no_framework_that_is_not_asked_for() -> None:
    """Followed through our own modules: only functions in what a hook imports may import one, and engines do not."""
    todo = [each.imported for each in of_plugins() if each.importer in entered()]
    seen = set[str]()
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += [each.imported for each in of_plugins() if each.importer == name and not each.in_function]
    assert seen > {"gateway_transformers.gguf.conversion", "gateway_checkpoints.weights", "gateway_sklearn.model_file"}
    wrong = [each for each in of_plugins() if each.importer in seen and not each.in_function and each.library in HEAVY]
    assert wrong == []


def test_no_module_of_a_plugin_imports_itself_in_a_circle() -> None:
    modules = plugin_modules()
    assert circles({name: {each.imported for each in of_plugins() if each.importer == name} for name in modules}) == {}
