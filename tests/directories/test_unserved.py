from __future__ import annotations

import json
import pickle
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.directories.discovery import discover
from gateway.directories.unserved import files as unserved_files
from gateway.directories.unserved.files import is_called
from gateway.directories.unserved.unserved import find_unserved
from gateway.plugins import Plugins

from .unserved_cases import WHOLE, architecture, make, told


@pytest.mark.parametrize(
    ("names", "objects", "says"),
    [
        (("m.torchscript",), {}, "TorchScript"),
        (("m.litertlm",), {}, "LiteRT"),
        (("g.task",), {}, "MediaPipe"),
        (("m.pmml",), {}, "PMML"),
        (WHOLE, {}, "weights without a config.json"),
        (
            ("adapter_model.safetensors",),
            {"adapter_config": {"peft_type": "LORA", "base_model_name_or_path": "the/base"}},
            "a LORA adapter of the/base.*merge",
        ),
        (("adapter_model.bin",), {}, "an adapter"),
        (("unet/x.safetensors",), {"model_index": {"_class_name": "WanPipeline"}}, "diffusers WanPipeline"),
        (("saved_model.pb", "variables/variables.index"), {}, "SavedModel"),
        (("MLmodel", "python_model.pkl"), {}, "MLflow"),
        (("config.pbtxt", "1/model.onnx"), {}, "Triton"),
        (("openvino_model.xml", "openvino_model.bin"), {}, "OpenVINO"),
        (("config.cfg",), {"meta": {"lang": "en", "spacy_version": ">=3.8"}}, "spaCy"),
        (("mmproj-x.gguf",), {}, "a projector"),
        (("blobs/sha256-ab", "manifests/x"), {}, "a store of Ollama.*ollama show --modelfile"),
        (("0a1b.incomplete",), {}, "unfinished"),
        (("sha256-0a-partial",), {}, "unfinished"),
        (("shape_predictor_5_face_landmarks.dat",), {}, "dlib"),
        ((), {"serialized_model": {"growth": "linear", "__prophet_version": "1.1.5"}}, "Prophet"),
        ((), {"serialized_model": json.dumps(json.dumps({"__prophet_version": "1.1.5"}))}, "Prophet"),
        (("README.md",), {}, r"only files that accompany a model \(README.md\)"),
        (
            (".git/HEAD", ".gitattributes", "LICENSE"),
            {},
            r"a clone without the files .* \(.git, .gitattributes, LICENSE\)",
        ),
        (("m.gguf.part",), {}, r"unfinished download \(m.gguf.part\)"),
        (("model.safetensors.crdownload",), {}, "unfinished"),
        (("model.tar.gz",), {}, r"archive \(model.tar.gz\).*unpack"),
        (("SmolLM.zip", "README.md"), {}, r"archive \(SmolLM.zip\).*unpack"),
        (("20260101-120000.tar.gz",), {}, "archive"),
        (("Llama.7z",), {}, "archive"),
        (("model.tar.xz",), {}, "archive"),
        (("m.gguf.zst",), {}, "archive"),
        (("finalized_model.pk",), {}, "a pickle.*skops"),
        (("model.pkl.lz4",), {}, "a compressed pickle.*skops"),
        (("model.xz",), {}, "a compressed file"),
        (("weights.npy",), {}, "arrays of NumPy .*if they are the weights of a model: .*numpy.load"),
        (("train.h5",), {}, "an HDF5 file, as Keras"),
        (("model.safetensors.index.json",), {}, "a list of files of weights without the files"),
        (("gliner_config.json", "pytorch_model.bin"), {}, "GLiNER"),
        (("checkpoint", "model.ckpt-9.index", "model.ckpt-9.data-00000-of-00001"), {}, "a checkpoint of TensorFlow"),
        (("m.gguf.1",), {}, "a number after its name.*remove the number"),
        (("SOME.ONNX",), {}, "ONNX"),
        (tuple(f"{name}.pt" for name in "abcd"), {}, r"a.pt, b.pt, c.pt and 1 more\)"),
    ],
)
def test_a_model_that_nobody_serves_is_called_by_its_name(
    names: tuple[str, ...], objects: dict[str, Any], says: str, tmp_path: Path
) -> None:
    make(tmp_path / "it", *names, **objects)
    assert re.search(says, told(tmp_path / "it")), told(tmp_path / "it")
    (problem,) = [each for each in discover([tmp_path], Plugins.load()).problems if each.code == "unserved"]
    assert (problem.model, problem.level) == ("it", "warning")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("FROM llama3.2:1b\nSYSTEM hi\n", r"FROM llama3.2:1b, .*ollama show --modelfile llama3.2:1b"),
        ("# mine\nfrom ./x.gguf\n", r"put the GGUF file ./x.gguf here"),
        ("FROM hf.co/org/name:Q4_K_M\n", r"source: hf://org/name\)"),
        ("", "FROM nothing"),
    ],
)
def test_a_modelfile_says_what_it_is_made_from(text: str, says: str, tmp_path: Path) -> None:
    make(tmp_path / "it")
    (tmp_path / "it" / "Modelfile").write_text(text)
    assert re.search(says, told(tmp_path / "it")), told(tmp_path / "it")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


@pytest.mark.parametrize("name", ["model.onnx", "model.txt", "pytorch_model.bin", "weights.data"])
def test_a_pointer_of_git_lfs_is_told_whatever_it_stands_for(name: str, tmp_path: Path) -> None:
    make(tmp_path / "it")
    (tmp_path / "it" / name).write_text(POINTER)
    assert re.search(rf"{name} is a Git LFS pointer.*git lfs pull", told(tmp_path / "it"))


def test_a_cache_of_hugging_face_is_told_when_it_holds_no_model(tmp_path: Path) -> None:
    place = make(tmp_path / "models--org--some--name", "refs/main", "blobs/0a")
    assert re.search(r"cache of org/some--name, without .*hf://org/some--name", told(place))
    (problem,) = discover([tmp_path], Plugins.load()).problems
    assert problem.model == "models--org--some--name"


@pytest.mark.parametrize("name", ["models--org--name", "models--gpt2"])
@pytest.mark.parametrize("is_root", [True, False])
def test_the_blobs_of_a_cache_of_hugging_face_get_no_line_of_their_own(
    name: str, is_root: bool, tmp_path: Path
) -> None:
    place = make(tmp_path / name, "refs/main", "blobs/0a")
    (place / "blobs" / "0b").write_bytes(b"GGUF\x03\0\0\0")
    make(place / "snapshots/01ab", *WHOLE, config=architecture("LlamaForCausalLM"))
    found = discover([place if is_root else tmp_path], Plugins.load())
    assert [spec.name.rpartition("/")[2] for spec in found.specs] == ["01ab"]
    assert found.problems == ()


def test_a_cache_of_hugging_face_that_lies_too_deep_is_not_said_to_lack_its_snapshot(tmp_path: Path) -> None:
    snapshot = make(tmp_path / "huggingface/hub/models--org--name/snapshots/01ab", *WHOLE)
    make(snapshot, config=architecture("LlamaForCausalLM"))
    found = discover([tmp_path], Plugins.load())
    (problem,) = found.problems
    assert found.specs == () and "too deep" in problem.what and "without a whole" not in problem.what
    assert "--models" in problem.fix
    nearer = discover([tmp_path / "huggingface"], Plugins.load())
    assert [spec.name for spec in nearer.specs] == ["hub/models--org--name/snapshots/01ab"]


@pytest.mark.parametrize(
    "names", [(), (".gitkeep",), ("README.md", "data.csv"), ("data.csv", "notes.txt"), ("config.toml",), ("main.py",)]
)
def test_a_directory_without_a_model_is_none(names: tuple[str, ...], tmp_path: Path) -> None:
    assert find_unserved(make(tmp_path / "it", *names)) is None
    assert find_unserved(make(tmp_path / "other", *names, config={"editor": 1})) is None


@pytest.mark.parametrize("is_loose", [False, True], ids=["alone", "beside a model"])
def test_files_with_weights_of_other_kinds_are_counted_and_the_first_of_them_named(
    is_loose: bool, tmp_path: Path
) -> None:
    place = make(tmp_path / "it", "yolo.keras", "best.pt", "net.tflite", "notes.txt", "tokenizer.json", "run.py")
    if is_loose:
        make(place / "served", "model.py")
        (place / "served" / "model.py").write_text("class Model:\n    def predict(self, x): return x\n")
    (two,) = discover([tmp_path], Plugins.load()).problems
    assert "(best.pt), and 2 others that may hold weights: net.tflite, yolo.keras" in two.what
    assert "put other models in directories of their own" in two.fix

    make(place, "a.mlmodel", "big.traineddata", "forest.rds", "lid.ftz", "half.safetensors.part", "model.tar.gz")
    make(place, "speech.nemo")
    (place / "clf").write_bytes(pickle.dumps([1]))
    (many,) = discover([tmp_path], Plugins.load()).problems
    assert re.search(r"and 10 others that may hold weights: a\.mlmodel, \S+, \S+, \S+, \S+ and 5 more", many.what)


def test_what_belongs_to_a_model_is_no_other_model(tmp_path: Path) -> None:
    make(tmp_path / "onnx", "a.onnx", "a.onnx.data", "tokenizer.model", ".metadata.bin")
    make(tmp_path / "ncnn", "yolo.bin")
    (tmp_path / "ncnn" / "yolo.param").write_bytes(b"7767517\n1 1\n")
    make(tmp_path / "mxnet", "net-symbol.json", "net-0000.params")
    for told_of in ("onnx/a.onnx", "mxnet/net-symbol.json"):
        (tmp_path / told_of).write_bytes(b"\x08")
    (tmp_path / "mxnet" / "net-0000.params").write_bytes(b"\x12\x01" + bytes(6))  # as MXNet begins them
    assert [problem.what for problem in discover([tmp_path], Plugins.load()).problems] == [
        "an MXNet model (net-symbol.json)",
        "a model of ncnn (yolo.param)",
    ]


def test_of_many_pictures_beside_a_model_few_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.onnx", "best.pt", *(f"{number}.jpg" for number in range(1000)))
    asked: list[str] = []
    monkeypatch.setattr(unserved_files, "is_called", lambda name, kind: asked.append(name) or is_called(name, kind))
    found = unserved_files.weights_among(tmp_path, [path.name for path in tmp_path.iterdir()])
    assert found == ["a.onnx", "best.pt"]
    assert len({name for name in asked if name.endswith(".jpg")}) <= unserved_files.MOST


def test_files_beside_model_directories_are_no_model(tmp_path: Path) -> None:
    make(tmp_path / "team", "table.npz", "tokenizer.json", "a/model.py")
    (tmp_path / "team" / "a" / "model.py").write_text("class Model:\n    def predict(self, x): return x\n")
    found = discover([tmp_path], Plugins.load())
    assert [spec.name for spec in found.specs] == ["team/a"]
    assert found.problems == ()


def test_the_parts_of_a_model_are_no_models(tmp_path: Path) -> None:
    place = make(tmp_path / "sd", model_index={"_class_name": "Pipeline"})
    make(place / "text_encoder", *WHOLE, config=architecture("LlamaForCausalLM"))
    make(place / "unet", "x.safetensors")
    for root in (tmp_path, place):
        found = discover([root], Plugins.load())
        assert [(each.model, each.code) for each in found.problems if each.model == "sd"] == [("sd", "unserved")]


def test_a_name_that_is_served_from_elsewhere_is_not_missed(tmp_path: Path) -> None:
    make(tmp_path / "one" / "it", "a.pt")
    make(tmp_path / "two" / "it", "model.py")
    (tmp_path / "two" / "it" / "model.py").write_text("class Model:\n    def predict(self, x): return x\n")
    found = discover([tmp_path / "one", tmp_path / "two"], Plugins.load())
    assert [spec.name for spec in found.specs] == ["it"]
    assert [each for each in found.problems if each.code == "unserved"] == []


@pytest.mark.parametrize("root", [".", "mlruns"])
def test_models_that_mlflow_keeps_deep_below_an_experiment_have_one_line(root: str, tmp_path: Path) -> None:
    make(tmp_path / "mlruns" / "0" / "3f" / "artifacts" / "model", "MLmodel", "model.ubj")
    (tmp_path / "mlruns" / "0" / "meta.yaml").write_text("artifact_location: file:mlruns/0\nname: Default\n")
    (problem,) = discover([tmp_path / root], Plugins.load()).problems
    assert "MLflow" in problem.what
    assert problem.level == "warning"


OTHERS = {
    "hydra": ("last.ckpt", "model:\n  _target_: net.Net\ntrainer:\n  max_epochs: 3\n"),
    "detectron2": ("model_final.pth", "MODEL:\n  META_ARCHITECTURE: GeneralizedRCNN\nVERSION: 2\n"),
    "pyannote": ("pytorch_model.bin", "version: 3.1.0\npipeline:\n  name: pyannote.audio.pipelines.X\n"),
}


@pytest.mark.parametrize("name", ["config.yaml", "config.yml"])
@pytest.mark.parametrize("kind", OTHERS)
def test_a_config_yaml_of_another_program_makes_no_truss(kind: str, name: str, tmp_path: Path) -> None:
    weights, config = OTHERS[kind]
    make(tmp_path / "it", weights)
    (tmp_path / "it" / name).write_text(config)
    (problem,) = discover([tmp_path], Plugins.load()).problems
    assert (problem.code, problem.level, problem.model) == ("unserved", "warning", "it")
    assert weights in problem.what


def test_a_config_yaml_of_another_program_hides_no_model_below_and_is_told_where_there_is_none(tmp_path: Path) -> None:
    make(tmp_path / "it" / "checkpoints", "last.ckpt")
    (tmp_path / "it" / "config.yaml").write_text(OTHERS["hydra"][1])
    (problem,) = discover([tmp_path], Plugins.load()).problems
    assert (problem.model, "last.ckpt" in problem.what) == ("it/checkpoints", True)
    (tmp_path / "it" / "checkpoints" / "last.ckpt").rename(tmp_path / "it" / "checkpoints" / "notes.txt")
    (problem,) = discover([tmp_path], Plugins.load()).problems
    assert (problem.model, problem.level) == ("it", "warning")
    assert "the config.yaml of another program" in problem.what


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


KEYS = st.sampled_from(
    ["architectures", "model_type", "vision_config", "peft_type", "_class_name", "is_encoder_decoder"]
)


@given(
    st.sampled_from(["config", "adapter_config", "model_index", "config_sentence_transformers"]),
    st.dictionaries(KEYS, JSON, max_size=4) | JSON | st.binary(max_size=20),
    st.sets(st.sampled_from(["model.safetensors", "pytorch_model.bin", "tokenizer.json", "modules.json"])),
)
def test_no_file_stops_the_search(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: Any, files: set[str]
) -> None:
    path = make(tmp_path_factory.mktemp("root") / "it", *files)
    data = value if isinstance(value, bytes) else json.dumps(value).encode("utf-8", "surrogatepass")
    (path / f"{name}.json").write_bytes(data)
    found = find_unserved(path)
    assert found is None or "\n" not in found.what + found.fix


def test_an_annotator_of_spark_nlp_is_told_by_its_metadata(tmp_path: Path) -> None:
    make(tmp_path / "it", "metadata/part-00000")
    (tmp_path / "it" / "metadata" / "part-00000").write_text('{"class":"com.johnsnowlabs.nlp.annotators.Tokenizer"}')
    assert told(tmp_path / "it").startswith("an annotator of Spark NLP")


def test_a_pipeline_of_spark_is_told_by_its_metadata(tmp_path: Path) -> None:
    make(tmp_path / "it", "metadata/_SUCCESS", "stages/0_x/metadata/part-00000")
    (tmp_path / "it" / "metadata" / "part-00000").write_text('{"class":"org.apache.spark.ml.PipelineModel"}')
    assert told(tmp_path / "it").startswith("a model of Spark ML")


def test_a_modelfile_of_nothing_but_empty_lines_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_bytes(b"\n" * 65_536)
    before = time.process_time()
    assert "nothing" in told(tmp_path)
    assert time.process_time() - before < 1
