from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from gateway.cli.operator import Operator
from gateway.cli.templates import TEMPLATES

Run = Callable[..., Result]


def test_the_default_is_a_chat_model_of_about_twelve_lines(run: Run) -> None:
    result = run("new", "models/hello")
    assert result.exit_code == 0
    assert [path.name for path in Path("models/hello").iterdir()] == ["model.py"]
    assert 8 <= len(Path("models/hello/model.py").read_text().splitlines()) <= 13
    assert result.stdout.splitlines()[-2:] == ["  gateway serve --models models", "  gateway chat hello hello"]


def test_its_id_is_the_path_below_the_root_that_it_is_in(run: Run) -> None:
    lines = run("new", "models/team/hello").stdout.splitlines()
    assert lines[-2:] == ["  gateway serve --models models", "  gateway chat team/hello hello"]
    Path("gateway.toml").write_text('[gateway]\nmodels = ["served"]\n')
    lines = run("new", "served/deep/er/hello").stdout.splitlines()
    assert lines[-2:] == ["  gateway serve --models served", "  gateway chat deep/er/hello hello"]
    assert run("new", "other/hello").stdout.splitlines()[-1] == "  gateway chat hello hello"


def test_a_gateway_that_runs_over_its_root_is_told_to_load_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Operator, "ask", lambda *_: {"models": [], "roots": [str(Path("models").absolute())]})
    assert run("new", "models/team/hello").stdout.splitlines()[-2:] == [
        "  gateway load team/hello",
        "  gateway chat team/hello hello",
    ]
    assert "  gateway serve --models other" in run("new", "other/hello").stdout.splitlines()


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_is_a_model_without_complaints(run: Run, template: str) -> None:
    assert run("new", f"models/my-{template}", "--template", template).exit_code == 0
    for file in Path("models").rglob("*.py"):
        ast.parse(file.read_text())
    if template == "sklearn":  # its model is made by its script
        subprocess.run([sys.executable, "models/my-sklearn/train.py"], check=True)
    levels = {item["level"] for item in json.loads(run("check", "--json").stdout)}
    assert levels <= {"note"}
    (found,) = json.loads(run("models", "--json").stdout)
    assert found["name"] == f"my-{template}"
    assert found["routes"]


def test_init_is_another_name_for_it(run: Run) -> None:
    assert run("init", "hello").exit_code == 0
    assert Path("hello/model.py").is_file()


def test_nothing_is_overwritten(run: Run) -> None:
    Path("hello").mkdir()
    Path("hello/notes.txt").write_text("mine")
    result = run("new", "hello")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: hello already exists; choose another path, or remove it\n",
    )
    assert [path.name for path in Path("hello").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["predict", ".hidden", "two words", "a" * 129])
def test_names_that_cannot_be_served_are_refused(run: Run, name: str) -> None:
    result = run("new", f"models/{name}")
    assert result.exit_code == 1
    assert not Path("models").exists()
