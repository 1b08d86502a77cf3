"""A class that a plugin names and that is not there is told before it is loaded, with what there is instead."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.directories.code.targets import missing_target
from gateway.spec import ModelSpec

PLUGIN = "raise SystemExit('imported')\nclass Answers: ...\ndef make(): ...\n"


def told(root: Path, target: str, *, own_code: bool = False, elsewhere: bool = False) -> str | None:
    spec = ModelSpec(
        name="m", target=target, root=root, format="answers", served_by="answers_plugin", own_code=own_code
    )
    return missing_target(spec, elsewhere=elsewhere)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    (tmp_path / "answers_plugin.py").write_text(PLUGIN)
    return tmp_path / "answers_plugin.py"


@pytest.mark.parametrize("name", ["Answers", "make"])
def test_a_class_or_a_function_that_is_there_is_no_problem(plugin: Path, name: str) -> None:
    assert told(plugin.parent, f"{plugin}:{name}") is None


def test_a_class_that_its_file_lacks_is_told_with_those_there(plugin: Path) -> None:
    assert told(plugin.parent, f"{plugin}:Answrs") == (
        f"the plugin 'answers_plugin' names the class '{plugin}:Answrs': "
        "no class Answrs in answers_plugin.py (have: Answers)"
    )


def test_a_file_that_is_not_there_is_told_with_the_one_that_was_meant(plugin: Path) -> None:
    said = told(plugin.parent, f"{plugin.with_name('answer_plugin.py')}:Answers")
    assert said is not None and said.endswith("answer_plugin.py does not exist (did you mean answers_plugin.py?)")


def test_a_module_that_is_not_installed_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    said = told(tmp_path, "msgspecc:Model")
    assert said is not None and said.endswith("there is no module 'msgspecc' (did you mean msgspec?)")


def test_a_class_of_an_installed_package_is_looked_for_without_its_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boxed").mkdir()
    (tmp_path / "boxed" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "boxed" / "inner.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    said = told(tmp_path / "m", "boxed.inner:Answrs")
    assert said is not None and said.endswith("no class Answrs in inner.py (have: Answers)")
    assert told(tmp_path / "m", "boxed.inner:Answers") is None
    assert "boxed" not in sys.modules


def test_a_class_in_the_directory_itself_is_looked_for_there(tmp_path: Path) -> None:
    (tmp_path / "serve.py").write_text("class Model: ...\n")
    assert told(tmp_path, "serve:Model", own_code=True) is None
    said = told(tmp_path, "server:Model", own_code=True)
    assert said is not None and said.endswith("there is no module 'server' (did you mean serve?)")


def test_a_target_without_a_class_says_how_one_is_written(tmp_path: Path) -> None:
    said = told(tmp_path, "answers_plugin")
    assert said is not None and said.endswith("names the class 'answers_plugin', which is not of the form MODULE:CLASS")


def test_of_another_interpreter_only_files_are_known(plugin: Path) -> None:
    assert told(plugin.parent, "no_such_module:Model", elsewhere=True) is None
    assert told(plugin.parent, f"{plugin}:Answrs", elsewhere=True) is not None
