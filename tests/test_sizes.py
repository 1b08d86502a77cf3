"""Files and functions stay small, or say why not: "it is this long because …" in a docstring.

A file past 400 lines often has two purposes; a function past 60 lines, its docstring not counted, has parts that could
have names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "gateway"
LONGEST_FILE, LONGEST_FUNCTION = 400, 60
Documented = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef


def says_why(node: Documented) -> bool:
    return "long because" in " ".join((ast.get_docstring(node) or "").lower().split())


def too_long(name: str, text: str) -> Iterator[str]:
    """What is too long in the text of a file and does not say why."""
    module, lines = ast.parse(text), len(text.splitlines())
    if lines > LONGEST_FILE and not says_why(module):
        yield f"{name} has {lines} lines"
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not says_why(node):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                first = node.body[0]
                assert first.end_lineno is not None
                lines -= first.end_lineno - first.lineno + 1
            if lines > LONGEST_FUNCTION:
                yield f"{name}:{node.lineno} {node.name} has {lines} lines"


def test_no_file_and_no_function_is_long_without_a_reason() -> None:
    found = [
        each
        for path in sorted(PACKAGE.rglob("*.py"))
        for each in too_long(str(path.relative_to(PACKAGE.parent)), path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(("docstring", "is_told"), [("Long\n    because it is a list.", False), ("No.", True)])
def test_what_is_long_says_why(docstring: str, is_told: bool) -> None:
    step = "    pass\n"
    function = f'def run():\n    """{docstring}"""\n'
    assert list(too_long("f", function + step * 59)) == []
    assert list(too_long("f", function + step * 60)) == (["f:1 run has 61 lines"] if is_told else [])
    file = f'"""{docstring}"""\n'
    rest = LONGEST_FILE - file.count("\n")
    assert list(too_long("f", file + "x = 1\n" * rest)) == []
    assert list(too_long("f", file + "x = 1\n" * (rest + 1))) == (["f has 401 lines"] if is_told else [])
