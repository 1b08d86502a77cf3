from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import re
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from costs import least_seconds

from gateway.directories.unserved import files, kinds_by_content, unserved
from gateway.directories.unserved.code import PROGRAMS
from gateway.directories.unserved.gguf import GGUFS
from gateway.directories.unserved.images import LORAS, PARTS
from gateway.directories.unserved.kinds import COMPRESSED, DIRECTORIES, FILES, Kind
from gateway.directories.unserved.unserved import find_loose, find_unserved

from .unserved_cases import make, told

# How the files begin whose name alone would not tell the kind, as their libraries write them.
BEGINNINGS = (
    b"tree\nversion=v4\nnum_class=1\n",
    b'{"name":"tree","version":"v4","num_class":1,"tree_info":[]}',
    b'{"learner":{"attributes":{},"gradient_booster":{}},"version":[3,1,0]}',
    b'{"version":[1,7,6],"learner":{"gradient_booster":{}}}',
    b"binf\0\0\0?",
    b'{"features_info":{"float_features":[]},"oblivious_trees":[]}',
    b'{"format":"layers-model","modelTopology":{}}',
    b"\xba\x16\x4f\x2f\x0c\0\0\0",
    b"lmgg\x5a\x79\0\0",
    b"tjgg\x03\0\0\0",
    *(b"class S:\n    def predict(self, x):\n", b"class Model:\n    def predict(self, x):\n", b"def predict(x):\n"),
    b"PK\x03\x04\0\0",
    b"\x80\x04\x95\x10\0\0\0\0\0\0\0",
    b"GGUF\x03\0\0\0",
    b"\x06\0\0\0\x0c\0WhisperSpec\0",
    b'<?xml version="1.0"?>\n<net name="m" version="11">',
    b'{"lang":"en","name":"core","spacy_version":">=3.8"}',
    b'{"_class_name":"UNet2DConditionModel","_diffusers_version":"0.30"}',
    b'{"architecture":"resnet50","num_features":2048}',
    b'{"module":"keras_hub","registered_name":"keras_hub>Bert"}',
    b"import truss_chains as chains\n\n@chains.mark_entrypoint\nclass A: ...\n",
    b"import bentoml\n",
    b"import runpod\n",
    b"from beam import endpoint\n",
    b"import gradio as gr\n",
    b"from google.cloud.aiplatform.prediction.predictor import Predictor\n",
    b"def run(data):\n",
    b"class TritonPythonModel:\n",
    b"from ts.torch_handler.base_handler import BaseHandler\n",
    b"from mlserver import MLModel\n",
    b"import kserve\n",
    b"from mosec import Worker\n",
    b"import modal\n",
    b'name: "m"\nbackend: "python"\n',
    b"from cog import BasePredictor\n",
    b"import litserve as ls\n",
    b"from ray import serve\n\n@serve.deployment\nclass A: ...\n",
    b"class EndpointHandler:\n    ...\n",
    b"def model_fn(model_dir):\n    ...\n",
    b"apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\n",
    b"sample_rate: 16000\ntarget: nemo.collections.asr.models.EncDecCTCModel\n",
    b"pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer\n",
    b"espnet: '202301'\nfiles:\n",
    b"artifact_location: mlflow-artifacts:/0\nname: Default\n",
    b"name: iris\nbentoml_version: 1.4.0\n",
    b"[info]\nh2o_version = 3.46.0.1\n",
    b"CBM1\0\0\0\0",
    b"MATLAB 5.0 MAT-file, written by somebody",
    b"3000000 300\n</s> ",
    b'<?xml version="1.0"?>\n<PMML version="4.4">',
    b"\0\0\0\0\1\0",
    b"7767517\n3 3\nInput in0 0 1 in0\n",
    b"\x45\x8a\x76\0\0\0",
    b"\x07\0\0\x008.11.0\0",
    b"solver_type L2R_L2LOSS_SVC\nnr_class 2\n",
    b"svm_type c_svc\nkernel_type rbf\n",
    b'{"growth":"linear","seasonality_mode":"additive"}',
    b"the" + b" 0.418 -0.249" * 25 + b"\n",
    b"3 4\nb -0.013405681 0.005910784 0.12758374 0.22523183\n",
    b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x16gensim.models.ldamodel",
    b"\n\x0e\n\x05<unk>\x15\0\0\0\0",
    b'{"tree_metadata":{}}',
    b'<?xml version="1.0"?>\n<opencv_storage>\n<cascade type_id="opencv-cascade-classifier"><stageType>BOOST',
    b'<?xml version="1.0"?>\n<opencv_storage>\n<opencv_ml_svm>\n  <format>3</format>',
    b"\x0d\xc0\x01\0\0\x12\x04",
    b"351\nmodel.0.conv.weight 3 3d1a2b3c bd1a2b3c 3d1a2b3c\n",
    b"ply\nformat binary_little_endian 1.0\nelement vertex 3\nproperty float x\nproperty float f_dc_0\n",
    b"\x01\x01\x01\x0dloss_metric_2\x03",
    b'{"version":"1","build_config":{}}',
    b"models:\n  - model.npz\nvocabs:\n  - vocab.spm\n",
    b'{"fileFormatVersion":"1.0.0","itemInfoEntries":{}}',
    b'{"rasa_open_source_version":"3.6.0"}',
    b"24ka\1\0\0\0",
    b"PK\x03\x04" + bytes(26) + b"model_best.pth/data.pkl",
    b'{"width": 8}\n\x93NUMPY\1\0',
    b"\4\0\0\0\x08\0\0\0\1\0\0\0\2\2",
    b'{"version":"1.0","ebm":{"implementation":"python"}}',
    b"7JL\x1b\4\0\0\0",
    b"IxF2\x80\1\0\0",
    b"gluonts.torch.model.predictor.PyTorchPredictor",
    b'{"architecture":"LlamaForCausalLM","mapping":{"world_size":1,"tp_size":1}}',
)


@pytest.mark.parametrize("kind", [*DIRECTORIES, *PROGRAMS, *FILES], ids=lambda kind: kind.names)
def test_every_kind_of_the_table_is_told_by_each_of_its_names(kind: Kind, tmp_path: Path) -> None:
    begin = next(text for text in BEGINNINGS if re.search(kind.holds, text)) if kind.holds else b""
    for number, pattern in enumerate(kind.names.split()):
        name = pattern.replace("*", "some").replace("?", "1").replace("[0-9]", "1").replace("mlmodel", "MLmodel")
        place = tmp_path / str(number)
        place.mkdir()
        (place / name).write_bytes(begin)
        assert told(place).startswith(f"{kind.what} ({name})")
        if kind.holds:
            (place / name).write_bytes(b"something else")
            found = find_unserved(place)
            assert found is None or not found.what.startswith(kind.what) or kind.what in WITHOUT_CONTENT


@pytest.mark.parametrize(
    "text",
    [
        "3 4\nb -0.013405681 0.005910784 0.12758374 0.22523183\n",
        "40000 2\n</s> 0.25 1e-05 0.5\n".replace("1e-05", "1.5e-05"),
        "the 0.418001 0.249683 -0.412421 0.121701\n",
        "<user> 0.63006 0.65177 -1.5e-05 0.048975\n".replace("-1.5e", "-1.500e"),
    ],
)
def test_word_vectors_as_text_are_told_with_and_without_their_counts(text: str, tmp_path: Path) -> None:
    (tmp_path / "vectors.txt").write_text(text)
    assert told(tmp_path).startswith("word vectors as text (vectors.txt)")


@pytest.mark.parametrize("text", ["3 4\n1 2 3 4\n", "ratio 0.5 0.25\n", "12 monkeys\n", "a 1.5 2.5 3.5 4.5\n"])
def test_a_text_with_few_numbers_is_none_of_words(text: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(text)
    assert find_unserved(tmp_path) is None


WITHOUT_CONTENT = {kind.what for kind in FILES if not kind.holds}


@pytest.mark.parametrize("name", ["main.py", "app.py", "Model.py"])
@pytest.mark.parametrize("head", ["class Model:", "class Model(Base):"])
def test_a_class_model_in_a_file_of_another_name_is_told(name: str, head: str, tmp_path: Path) -> None:
    make(tmp_path / "it")
    (tmp_path / "it" / name).write_text(
        f"import os\n\n\n{head}\n    async def predict(self, inputs):\n        return 1\n"
    )
    assert "rename the file to model.py" in told(tmp_path / "it")
    (tmp_path / "it" / name).write_text(f"{head}\n    def forward(self, x):\n        return x\n")
    assert find_unserved(tmp_path / "it") is None


@pytest.mark.parametrize(("magic", "says"), [(b"tjgg", "older than GGUF"), (b"lmgg", "whisper")])
def test_a_ggml_file_is_told_by_what_it_begins_with(magic: bytes, says: str, tmp_path: Path) -> None:
    make(tmp_path / "it")
    (tmp_path / "it" / "ggml-model-q4_0.bin").write_bytes(magic + bytes(60))
    assert says in told(tmp_path / "it")


@pytest.mark.parametrize("name", ["chain.py", "hello.py"])
def test_a_chain_of_truss_is_told_and_a_program_is_not(name: str, tmp_path: Path) -> None:
    make(tmp_path / "it")
    (tmp_path / "it" / name).write_text("import os\n")
    assert find_unserved(tmp_path / "it") is None
    (tmp_path / "it" / name).write_text("import truss_chains as chains\n\n@chains.mark_entrypoint\nclass A: pass\n")
    assert told(tmp_path / "it").startswith("a Truss Chain")


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "bz2": bz2.compress,
    "gz": gzip.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "xz": lzma.compress,
    "z": zlib.compress,
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
@pytest.mark.parametrize("stem", ["model", "model.joblib", "model.pkl", "churn"])
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_is_told_however_it_was_compressed(suffix: str, stem: str, protocol: int, tmp_path: Path) -> None:
    make(tmp_path / "it")
    data = COMPRESSORS[suffix](pickle.dumps({"coef": [1.0]} if protocol > 1 else Path("a"), protocol))
    (tmp_path / "it" / f"{stem}.{suffix}").write_bytes(data)
    assert re.match(r"a compressed pickle, which runs code.*skops", told(tmp_path / "it")), told(tmp_path / "it")


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return file.getvalue()


BY_BEGINNING = {
    "a GGUF file with another suffix": b"GGUF\x03\0\0\0",
    "PyTorch weights or a pickled": zipped("best/data.pkl", "best/version"),
    "a CatBoost": b"CBM1\0\0",
    "a LightGBM": b"tree\nversion=v4\n",
    "an XGBoost": b"{L\0\0\0\0\0\0\0\x07learner{",
    "a TensorFlow Lite": b"\x1c\0\0\0TFL3",
    "an ONNX model in ORT's": b"\x1c\0\0\0ORTM",
    "a TensorRT engine": b"ftrt\0\0",
    "weights of Apache TVM": b"\xb7\x9c\x04\x05\x4f\x8d\xe5\xf7\0",
    "weights of MXNet": b"\x12\x01\0\0\0\0\0\0\0",
    "an n-gram": b"mmap lm http://kheafield.com/code format version 5\n",
    "a model of CRFsuite": b"lCRF\0",
    "an object of Java": b"\xac\xed\0\x05sr",
    "a pickle, which runs code": pickle.dumps([1], 4),
}


@pytest.mark.parametrize("name", ["model", "classifier", "weights.data", "0a1b", "best.params"])
@pytest.mark.parametrize("what", BY_BEGINNING)
def test_a_name_that_tells_nothing_hides_no_model(what: str, name: str, tmp_path: Path) -> None:
    make(tmp_path / "it", "README.md", "train.log")
    (tmp_path / "it" / name).write_bytes(BY_BEGINNING[what])
    assert told(tmp_path / "it").startswith(what)


@pytest.mark.parametrize(
    ("inside", "what"),
    [
        (("model.ini", "trees/t00.bin"), "a MOJO of H2O"),
        (("bundle.json", "root/model.json"), "a bundle of MLeap"),
        (("TransformerChain/Model.key",), "a model of ML.NET"),
        (("configuration.json", "coefficients.bin"), "a model of Deeplearning4j"),
        (("data", "policy.pth"), "an agent of Stable-Baselines3"),
        (("model.safetensors",), "an archive"),
    ],
)
def test_what_a_zip_file_holds_says_what_it_is(inside: tuple[str, ...], what: str, tmp_path: Path) -> None:
    make(tmp_path / "it")
    (tmp_path / "it" / "model.zip").write_bytes(zipped(*inside))
    assert told(tmp_path / "it").startswith(f"{what} (model.zip)")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jpg", b"\xff\xd8\xff"),
        ("a.csv", b"a,b\n1,2\n"),
        ("survey.sav", b"$FL2@(#) SPSS DATA FILE"),
        ("train-images-idx3-ubyte.gz", gzip.compress(b"\0\0\x08\x03" * 9)),
        ("notes", b"the list of things to do\n"),
        ("corpus.txt", b"the cat sat on the mat 1.5 times\n"),
        ("main.ts", b"export const x = 1;\n"),
        ("screen.kv", b"<Screen>:\n    Label:\n"),
        ("part.arrow", b"ARROW1\0\0"),
        ("app.db", b"SQLite format 3\0"),
        ("broken.zip", b"PK\x03\x04"),
        ("broken.xz", b"\xfd7zXZ\0\0"),
    ],
)
def test_data_and_programs_are_not_called_models(name: str, content: bytes, tmp_path: Path) -> None:
    make(tmp_path / "it", "README.md")
    (tmp_path / "it" / name).write_bytes(content)
    found = find_unserved(tmp_path / "it")
    assert found is None or found.what.startswith("an archive")


@pytest.mark.parametrize("end", COMPRESSED)
@pytest.mark.parametrize(
    "name",
    ["frozen_graph.pb", "w.h5", "w.npz", "p.pdiparams", "net.keras", "fit.rds", "a.skops", "b.gguf", "yolo.tflite"],
)
def test_what_was_compressed_is_told_to_be_unpacked_whatever_its_kind(name: str, end: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.{end}").write_bytes(gzip.compress(b"any"))
    assert f"({name}.{end}) (unpack it here" in told(tmp_path)


@pytest.mark.parametrize("name", ["table.csv.gz", "notes.txt.gz", "logs.json.gz", "a.tokenizer.json.zst", "cloud.ply"])
def test_compressed_data_and_scans_are_no_models(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(gzip.compress(b"ply\nproperty float x\n"))
    (tmp_path / "scan.ply").write_bytes(b"ply\nformat ascii 1.0\nproperty float x\nend_header\n")
    assert find_unserved(tmp_path) is None


def test_a_matrix_of_kaldi_is_no_file_of_matlab(tmp_path: Path) -> None:
    (tmp_path / "final.mat").write_bytes(b"\0BFM \4" + bytes(40))
    assert find_unserved(tmp_path) is None

    (tmp_path / "net.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    assert "MATLAB" in (find_unserved(tmp_path) or pytest.fail("no line")).what


SEEDS = [b"a", b"\n", b" ", b"0", b"{", b'"', b"\n  \n", b" -1.1", b"<net ", b"<opencv_storage>", b"truss_chains"]


SEEDS += [
    b"class Model(",
    b"\nclass Model(\n ",
    b'"unet.',
    b'"mapping":{',
    b"general.architecture\x08\0\0\0",
    b"\nclass Model(\n  def x",
    b'"num_features" ',
    b"import x\n",
    b"from \n",
]


def test_what_a_file_holds_is_found_in_a_time_that_grows_with_its_size() -> None:
    """A search holds every thread up. By the square of the size, the least of them would take seconds, not 10 ms."""
    kinds = (*DIRECTORIES, *PROGRAMS, *FILES, *kinds_by_content.BEGINNINGS, *GGUFS, *LORAS, *PARTS)
    for kind in {kind.holds: kind for kind in kinds if kind.holds}.values():
        for seed in SEEDS:
            search = partial(re.search, kind.holds, seed * (65_536 // len(seed)))
            assert least_seconds(search, enough=0.3) < 0.3, (kind.what, seed)


def test_the_table_of_a_zip_file_that_claims_to_be_large_is_not_read(tmp_path: Path) -> None:
    """A file with a hole takes no room on a disk, and as much memory as its hole when it is read."""
    size = 64 << 20
    with (tmp_path / "model.zip").open("wb") as file:
        file.truncate(size)
        file.seek(size)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0))
    tracemalloc.start()
    try:
        assert told(tmp_path).startswith("an archive (model.zip)")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


NODE = b"\n\x0c\n\x01x\x12\x01y\x22\x04Relu\x12\x01g"
NAMELESS = {
    "onnx": (b"\x08\x0e:\x11" + NODE, "an ONNX model", "model.onnx"),
    "onnx by its maker": (b"\x08\x08\x12\x07pytorch\x1a\x032.1:\x11" + NODE, "an ONNX model", "model.onnx"),
    "onnx with a text": (b"\x08\x0a2\x02hi:\x11" + NODE, "an ONNX model", "model.onnx"),
    "large onnx": (b"\x08\x08:\xd7\x83\x01\n\xd9\x01\n\x01X\x12\x05label", "an ONNX model", "model.onnx"),
    "glove": (b"the 0.418001 0.249683 -0.412421 0.121701\n", "word vectors as text", "gensim"),
    "word2vec as text": (b"3 4\nb -0.0134 0.0059 0.1275 0.2252\n", "word vectors as text", "gensim"),
    "word2vec": (b"3 4\ncat " + struct.pack("<4f", 0.1, 0.2, 0.3, 0.4), "word vectors of word2vec", "gensim"),
    "imatrix": (
        struct.pack("<ii", 9, 19) + b"blk.0.attn_q.weight",
        "an importance matrix",
        "the model that it belongs",
    ),
    "imatrix of the head": (struct.pack("<ii", 300, 13) + b"output.weight", "an importance matrix", "it belongs to"),
}


@pytest.mark.parametrize("name", ["model", "weights.v2", "it.dat"])
@pytest.mark.parametrize("kind", NAMELESS)
def test_a_file_whose_name_tells_nothing_is_known_by_how_it_begins(kind: str, name: str, tmp_path: Path) -> None:
    begin, what, fix = NAMELESS[kind]
    (tmp_path / name).write_bytes(begin + b"\0" * 8)
    assert told(tmp_path).startswith(f"{what} ({name}) (")
    assert fix in told(tmp_path)


@pytest.mark.parametrize(
    "text", [b"a text with words", b"\x08\x01", b"12 months\n", b"3 4\n5 6\n", b"\x09\0\0\0\x13\0\0\0something"]
)
def test_what_begins_otherwise_is_no_model(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(text)
    assert find_unserved(tmp_path) is None


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_two_names_of_one_file_are_not_two_models(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x0e")
    link(tmp_path / "m.tflite", tmp_path / "m.onnx")
    assert "others" not in told(tmp_path)


def test_of_very_many_files_only_the_likeliest_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_NAMES", 4)
    for number in range(50):
        (tmp_path / f"a-{number:02}.jpg").write_bytes(b"\xff\xd8")
    for name in ("config.json", "z.onnx", "z.bin"):
        (tmp_path / name).write_bytes(b"{}")
    assert files.likeliest(tmp_path) == {"config.json", "z.bin", "z.onnx", "a-00.jpg"}
    looked: list[str] = []
    monkeypatch.setattr(unserved, "placeholder", lambda file: looked.append(file.name))
    assert find_unserved(tmp_path) is not None
    assert sorted(looked) == ["a-00.jpg", "config.json", "z.bin", "z.onnx"]
    assert find_loose(tmp_path, []) is not None
