from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from gateway.cli.templates import TEMPLATES

Run = Callable[..., Result]


def test_the_default_is_a_chat_model_of_about_twelve_lines(run: Run) -> None:
    result = run("new", "models/hello")
    assert result.exit_code == 0
    assert [path.name for path in Path("models/hello").iterdir()] == ["model.py"]
    assert 8 <= len(Path("models/hello/model.py").read_text().splitlines()) <= 13
    assert result.stdout.splitlines()[-2:] == ["  gateway serve --models models", "  gateway chat hello hello"]


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
        "Error: hello is there already; choose another path, or remove it\n",
    )
    assert [path.name for path in Path("hello").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["predict", ".hidden", "two words", "a" * 129])
def test_names_that_cannot_be_served_are_refused(run: Run, name: str) -> None:
    result = run("new", f"models/{name}")
    assert result.exit_code == 1
    assert not Path("models").exists()
