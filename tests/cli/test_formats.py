"""gateway formats: every kind of directory that is served, whether its packages are here, and how to get them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from gateway.plugins import Plugins

Run = Callable[..., Result]
MISSING = """
from gateway import Format, hookimpl

@hookimpl
def register_formats(register):
    register("rare", Format(files="*.rare", needs=("rare_library",), install="pip install rare"))
"""


def test_every_plugin_that_recognizes_directories_says_which() -> None:
    plugins = Plugins.load()
    said = {plugin for plugin, _ in plugins.formats().values()}
    assert {info.name for info in plugins.describe() if "find_model" in info.hooks} == said
    assert all(found.install and found.routes for _, found in plugins.formats().values() if found.needs)


def test_what_is_not_installed_is_shown_with_its_command(run: Run) -> None:
    Path("rare_plugin.py").write_text(MISSING)
    Path("gateway.toml").write_text('[gateway]\nplugins = ["rare_plugin.py"]\n')
    shown = run("formats").stdout
    assert "rare: pip install rare" in shown.splitlines()
    rows = {row["name"]: row for row in json.loads(run("formats", "--json").stdout)["formats"]}
    assert rows["rare"]["installed"] is False and rows["rare"]["plugin"] == "rare_plugin"
    assert rows["python"]["installed"] is True
    assert rows["xgboost"]["needs"] == ["xgboost"]


def test_a_format_of_a_wrong_type_is_a_problem_of_its_plugin(run: Run) -> None:
    Path("odd_plugin.py").write_text(MISSING.replace('needs=("rare_library",)', 'needs="rare_library"'))
    Path("gateway.toml").write_text('[gateway]\nplugins = ["odd_plugin.py"]\n')
    result = run("formats")
    assert result.exit_code == 1 and "rare" not in result.stdout
    assert "format 'rare' has needs='rare_library'; expected a tuple of strings" in result.stderr
