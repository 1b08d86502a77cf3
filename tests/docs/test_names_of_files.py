"""What docstrings, comments and the picture of the architecture call a file is there: a rename leaves none behind."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from pages import ROOT

SOURCES = tuple(path for room in ("gateway", "plugins") for path in sorted((ROOT / room).rglob("*.py")))
THERE = {path.relative_to(ROOT).as_posix() for path in (*SOURCES, *(ROOT / "tests").rglob("*.py"))}
# Files of others: of Truss, of Python, and what authors of models and plugins write.
OTHERS = set(
    """
    truss_server.py model_wrapper.py serialization.py truss/templates/shared/serialization.py
    model/model.py my_plugin.py packages/gateway.py skops.py
    """.split()
)

NAME = re.compile(r"[\w-][\w./-]*\.py\b")


def said(path: Path) -> Iterator[tuple[int, str]]:
    """The comments and docstrings of a file, with their lines."""
    source = path.read_text("utf-8")
    if not NAME.search(source):  # reading it in full takes long
        return
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        is_one = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if is_one and (text := ast.get_docstring(node, clean=False)):
            yield node.body[0].lineno, text


def is_there(name: str) -> bool:
    return any(f"/{path}".endswith(f"/{name}") for path in THERE)


def test_every_file_that_a_docstring_or_a_comment_names_is_there() -> None:
    named = {
        (path.relative_to(ROOT).as_posix(), line, name)
        for path in SOURCES
        for line, text in said(path)
        for name in NAME.findall(text)
    }
    assert len(named) > 50
    assert sorted(each for each in named if not is_there(each[2]) and not each[2].endswith(tuple(OTHERS))) == []


def test_every_word_of_the_picture_of_the_architecture_is_a_file() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    picture = page.partition("```\n")[2].partition("```")[0]
    words = re.sub(r"client ──HTTP──> gateway:|model's process:|your method|frames", "", picture)
    names = re.findall(r"\w+", re.sub(r"\bor\b", "", words).replace("─", " "))
    assert len(names) > 8
    assert [name for name in names if not is_there(f"{name}.py")] == []
