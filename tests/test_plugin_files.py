from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.errors import ConfigError
from gateway.plugin_files import load_file


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_plugin_file_runs_under_a_name_of_its_own(tmp_path: Path) -> None:
    plugin = load_file(write(tmp_path / "json.py", "from dataclasses import dataclass\n@dataclass\nclass A:\n  x: int"))

    assert plugin.module.__name__ == "gateway_plugin_file_json"
    assert sys.modules["json"] is not plugin.module


def test_its_own_targets_become_paths_and_others_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "my_plugin.py", "")
    plugin = load_file(path)

    assert plugin.rewrite("my_plugin:Class") == f"{path}:Class"
    assert plugin.rewrite(f"{plugin.module.__name__}:Class") == f"{path}:Class"
    assert plugin.rewrite("my_plugin_too:Class") == "my_plugin_too:Class"
    assert plugin.rewrite("model.model:Model") == "model.model:Model"


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "mine.py", "")
    monkeypatch.chdir(tmp_path)
    assert load_file(Path("mine.py")).rewrite("mine:A") == f"{tmp_path}/mine.py:A"


def test_a_missing_file_says_where_it_was_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; it is named in `plugins`"):
        load_file(tmp_path / "gone.py")


def test_what_is_not_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a Python file"):
        load_file(write(tmp_path / "plugin.txt", ""))


def test_a_file_that_fails_leaves_no_module_behind(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        load_file(write(tmp_path / "broken.py", "1 / 0"))
    assert "gateway_plugin_file_broken" not in sys.modules
