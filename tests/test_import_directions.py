"""Who may import whom, read from the source. Imports for type checkers only are free."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gateway"

# Lowest first; a module imports from its own layer and from those before it. One that is not named is in the middle.
LAYERS = [
    "errors spec memory ordinary wording family",
    "contents redaction weighing wire channel plain distributions submodules near_names slips selfless values "
    "toml_lines devices accelerators claims cpu cache fingerprints downloads",
    "MIDDLE",  # settings, plugins, discovery, formats, runners, replica, limiter, placement, …
    "hosted",
    "hub",
    "dialects examples",
    "http",
    "app",
    "inventory preview checking doctor logs sockets serve foreground",
    "cli testing __main__",
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names.split()}
WORKER_MAY = frozenset(
    "errors spec memory ordinary wording family contents weighing wire channel plain distributions submodules "
    "near_names slips selfless worker".split()
)
ONLY_WHEN_NEEDED = {"worker/loader.py": "weights"}  # a model that mounts weights; other workers never load it
# framework → the only places that may import it
OWNERS = {
    "click": ("cli/",),
    "rich": ("cli/",),
    "litestar": ("app.py", "http/"),
    "uvicorn": ("http/",),
    "pluggy": ("plugins.py", "hookspecs.py"),
    "torch": (),
    "transformers": (),
    "numpy": ("worker/",),
}

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute name of everything that a file imports at run time."""
    tree = ast.parse(path.read_text("utf-8"))
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    package = ["gateway", *path.relative_to(PACKAGE).parts[:-1]] if path.is_relative_to(PACKAGE) else []
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "gateway":
                yield from ((node.lineno, f"gateway.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def part_of(name: str) -> str | None:
    """The module or package directly below gateway; None for other names, such as gateway.__version__."""
    part = name.removeprefix("gateway.").partition(".")[0]
    return part if (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file() else None


@pytest.mark.parametrize("file", [file for file in FILES if file != "__init__.py"])
def test_imports_point_downwards(file: str) -> None:
    mine = file.removesuffix(".py").partition("/")[0]
    for line, name in imports(PACKAGE / file):
        if not name.startswith("gateway.") or (part := part_of(name)) is None:
            continue
        where = f"gateway/{file}:{line} imports {name}"
        if ONLY_WHEN_NEEDED.get(file) == part:
            continue
        if mine == "worker":
            assert part in WORKER_MAY, f"{where}: a worker imports nothing but {', '.join(sorted(WORKER_MAY))}"
        else:
            assert LAYER.get(part, LAYER["MIDDLE"]) <= LAYER.get(mine, LAYER["MIDDLE"]), where


@pytest.mark.parametrize("file", FILES)
def test_frameworks_stay_where_they_belong(file: str) -> None:
    for line, name in imports(PACKAGE / file):
        owners = OWNERS.get(name.partition(".")[0])
        assert owners is None or file.startswith(owners), f"gateway/{file}:{line} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").glob("*.py")), ids=lambda path: path.name)
def test_plugins_use_the_public_names_only(path: Path) -> None:
    public = ast.literal_eval(
        next(
            ast.unparse(node.value)
            for node in ast.parse((PACKAGE / "__init__.py").read_text("utf-8")).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        )
    )
    for line, name in imports(path):
        if name == "gateway" or name.startswith("gateway."):
            assert name.removeprefix("gateway.") in public, f"plugins/{path.name}:{line} imports {name}"
