"""What the settings lead to, and what of it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cache import cache_dir
from gateway.inventory import Inventory, take_inventory
from gateway.settings import load_settings

MODEL = "class Model:\n    def predict(self, inputs): ...\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "model.py").write_text(MODEL)


def inventory(text: str, **options: list[str]) -> Inventory:
    Path("gateway.toml").write_text(text)
    return take_inventory(load_settings(environ={}), with_devices=False, **options)


def test_an_unknown_runner_is_the_problem_of_its_model_only() -> None:
    found = inventory("[models.a]\nrunner = 'ray'\n")
    assert [spec.name for spec in found.specs] == ["b"]
    [problem] = found.problems
    assert str(problem) == "gateway.toml:2: [models.a] runner = 'ray' is unknown (have: process)"
    assert (problem.model, problem.level) == ("a", "error")
    assert inventory("[models.a]\nrunner = 'ray'\n", only=["b"]).problems == ()
    assert inventory("[models.a]\nrunner = 'ray'\n", only=["a"]).problems == (problem,)


def test_names_for_no_model_are_warnings() -> None:
    found = inventory("[gateway]\ndefault_model = 'c'\n[gateway.aliases]\n'gpt-4o' = 'd'\n'x' = 'a'\n")
    assert [problem.what for problem in found.problems] == [
        "default_model = 'c' names no model (have: a, b)",
        "alias 'gpt-4o' is for 'd', which is no model (have: a, b)",
    ]
    assert {problem.level for problem in found.problems} == {"warning"}


def test_a_broken_model_may_be_named() -> None:
    Path("models/a/model.py").write_text("x =")
    found = inventory("[gateway]\ndefault_model = 'a'\n")
    assert [problem.code for problem in found.problems] == ["invalid_model"]


def test_the_cache_directory_of_the_settings_holds_in_this_process_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_CACHE_DIR", "/elsewhere")  # so that it is put back
    inventory("")
    assert cache_dir() == Path("/elsewhere")
    inventory("[gateway]\ncache_dir = 'kept'\n")
    assert cache_dir() == tmp_path / "kept"
