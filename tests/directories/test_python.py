from __future__ import annotations

from pathlib import Path

import pytest

from gateway import ConfigError
from gateway.directories.python import find_model

MODEL = "class Model:\n    def chat_completions(self, body):\n        yield 'hello'\n"


def test_a_model_py_alone_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)

    spec = find_model(tmp_path, {"slots": 2})

    assert spec is not None
    assert (spec.target, spec.format, spec.limits.slots) == ("model:Model", "python", 2)


def test_a_config_yaml_beside_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("class Shout:\n  def predict(self, x): ...\n")
    (tmp_path / "config.yaml").write_text("model_class_name: Shout\nmodel_name: Loud\n")

    spec = find_model(tmp_path, {})

    assert spec is not None
    assert (spec.target, spec.display_name) == ("model:Shout", "Loud")


def test_other_directories_are_not_its_business(tmp_path: Path) -> None:
    assert find_model(tmp_path, {}) is None


@pytest.mark.parametrize(("name", "text"), [("model.py", "class Model"), ("config.yaml", "a: [")])
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=rf"{name}:\d+: "):
        find_model(tmp_path, {})


def test_the_inside_of_a_truss_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.py").write_text(MODEL)

    spec = find_model(tmp_path / "model", {})

    assert spec is not None
    assert "add a config.yaml" in spec.notes[-1]
