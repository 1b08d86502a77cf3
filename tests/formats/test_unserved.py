from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.discovery import discover
from gateway.formats import unserved_kinds
from gateway.formats.unserved import find_unserved
from gateway.formats.unserved_kinds import DIRECTORIES, FILES, Kind
from gateway.plugins import Plugins


def make(path: Path, *names: str, **objects: Any) -> Path:
    """A directory with empty files of these names, and a JSON file for each object."""
    path.mkdir(parents=True, exist_ok=True)
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()
    for name, value in objects.items():
        (path / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def told(path: Path) -> str:
    found = find_unserved(path)
    assert found is not None
    assert found.fix
    return f"{found.what} ({found.fix})"


def architecture(name: str, **more: Any) -> dict[str, Any]:
    return {"architectures": [name], **more}


WHOLE = ("model.safetensors", "tokenizer.json")


@pytest.mark.parametrize(
    ("names", "objects", "says"),
    [
        (("pytorch_model.bin",), {"config": architecture("LlamaForCausalLM")}, "a pickle.*safetensors"),
        (("pytorch_model-00001-of-00002.bin",), {"config": architecture("LlamaForCausalLM")}, "a pickle"),
        (("tf_model.h5",), {"config": architecture("GPT2ForCausalLM")}, "TensorFlow"),
        (("flax_model.msgpack",), {"config": architecture("GPT2ForCausalLM")}, "Flax"),
        (("tokenizer.json",), {"config": architecture("LlamaForCausalLM")}, "without its weights"),
        (WHOLE, {"config": architecture("Gemma3ForConditionalGeneration")}, "more than texts"),
        (WHOLE, {"config": architecture("LlavaQwen", vision_config={})}, "more than texts"),
        (WHOLE, {"config": architecture("T5ForConditionalGeneration", is_encoder_decoder=True)}, "encoder and a dec"),
        (WHOLE, {"config": architecture("WhisperForConditionalGeneration")}, "speech.*transcriptions"),
        (WHOLE, {"config": architecture("BertForSequenceClassification")}, "classifier of texts.*classify"),
        (WHOLE, {"config": architecture("BertForTokenClassification")}, "classifier of words"),
        (WHOLE, {"config": architecture("BertForMaskedLM")}, "fills gaps"),
        (WHOLE, {"config": architecture("ViTForImageClassification")}, "classifier of images"),
        (WHOLE, {"config": architecture("BertModel")}, "modules.json"),
        (WHOLE, {"config": architecture("GPT2LMHeadModel")}, "a language model.*framework: transformers"),
        (("flax_model.msgpack",), {"config": architecture("GPT2LMHeadModel")}, "not .* but those of Flax"),
        (("m.torchscript",), {}, "torch.jit"),
        (("m.litertlm",), {}, "LiteRT"),
        (("g.task",), {}, "MediaPipe"),
        (("m.pmml",), {}, "PMML"),
        (WHOLE, {"config": architecture("Strange")}, "Strange, an architecture that no plugin serves"),
        (WHOLE, {"config": {"architectures": "Strange"}}, "Strange"),
        (WHOLE, {"config": {"model_type": "llama"}}, "no architectures.*llama.*framework: transformers"),
        (WHOLE, {"config": {"architectures": []}}, "neither architectures nor a model_type.*the library"),
        (WHOLE, {"config": {}}, "neither architectures nor a model_type"),
        (WHOLE, {"config": "{"}, "config.json is no JSON"),
        (WHOLE, {"config": "[]"}, "holds no JSON object"),
        (WHOLE, {}, "weights without a config.json"),
        (
            ("adapter_model.safetensors",),
            {"adapter_config": {"peft_type": "LORA", "base_model_name_or_path": "the/base"}},
            "a LORA adapter of the/base.*merge",
        ),
        (("adapter_model.bin",), {}, "an adapter"),
        (("unet/x.safetensors",), {"model_index": {"_class_name": "StableDiffusionPipeline"}}, "diffusers StableDiff"),
        (("saved_model.pb", "variables/variables.index"), {}, "SavedModel"),
        (("MLmodel", "python_model.pkl"), {}, "MLflow"),
        (("config.pbtxt", "1/model.onnx"), {}, "Triton"),
        (("openvino_model.xml", "openvino_model.bin"), {}, "OpenVINO"),
        (("config.cfg",), {"meta": {"lang": "en", "spacy_version": ">=3.8"}}, "spaCy"),
        ((), {"modules": [], "config_sentence_transformers": {"model_type": "CrossEncoder"}}, "CrossEncoder.*rerank"),
        ((), {"modules": [], "config_sentence_transformers": {"model_type": "SparseEncoder"}}, "SparseEncoder"),
        (("mmproj-x.gguf",), {}, "a projector"),
        (("tokenizer.json",), {"config": architecture("LlamaForCausalLM"), "x": {}}, "without its weights"),
        (
            ("tokenizer.json", ".cache/huggingface/download/model.safetensors.ab.incomplete"),
            {"config": architecture("LlamaForCausalLM")},
            "model.safetensors.ab.incomplete is not finished",
        ),
        (("blobs/sha256-ab", "manifests/x"), {}, "a store of Ollama.*ollama show --modelfile"),
        (("0a1b.incomplete",), {}, "not finished"),
        (("sha256-0a-partial",), {}, "not finished"),
        (("tokenizer.json",), {"config": architecture("BertModel")}, "BertModel, without its weights"),
        (("tokenizer.json", "onnx/notes.txt"), {"config": architecture("BertModel")}, "without its weights"),
        (("model.ckpt",), {"config": architecture("BertModel")}, "an encoder without a head"),
        (("shape_predictor_5_face_landmarks.dat",), {}, "dlib"),
        (("mmproj-x.gguf",), {"config": architecture("BertModel")}, "a projector"),
        ((), {"serialized_model": {"growth": "linear", "__prophet_version": "1.1.5"}}, "Prophet"),
        ((), {"serialized_model": json.dumps(json.dumps({"__prophet_version": "1.1.5"}))}, "Prophet"),
        (("README.md",), {}, r"no model, but .* \(README.md\)"),
        (
            (".git/HEAD", ".gitattributes", "LICENSE"),
            {},
            r"a clone without the files .* \(.git, .gitattributes, LICENSE\)",
        ),
        (("m.gguf.part",), {}, r"not finished \(m.gguf.part\)"),
        (("model.safetensors.crdownload",), {}, "not finished"),
        (("model.tar.gz",), {}, r"archive \(model.tar.gz\) \(unpack"),
        (("SmolLM.zip", "README.md"), {}, r"archive \(SmolLM.zip\) \(unpack"),
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
        (("model_state.pdparams",), {"config": architecture("LlamaForCausalLM")}, "those of Paddle"),
        (("model.onnx",), {"config": architecture("LlamaForCausalLM")}, "those of ONNX"),
        (("gliner_config.json", "pytorch_model.bin"), {}, "GLiNER"),
        (("ctfidf_config.json", "topics.json", "ctfidf.safetensors"), {"config": {"top_n_words": 10}}, "BERTopic"),
        (("checkpoint", "model.ckpt-9.index", "model.ckpt-9.data-00000-of-00001"), {}, "a checkpoint of TensorFlow"),
        (("m.gguf.1",), {}, "a number behind its name.*take the number away"),
        (WHOLE, {"config": architecture("VitsModel")}, "speaks.*docs/audio.md"),
        (WHOLE, {"config": architecture("BarkModel")}, "speaks.*docs/audio.md"),
        (WHOLE, {"config": architecture("Dinov2Model", image_size=518)}, "an encoder of images or sound"),
        (WHOLE, {"config": "\ufeff" + json.dumps(architecture("LlamaForCausalLM"))}, "is no JSON.*BOM"),
        (("SOME.ONNX",), {}, "ONNX"),
        (tuple(f"{name}.pt" for name in "abcd"), {}, r"a.pt, b.pt, c.pt …"),
    ],
)
def test_a_model_that_nobody_serves_is_called_by_its_name(
    names: tuple[str, ...], objects: dict[str, Any], says: str, tmp_path: Path
) -> None:
    make(tmp_path / "it", *names, **objects)
    assert re.search(says, told(tmp_path / "it")), told(tmp_path / "it")
    (problem,) = [each for each in discover([tmp_path], Plugins.load()).problems if each.code == "unserved"]
    assert (problem.model, problem.level) == ("it", "warning")


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
    b"\n\x0e\n\x05<unk>\x15\0\0\0\0",
    b'{"tree_metadata":{}}',
    b'<?xml version="1.0"?>\n<opencv_storage>\n<cascade type_id="opencv-cascade-classifier"><stageType>BOOST',
    b'<?xml version="1.0"?>\n<opencv_storage>\n<opencv_ml_svm>\n  <format>3</format>',
    b"\x0d\x1d\xc2\xc9\x01\x12\x04",
    b"\x01\x01\x01\x0dloss_metric_2\x03",
    b'\x40\0\0\0\0\0\0\0{"first_stage_model.decoder.conv_in.weight":{',
    b'\x40\0\0\0\0\0\0\0{"base_model.model.layers.0.q_proj.lora_A.weight":{',
    b'\x40\0\0\0\0\0\0\0{"lora_unet_down_blocks_1_attentions_0_proj_in.lora_down.weight":{',
)


@pytest.mark.parametrize("kind", [*DIRECTORIES, *FILES], ids=lambda kind: kind.names)
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
    ("names", "command"),
    [
        (("b.Q6_K.gguf-split-a", "b.Q6_K.gguf-split-b"), r"cat b.Q6_K.gguf-split-\* > b.Q6_K.gguf$"),
        (("b.gguf.part1of2", "b.gguf.part2of2"), r"cat b.gguf.part\* > b.gguf$"),
        (("b.gguf.part1of2",), r"missing \(there are 1 of 2\); this line then says"),
        (
            tuple(f"b.gguf.part{number}of10" for number in range(1, 11)),
            r"cat b.gguf.part\?{5} b.gguf.part\?{6} > b.gguf$",
        ),
        (("b.gguf-part-a", "b.gguf-part-b"), r"cat b.gguf-part-\* > b.gguf$"),
        (("b.gguf.aa", "b.gguf.ab"), r"cat b.gguf.\* > b.gguf$"),
        (("b.gguf.aa", "b.gguf.ab", "b.gguf.asc"), r"cat b.gguf.\?\? > b.gguf$"),
        (("b.gguf.part2", "b.gguf.part1", "b.gguf.partz.md5"), r"cat b.gguf.part\? > b.gguf$"),
        (("my b.gguf.part1", "my b.gguf.part2"), r"cat 'my b.gguf.part'\* > 'my b.gguf'$"),
        (("b.gguf.001", "b.gguf.002"), r"cat b.gguf.\* > b.gguf$"),
        (("b.gguf.part1of1", "c.gguf.part1of1"), r"> b.gguf; the others likewise"),
    ],
)
@pytest.mark.parametrize("config", [None, {"model_type": "llama"}, architecture("Qwen3ForCausalLM")])
def test_pieces_of_a_gguf_file_are_told_first_with_the_command_that_joins_them(
    config: dict[str, Any] | None, names: tuple[str, ...], command: str, tmp_path: Path
) -> None:
    make(tmp_path / "it", "README.md", *names, **({} if config is None else {"config": config}))
    found = find_unserved(tmp_path / "it")
    assert found is not None and "cut by hand" in found.what
    assert re.search(command, found.fix), found.fix


@pytest.mark.parametrize("config", [None, {"model_type": "nomic_bert"}, architecture("NomicBertModel")])
@pytest.mark.parametrize("kind", [b"bert", b"nomic-bert", b"jina-bert-v2", b"gemma-embedding"])
def test_an_encoder_as_a_gguf_file_is_told_whatever_config_lies_beside(
    kind: bytes, config: dict[str, Any] | None, tmp_path: Path
) -> None:
    make(tmp_path / "it", **({} if config is None else {"config": config}))
    key = b"general.architecture\x08\0\0\0" + len(kind).to_bytes(8, "little") + kind + (12).to_bytes(8, "little")
    (tmp_path / "it" / "m-Q8_0.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(16) + key + b"general.name")
    says = r"an encoder as a GGUF file, .* \(m-Q8_0.gguf\).*sentence-transformers"
    assert re.search(says, told(tmp_path / "it")), told(tmp_path / "it")


WITHOUT_CONTENT = {kind.what for kind in FILES if not kind.holds}


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
    assert re.search(rf"{name} is a pointer of Git LFS.*git lfs pull", told(tmp_path / "it"))


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


def test_the_checkpoints_of_a_training_are_models(tmp_path: Path) -> None:
    make(tmp_path / "run", "tokenizer.json", config=architecture("LlamaForCausalLM"))
    for name in ("checkpoint-1", "checkpoint-2"):
        make(tmp_path / "run" / name, *WHOLE, config=architecture("LlamaForCausalLM"))
    found = discover([tmp_path], Plugins.load())
    assert [spec.name for spec in found.specs] == ["run/checkpoint-1", "run/checkpoint-2"]
    assert found.problems == ()


@pytest.mark.parametrize("name", ["main.py", "app.py", "Model.py"])
@pytest.mark.parametrize("head", ["class Model:", "class Model(Base):"])
def test_a_class_model_in_a_file_of_another_name_is_told(name: str, head: str, tmp_path: Path) -> None:
    make(tmp_path / "it")
    (tmp_path / "it" / name).write_text(
        f"import os\n\n\n{head}\n    async def predict(self, inputs):\n        return 1\n"
    )
    assert "call the file model.py" in told(tmp_path / "it")
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


@pytest.mark.parametrize(
    "names", [(), (".gitkeep",), ("README.md", "data.csv"), ("data.csv", "notes.txt"), ("config.toml",), ("main.py",)]
)
def test_a_directory_without_a_model_is_none(names: tuple[str, ...], tmp_path: Path) -> None:
    assert find_unserved(make(tmp_path / "it", *names)) is None
    assert find_unserved(make(tmp_path / "other", *names, config={"editor": 1})) is None


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


def test_a_truss_without_a_class_says_what_its_weights_are(tmp_path: Path) -> None:
    make(tmp_path / "it", *WHOLE, config=architecture("BertForMaskedLM"))
    (tmp_path / "it" / "config.yaml").write_text("model_name: It\n")
    (problem,) = discover([tmp_path], Plugins.load()).problems
    assert "No module class file found" in problem.what
    assert "its weights are BertForMaskedLM" in problem.what


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
    (tmp_path / "it" / "checkpoints" / "last.ckpt").unlink()
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
    "a GGUF file by another name": b"GGUF\x03\0\0\0",
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


def test_a_pipeline_of_spark_is_told_by_its_metadata(tmp_path: Path) -> None:
    make(tmp_path / "it", "metadata/_SUCCESS", "stages/0_x/metadata/part-00000")
    (tmp_path / "it" / "metadata" / "part-00000").write_text('{"class":"org.apache.spark.ml.PipelineModel"}')
    assert told(tmp_path / "it").startswith("a model of Spark ML")


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


def test_a_matrix_of_kaldi_is_no_file_of_matlab(tmp_path: Path) -> None:
    (tmp_path / "final.mat").write_bytes(b"\0BFM \4" + bytes(40))
    assert find_unserved(tmp_path) is None

    (tmp_path / "net.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    assert "MATLAB" in (find_unserved(tmp_path) or pytest.fail("no line")).what


SEEDS = [b"a", b"\n", b" ", b"0", b"{", b'"', b"\n  \n", b" -1.1", b"<net ", b"<opencv_storage>", b"truss_chains"]
SEEDS += [
    b"class Model(",
    b"\nclass Model(\n ",
    b"\nclass Model(\n  def x",
    b'"num_features" ',
    b"import x\n",
    b"from \n",
]


def test_what_a_file_holds_is_found_in_a_time_that_grows_with_its_size() -> None:
    """A search holds every thread up. By the square of the size, the least of them would take ten times as long."""
    kinds = (*DIRECTORIES, *FILES, *unserved_kinds.BEGINNINGS)
    for kind in {kind.holds: kind for kind in kinds if kind.holds}.values():
        for seed in SEEDS:
            begin = seed * (65_536 // len(seed))
            before = time.process_time()
            re.search(kind.holds, begin)
            assert time.process_time() - before < 0.1, (kind.what, seed)


def test_a_modelfile_of_nothing_but_empty_lines_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "Modelfile").write_bytes(b"\n" * 65_536)
    before = time.process_time()
    assert "nothing" in told(tmp_path)
    assert time.process_time() - before < 1


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
