"""What lies in a folder of sentence-transformers without a part in its vectors is told; of SetFit beside its plugin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gateway_sentence_transformers import find_model
from gateway_sentence_transformers.left_out import left_out, other_heads

LISTED = [{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": "1_Pooling", "type": "x.Pooling"}]


def folder(place: Path, *names: str) -> Path:
    place.mkdir(exist_ok=True)
    (place / "modules.json").write_text(json.dumps(LISTED))
    for name in ("1_Pooling/config.json", *names):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).touch()
    return place


@pytest.mark.parametrize("name", ["3_Dense/config.json", "2_Normalize/config.json", "2_Dense_1024/model.safetensors"])
def test_a_module_that_is_not_listed_is_told(name: str, tmp_path: Path) -> None:
    assert list(left_out(folder(tmp_path))) == []
    (note,) = left_out(folder(tmp_path, name))
    assert note.startswith(f"modules.json does not list {name.partition('/')[0]}, so vectors are computed without")


@pytest.mark.parametrize("name", ["onnx/config.json", "checkpoint-10/model.safetensors", "3_Notes/notes.txt"])
def test_what_is_no_module_is_not_told(name: str, tmp_path: Path) -> None:
    assert list(left_out(folder(tmp_path, name))) == []


@pytest.mark.parametrize("modules", ["", "{", "[1]", "3"])
def test_a_list_of_modules_that_is_none_is_told_by_the_load(modules: str, tmp_path: Path) -> None:
    folder(tmp_path, "3_Dense/config.json")
    (tmp_path / "modules.json").write_text(modules)
    assert list(left_out(tmp_path)) == []


def test_heads_of_other_answers_are_noted_with_what_the_answers_are(tmp_path: Path) -> None:
    spec = find_model(folder(tmp_path / "bge", "colbert_linear.pt", "sparse_linear.pt"), {})
    assert spec is not None and spec.notes == ()
    (aside,) = spec.asides
    assert "are not used (colbert_linear.pt, sparse_linear.pt): only its dense vector is served" in aside
    assert "FlagEmbedding" in aside
    assert list(other_heads(folder(tmp_path / "plain"))) == []


@pytest.mark.parametrize("inner", ["", "0_Transformer"])
def test_two_saves_of_the_encoder_are_told(inner: str, tmp_path: Path) -> None:
    folder(tmp_path)
    place = tmp_path / inner
    place.mkdir(exist_ok=True)
    for name in ("model.safetensors", "model-00001-of-00001.safetensors"):
        (place / name).touch()
    notes = list(left_out(tmp_path))
    assert any("two saves in one folder: model.safetensors is served" in note for note in notes)
