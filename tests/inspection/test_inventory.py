"""What the settings lead to, and what of it is wrong."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.directories.code.expected_routes import ExpectedRoutes
from gateway.errors import ConfigError
from gateway.files.cache import cache_dir
from gateway.files.mounts import contradictions
from gateway.hosting.reload import read_again
from gateway.inspection.inventory import Inventory, take_inventory
from gateway.settings.load import load_settings
from gateway.spec import ModelSpec

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
        "default_model = 'c' does not name a model (have: a, b)",
        "alias 'gpt-4o' refers to 'd', which is not a model (have: a, b)",
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


def test_two_models_do_not_get_each_others_files_at_one_mount_location(tmp_path: Path) -> None:
    """A link can lead to one of them only, so the second would read, or have the first read, the wrong weights."""
    place = tmp_path / "app/weights"
    roots = f"[gateway]\nmount_roots = ['{tmp_path / 'app'}']\n"

    def weights(name: str, source: str) -> None:
        entry = f"weights: [{{source: '{source}', mount_location: {place}}}]\n"
        Path("models", name, "config.yaml").write_text(entry)
        Path("models", name, "w").write_text(name)

    weights("a", "file://w")
    weights("b", "file://w")
    found = inventory(roots)
    assert [spec.name for spec in found.specs] == ["a"]
    [problem] = found.problems
    assert (problem.model, problem.code) == ("b", "mount_location")
    assert problem.what == f"mount_location {place} is also used by model 'a', for other files"

    assert [spec.name for spec in inventory(roots, only=["b"]).specs] == ["b"]
    mapped = f"{roots}[models.b.mounts]\n'{place}' = '{tmp_path / 'mine'}'\n"
    assert inventory(mapped).problems == ()
    weights("b", f"file://{tmp_path}/models/a/w")  # the same files
    assert inventory(roots).problems == ()
    for both in ("hf://owner/name", "s3://bucket/name"):
        weights("a", both)
        weights("b", both)
        assert inventory(roots).problems == ()
    weights("b", "file://w")
    place.mkdir(parents=True)  # the operator's own files, which every model may use
    assert inventory(roots).problems == ()


def test_a_reload_does_not_take_the_mount_location_of_another_model(tmp_path: Path) -> None:
    roots = f"[gateway]\nmount_roots = ['{tmp_path}/app']\n"
    for name in ("a", "b"):
        entry = f"weights: [{{source: 'file://w', mount_location: {tmp_path}/app/{name}}}]\n"
        Path("models", name, "config.yaml").write_text(entry)
    found = inventory(roots)
    models = {spec.name: SimpleNamespace(name=spec.name, spec=spec) for spec in found.specs}
    expected_routes = ExpectedRoutes(found.plugins.endpoints())
    catalog = SimpleNamespace(models=models, expected_routes=expected_routes)
    hub: Any = SimpleNamespace(settings=found.settings, plugins=found.plugins, catalog=catalog)
    loaded: Any = models["b"]
    assert read_again(hub, loaded).name == "b"
    config = Path("models/b/config.yaml")
    config.write_text(config.read_text().replace("app/b", "app/a"))
    with pytest.raises(ConfigError, match="app/a is also used by model 'a'"):
        read_again(hub, loaded)


def test_places_that_cannot_be_compared_are_one_models_problem(tmp_path: Path) -> None:
    def spec(name: str, entry: dict[str, str]) -> ModelSpec:
        config = {"weights": [{"mount_location": str(tmp_path / name), **entry}]}
        return ModelSpec(name=name, target="m:M", root=tmp_path, own_code=True, config=config, mount_roots=(tmp_path,))

    (problem,) = contradictions([spec("odd", {}), spec("good", {"source": "hf://a/b"})])
    assert problem.model == "odd" and "KeyError" in problem.what
