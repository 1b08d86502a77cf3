"""Code of a model in a file by another name says which name is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.directories.discovery import discover
from gateway.directories.unserved.unserved import find_unserved
from gateway.plugins import Plugins

CLASS = (
    "import os\n\nclass Sentiment:\n    def load(self): ...\n    def predict(self, inputs):\n        return inputs\n"
)


@pytest.mark.parametrize("name", ["main.py", "app.py", "predictor.py", "inference.py"])
def test_a_class_by_another_name_in_a_file_by_another_name_has_its_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(CLASS)
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04\x95")  # what the class loads is not the news
    found = find_unserved(tmp_path)
    assert found is not None and found.what.startswith("a class with a method predict") and f"({name})" in found.what
    assert "rename the file to model.py and the class to Model" in found.fix


def test_the_config_yaml_of_the_line_makes_it_a_model(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "app.py").write_text(CLASS)
    text = "model_module_dir: .\nmodel_class_filename: app.py\nmodel_class_name: Sentiment\n"
    (tmp_path / "m" / "config.yaml").write_text(text)
    found = discover([tmp_path], Plugins.load())
    assert [spec.target for spec in found.specs] == ["app:Sentiment"] and found.problems == ()


def test_a_function_alone_is_told_to_become_a_method(tmp_path: Path) -> None:
    (tmp_path / "inference.py").write_text("async def predict(inputs):\n    return inputs\n")
    found = find_unserved(tmp_path)
    assert found is not None and found.what.startswith("a function predict") and "model.py" in found.fix


def test_such_a_file_beside_models_hides_none_and_other_code_has_no_line(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(CLASS)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.py").write_text(CLASS.replace("Sentiment", "Model"))
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "main.py").write_text("def main():\n    predict(1)\n")
    found = discover([tmp_path], Plugins.load())
    assert [spec.name for spec in found.specs] == ["m"] and found.problems == ()
