"""Files by names of other kinds, and models of many files that are told as one."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest

from gateway.directories.discovery import discover
from gateway.plugins import Plugins

from .unserved_cases import make, told


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.bin", "a.pt", "q4.ggml", "weights"])
def test_a_gguf_file_by_another_name_is_told_to_be_renamed(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"GGUF\3\0\0\0")
    assert told(tmp_path) == f"a GGUF file with another suffix ({name}) (rename it to NAME.gguf)"


def test_a_skops_file_called_a_zip_file_is_told_to_be_renamed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as file:
        file.writestr("schema.json", "{}")
    assert (
        told(tmp_path)
        == "a scikit-learn model saved by skops, with another suffix (model.zip) (rename it to model.skops)"
    )


def test_a_predictor_of_autogluon_is_one_model(tmp_path: Path) -> None:
    place = make(tmp_path / "ag", "predictor.pkl", "learner.pkl", "models/LightGBM/model.pkl")
    assert "AutoGluon" in told(place) and "skops" not in told(place)
    (problem,) = discover([tmp_path], Plugins.load()).problems
    assert "a predictor of AutoGluon (predictor.pkl)" in problem.what


def test_a_model_of_whisper_cpp_is_named_beside_its_encoder_for_core_ml(tmp_path: Path) -> None:
    make(tmp_path, "ggml-base.en.bin", "ggml-base.en-encoder.mlmodelc/model.mil")
    assert told(tmp_path).startswith(
        "a model of speech for whisper.cpp (ggml-base.en.bin), with its encoder for Core ML"
    )


def test_an_index_of_vectors_is_told_before_the_pickle_beside_it(tmp_path: Path) -> None:
    make(tmp_path, "index.faiss", "index.pkl")
    assert told(tmp_path).startswith("an index of vectors, not a model (index.faiss);")


def test_a_checkpoint_in_parts_is_told_before_what_all_parts_share(tmp_path: Path) -> None:
    make(tmp_path, "__0_0.distcp", "common.pt")
    assert told(tmp_path).startswith("a checkpoint of a training in parts (__0_0.distcp)")


@pytest.mark.parametrize("name", ["yolo.onnx", "best.pt", "net.keras", "a.safetensors"])
def test_an_empty_file_is_called_empty(name: str, tmp_path: Path) -> None:
    make(tmp_path, name)
    assert f"; {name} is empty (download the file again, and then: " in told(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps([1]))
    assert "empty" not in told(tmp_path)


@pytest.mark.parametrize(
    "begin", [b"\x80\x02\x8a\nl\xfc\x9c\x46", b"\x80\x02}q\0(X", b"PK\3\4" + bytes(26) + b"best/data.pkl"]
)
@pytest.mark.parametrize("name", ["model_best.pth.tar", "checkpoint.tar"])
def test_what_torch_saved_under_the_name_of_an_archive_is_none(name: str, begin: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(begin)
    assert told(tmp_path).startswith(f"PyTorch weights or a pickled model, which runs code when it is opened ({name})")
    (tmp_path / name).write_bytes(bytes(257) + b"ustar")
    assert told(tmp_path) == f"an archive ({name}) (unpack it here)"


def test_a_model_of_yggdrasil_is_one_and_no_graph_of_tensorflow(tmp_path: Path) -> None:
    make(tmp_path, "data_spec.pb", "header.pb", "random_forest_header.pb", "nodes-00000-of-00001", "done")
    assert told(tmp_path).startswith("a model of Yggdrasil Decision Forests (data_spec.pb)")


def test_a_zip_file_of_ml_net_is_known_by_its_own_name_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "sentiment.mlnet", "w") as file:
        file.writestr("TransformerChain/Model.key", "ML MODEL")
    assert told(tmp_path).startswith("a model of ML.NET (sentiment.mlnet)")


@pytest.mark.parametrize("name", ["incomplete-Llama-3.Q4_0.gguf", "yolo.incomplete.onnx", "net.keras.incomplete"])
def test_what_is_called_incomplete_is_a_download_that_is_not_finished(name: str, tmp_path: Path) -> None:
    make(tmp_path, name)
    assert told(tmp_path).startswith(f"an unfinished download ({name})")
