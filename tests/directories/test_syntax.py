"""What of a model's source is parsed, and what is left to the worker before the parser holds up everybody."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from gateway.directories.code import own_files, server_ports, syntax
from gateway.directories.code.imports import imports_of
from gateway.directories.code.source import inspect_source
from gateway.directories.code.syntax import TOKENS, Parser
from gateway.directories.code.variables import unset
from gateway.spec import ModelSpec

MODEL = "class Model:\n    def predict(self, x): return x\n"
DEAR = {
    "an f-string of very many parts": "x = f'" + "{x}" * 10_000 + "'",
    "a tree of hundreds of times its bytes": "a;" * TOKENS,
    "lines of nothing else": "a\n" * TOKENS,
    "a letter of very many accents": "a" + "\u0327\u0301" * 1000,
    "more than anybody reads": "#" * (syntax.LARGEST + 1),
    "an encoding that makes many characters of few bytes": "# coding: utf-7\nx = 1",
}


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reaches Python's parser."""
    seen: list[str] = []
    parse = ast.parse

    def watched(source: str, *rest: object, **more: object) -> ast.Module:
        seen.append(source)
        return parse(source, *rest, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(ast, "parse", watched)
    return seen


@pytest.mark.parametrize("dear", DEAR.values(), ids=DEAR)
def test_what_is_dear_never_reaches_the_parser(dear: str, parsed: list[str]) -> None:
    assert Parser().parse(dear.encode()) is None
    assert parsed == []


def test_what_is_no_python_is_an_error_of_one_of_two_kinds() -> None:
    with pytest.raises(SyntaxError):
        Parser().parse(b"class Model: def")
    for odd in (b"a\0b", b"a." * 10_000 + b"a", "x = '\udcff'"):
        with pytest.raises((SyntaxError, ValueError)):
            Parser().parse(odd)


def test_sources_in_the_usual_encodings_are_read() -> None:
    for source in ("# coding: latin-1\nx = 'é'".encode("latin-1"), "x = 'é'".encode(), "\ufeffx = 'é'".encode()):
        assert isinstance(Parser().parse(source), ast.Module)


def test_all_sources_of_a_model_together_have_a_bound(parsed: list[str]) -> None:
    parser = Parser(most=100)
    assert [parser.parse("a;" * 30) is None for _ in range(3)] == [False, True, True]
    assert parser.is_spent and len(parsed) == 1
    parser = Parser()
    while not parser.is_spent:  # which each that is too dear brings nearer
        assert parser.parse("a;" * TOKENS) is None
    assert parser.parse("a") is None


@pytest.mark.parametrize("dear", DEAR.values(), ids=DEAR)
def test_whoever_looks_at_the_code_of_a_model_asks_for_no_more(tmp_path: Path, dear: str, parsed: list[str]) -> None:
    (tmp_path / "model.py").write_text(f"{dear}\nimport subprocess, os\n{MODEL}")
    spec = ModelSpec(name="m", target="model:Model", root=tmp_path, own_code=True)
    assert inspect_source(tmp_path / "model.py", "Model") == []
    if "coding" in dear:  # which the others read as what it is without its comment
        return
    assert own_files.own_files(spec) == imports_of(spec) == list(unset(spec)) == []
    assert server_ports.server_ports(spec, {}) == []
    assert parsed == []


def test_modules_of_a_model_are_parsed_as_long_as_there_are_few(tmp_path: Path, parsed: list[str]) -> None:
    names = [f"part{number}" for number in range(300)]
    (tmp_path / "model.py").write_text(f"import {', '.join(names)}\n{MODEL}")
    for number, name in enumerate(names):  # half of them are none in the end, which is known when they were parsed
        (tmp_path / f"{name}.py").write_text("a;" * (TOKENS // 4) + ("(" if number % 2 else "") + "\nimport subprocess")
    spec = ModelSpec(name="m", target="model:Model", root=tmp_path, own_code=True)
    own_files.own_files(spec)
    assert 0 < sum(map(len, parsed)) < 2 * syntax.MOST
    parsed.clear()
    server_ports.server_ports(spec, {})
    assert 0 < sum(map(len, parsed)) < 2 * syntax.MOST


def test_nobody_else_parses_what_lies_in_a_model_directory() -> None:
    """But workers, which run it."""
    home = Path(syntax.__file__).parents[2]
    others = [file for place in (home, home.parent / "plugins") for file in place.rglob("*.py")]
    parsing = {str(file.relative_to(home.parent)) for file in others if "ast.parse(" in file.read_text()}
    assert {name for name in parsing if not name.startswith("gateway/worker/")} == {
        "gateway/directories/code/syntax.py"
    }
