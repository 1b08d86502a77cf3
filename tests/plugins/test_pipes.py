"""A pipe, or a file without end, in the place of a file of a model: its check and its load say so, and read neither."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import gateway_catboost
import gateway_fasttext
import gateway_lightgbm
import gateway_sentence_transformers
import gateway_sklearn
import gateway_transformers
import gateway_xgboost
import pytest
from gateway_catboost.model import CatBoostModel
from gateway_fasttext.model import FastTextClassifier
from gateway_language.gguf import files
from gateway_lightgbm.model import LightGBMModel
from gateway_sklearn.model import SklearnModel
from gateway_transformers.model import LanguageModel
from gateway_xgboost.model import XGBoostModel
from gguf_headers import gguf
from st_folders import loaded

from gateway import ConfigError

pytestmark = pytest.mark.timeout(60)  # of which the imports of the libraries are most


def piped(source: Path, place: Path, file: str) -> Path:
    """A copy of a directory in which one file is a pipe."""
    shutil.copytree(source, place, symlinks=False)
    (place / file).unlink()
    os.mkfifo(place / file)
    return place


def is_told(plugin: Any, place: Path) -> bool:
    """Whether the check has an error for it; where no plugin takes it there is nothing to check."""
    spec = plugin.find_model(place, {})
    return spec is None or any(problem.level == "error" for problem in plugin.check_model(spec))


def test_of_a_checkpoint(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in sorted(each.name for each in checkpoint.iterdir()):
        place = piped(checkpoint, tmp_path / file.replace(".", "-"), file)
        assert is_told(gateway_transformers, place), file
        monkeypatch.chdir(place)
        with pytest.raises(ConfigError, match=f"{file}: is not a regular file"):
            LanguageModel({}, place).load()


def test_a_load_reads_no_file_of_a_tokenizer_of_any_size(
    checkpoint: Path, embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat, vectors = (shutil.copytree(each, tmp_path / each.name) for each in (checkpoint, embedder))
    for place in (chat, vectors):
        (place / "merges.txt").touch()
        os.truncate(place / "merges.txt", 1 << 40)
    monkeypatch.chdir(chat)
    with pytest.raises(ConfigError, match=r"merges\.txt has more than"):
        LanguageModel({}, chat).load()
    with pytest.raises(ConfigError, match=r"merges\.txt has more than"):
        loaded(vectors, monkeypatch)


def test_of_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = piped(gguf(tmp_path / "whole" / "m.gguf").parent, tmp_path / "piped", "m.gguf")
    assert files.first_keys(place / "m.gguf") == files.Peeked({})
    assert is_told(gateway_transformers, place)
    monkeypatch.chdir(place)
    with pytest.raises(ConfigError, match="not a regular file"):
        LanguageModel({}, place).load()


def test_of_a_folder_of_vectors(embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in sorted(str(each.relative_to(embedder)) for each in embedder.rglob("*") if each.is_file()):
        place = piped(embedder, tmp_path / file.replace(".", "-").replace("/", "-"), file)
        assert is_told(gateway_sentence_transformers, place), file
        with pytest.raises(ConfigError, match=f"{file}: is not a regular file"):
            loaded(place, monkeypatch)


def test_of_a_hidden_folder_of_vectors(embedder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = shutil.copytree(embedder, tmp_path / "m")
    (place / ".m").mkdir()
    os.mkfifo(place / ".m" / "config.json")
    (place / "modules.json").write_text('[{"path": ".m", "type": "sentence_transformers.models.Transformer"}]')
    assert is_told(gateway_sentence_transformers, place)
    with pytest.raises(ConfigError, match=r"config\.json: is not a regular file"):
        loaded(place, monkeypatch)
    (place / ".m" / "config.json").unlink()
    with pytest.raises(ConfigError, match="which is hidden: rename it"):
        loaded(place, monkeypatch)


@pytest.mark.parametrize("file", ["model.skops", "model.pkl"])
def test_of_an_estimator(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "piped"
    place.mkdir()
    os.mkfifo(place / file)
    assert is_told(gateway_sklearn, place)
    monkeypatch.chdir(place)
    with pytest.raises(ConfigError):
        SklearnModel({"allow_pickle": True}).load()


@pytest.mark.parametrize(
    ("plugin", "model_class", "file"),
    [
        (gateway_xgboost, XGBoostModel, "model.ubj"),
        (gateway_xgboost, XGBoostModel, "model.json"),
        (gateway_lightgbm, LightGBMModel, "model.lgb"),
        (gateway_lightgbm, LightGBMModel, "model.txt"),
        (gateway_catboost, CatBoostModel, "model.cbm"),
        (gateway_catboost, CatBoostModel, "model.bin"),
        (gateway_fasttext, FastTextClassifier, "model.ftz"),
    ],
)
def test_of_a_model_on_tables(
    plugin: Any, model_class: Any, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "piped"
    place.mkdir()
    os.mkfifo(place / file)
    assert is_told(plugin, place)
    monkeypatch.chdir(place)
    with pytest.raises(ConfigError):
        model_class({}).load()
