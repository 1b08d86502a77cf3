"""Files that are part of the one beside them: one line for the whole, and none is counted as another model."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from gateway.directories.discovery import discover
from gateway.directories.unserved import files as unserved_files
from gateway.directories.unserved.kinds import FILES
from gateway.directories.unserved.unserved import find_unserved
from gateway.plugins import Plugins

PICKLE = pickle.dumps({"a": 1})
LLAMA2_C = b"".join(size.to_bytes(4, "little") for size in (288, 768, 6, 6, 6, 32000, 256)) + b"x" * 64
NET = b"<?xml version='1.0'?><net name='a' version='11'>"
# The files, the first of which the line names; and how the line begins.
WHOLE: dict[str, tuple[dict[str, bytes], str]] = {
    "faiss": ({"index.faiss": b"IxF2", "index.pkl": PICKLE}, "an index of vectors"),
    "faiss by its beginning": ({"docs.index": b"IwFl..", "docs.meta": b"x", "docs.pkl": PICKLE}, "an index of vectors"),
    "annoy": ({"a.ann": b"x", "a.pkl": PICKLE, "a.json": b"{}"}, "an index of vectors"),
    "llama2.c": ({"stories15M.bin": LLAMA2_C, "tokenizer.bin": b"x"}, "a model of llama2.c"),
    "llama2.c, a later format": ({"a.bin": b"24ka\1\0\0\0", "tok512.bin": b"x"}, "a model of llama2.c"),
    "ncnn": ({"net.param": b"7767517\n1 1", "net.bin": b"x"}, "a model of ncnn"),
    "ncnn, binary": ({"net.param.bin": b"\x45\x8a\x76\0", "net.bin": b"x"}, "a model of ncnn"),
    "ncnn of pnnx": (
        {"n.ncnn.param": b"7767517\n", "n.ncnn.bin": b"x", "n.pnnx.param": b"7767517\n", "n.pnnx.bin": b"x"},
        "a model of ncnn",
    ),
    "openvino": ({"net.xml": NET, "net.bin": b"x"}, "an OpenVINO model"),
    "whisper.cpp": (
        {"ggml-tiny.bin": b"lmgg", "ggml-tiny-encoder-openvino.xml": NET, "ggml-tiny-encoder-openvino.bin": b"x"},
        "a model of speech for whisper.cpp (ggml-tiny.bin), with its encoder for OpenVINO",
    ),
    "mxnet": ({"net-symbol.json": b"{}", "net-0000.params": b"\x12\1\0\0\0\0\0\0"}, "an MXNet model"),
    "mxnet, saved at once": ({"net.params": b"\x12\1\0\0\0\0\0\0", "net.json": b"{}"}, "weights of MXNet"),
    "caffe": ({"net.caffemodel": b"x", "net.prototxt": b"x", "mean.binaryproto": b"x"}, "a Caffe model"),
    "core ml": ({"a.mlmodelc/coremldata.bin": b"x", "a.mlmodelc/weights/weight.bin": b"x"}, "a Core ML model"),
    "onnx": ({"m.onnx": b"x", "m.onnx.data": b"x", "m.onnx_data_1": b"x"}, "an ONNX model"),
    "onnx that names its weights": (
        {"m.onnx": b"..\nlocation\x12\x0bweights.bin", "weights.bin": b"x"},
        "an ONNX model",
    ),
    "tensorflow.js": (
        {"model.json": b'{"modelTopology": {}}', "group1-shard1of2.bin": b"x", "group1-shard2of2.bin": b"x"},
        "a model of TensorFlow.js",
    ),
    "gensim": (
        {"w.model.wv.vectors.npy": b"x", "w.model": PICKLE, "w.model.syn1neg.npy": b"x"},
        "word vectors of gensim",
    ),
    "gensim, vectors alone": ({"w.kv": PICKLE, "w.kv.vectors.npy": b"x"}, "word vectors of gensim"),
    "fasttext": ({"m.bin": b"\xba\x16\x4f\x2f", "m.vec": b"x"}, "a fastText model"),
    "mnn": ({"llm.mnn": b"x", "llm.mnn.weight": b"x", "embeddings_bf16.bin": b"x"}, "a model of MNN"),
    "tnn": ({"a.tnnmodel": b"x", "a.tnnproto": b"x"}, "a model of TNN"),
    "catboost": ({"m.cbm": b"x", "m.json": b'{"oblivious_trees": []}'}, "a CatBoost model"),
    "chroma": ({"data_level0.bin": b"x", "header.bin": b"x", "index_metadata.pickle": PICKLE}, "a store of vectors"),
    "scann": ({"scann_config.pb": b"x", "dataset.npy": b"x"}, "an index of vectors of ScaNN"),
}


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


@pytest.mark.parametrize("kind", WHOLE)
def test_files_that_belong_together_have_one_line_that_names_the_first(kind: str, tmp_path: Path) -> None:
    files, says = WHOLE[kind]
    found = find_unserved(write(tmp_path, files))
    assert found is not None and found.what.startswith(says)
    assert found.files in ((), (next(iter(files)).partition("/")[0],))
    assert "other" not in found.what + found.fix


SURE = {"openvino", "whisper.cpp", "core ml", "chroma", "scann"}  # what lies beside these is part of them


@pytest.mark.parametrize("kind", sorted(WHOLE.keys() - SURE))
def test_a_model_of_another_name_beside_them_is_counted_still(kind: str, tmp_path: Path) -> None:
    found = find_unserved(write(tmp_path, {**WHOLE[kind][0], "zz.engine": b"x"}))
    assert found is not None and "zz.engine" in found.what


@pytest.mark.parametrize(
    "files",
    [
        {"docs.index": b"no index", "docs.pkl": PICKLE},
        {"net.param": b"learning rate", "net.bin": b"x"},
        {"a.bin": b"x", "tokenizer.bin": b"x"},
        {"words.kv": b"no pickle", "words.kv.vectors.npy": b"x"},
    ],
)
def test_a_part_keeps_its_line_where_what_it_would_belong_to_is_something_else(
    files: dict[str, bytes], tmp_path: Path
) -> None:
    found = find_unserved(write(tmp_path, files))
    assert found is not None and found.files[-1] == list(files)[-1]


def test_parts_beside_directories_of_models_have_no_line_of_their_own(tmp_path: Path) -> None:
    model = {"m/model.py": b"class Model:\n    def predict(self, x):\n        return x\n"}
    root = write(tmp_path, {**model, "index.faiss": b"IxF2", "index.pkl": PICKLE})
    assert discover([root], Plugins.load()).problems == ()
    (root / "index.faiss").unlink()
    (problem,) = discover([root], Plugins.load()).problems
    assert "index.pkl" in problem.what


def test_each_of_many_files_is_read_once_for_all_rows_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        (tmp_path / f"{number}.bin").write_bytes(b"x")
    read: list[Path] = []

    def begin_of(file: Path) -> bytes:
        read.append(file)
        return b"x"

    monkeypatch.setattr(unserved_files, "begin_of", begin_of)
    found = unserved_files.first(FILES, tmp_path, frozenset(file.name for file in tmp_path.iterdir()), is_sure=False)
    assert found is not None and found.what.startswith("a *.bin")
    assert sorted(read) == sorted(tmp_path.iterdir())
