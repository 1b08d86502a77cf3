from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.discovery import discover
from gateway.formats.unserved import FILES, find_unserved
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
        (WHOLE, {"config": {"architectures": []}}, "no architectures"),
        (WHOLE, {"config": {}}, "no architectures"),
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
        (("config.cfg",), {"meta": {}}, "spaCy"),
        ((), {"modules": [], "config_sentence_transformers": {"model_type": "CrossEncoder"}}, "CrossEncoder.*rerank"),
        ((), {"modules": [], "config_sentence_transformers": {"model_type": "SparseEncoder"}}, "SparseEncoder"),
        (("mmproj-x.gguf",), {}, "a projector"),
        (("m.gguf.part",), {}, r"not finished \(m.gguf.part\)"),
        (("model.safetensors.crdownload",), {}, "not finished"),
        (("model.tar.gz",), {}, r"archive \(model.tar.gz\) \(unpack"),
        *(((f"some{suffix}",), {}, rf"\(some\{suffix}\)") for suffix in FILES if suffix != ".gguf"),
        (("SOME.ONNX",), {}, "ONNX"),
        (tuple(f"{name}.pt" for name in "abcd"), {}, r"a.pt, b.pt, c.pt …"),
    ],
)
def test_a_model_that_nobody_serves_is_called_by_its_name(
    names: tuple[str, ...], objects: dict[str, Any], says: str, tmp_path: Path
) -> None:
    import re

    make(tmp_path / "it", *names, **objects)
    assert re.search(says, told(tmp_path / "it")), told(tmp_path / "it")
    (problem,) = [each for each in discover([tmp_path], Plugins.load()).problems if each.code == "unserved"]
    assert (problem.model, problem.level) == ("it", "warning")


@pytest.mark.parametrize("name", ["chain.py", "hello.py"])
def test_a_chain_of_truss_is_told_and_a_program_is_not(name: str, tmp_path: Path) -> None:
    make(tmp_path / "it")
    (tmp_path / "it" / name).write_text("import os\n")
    assert find_unserved(tmp_path / "it") is None
    (tmp_path / "it" / name).write_text("import truss_chains as chains\n\n@chains.mark_entrypoint\nclass A: pass\n")
    assert told(tmp_path / "it").startswith(f"a Truss Chain ({name})")


@pytest.mark.parametrize("names", [(), ("README.md",), ("data.csv", "notes.txt"), ("config.toml",), ("main.py",)])
def test_a_directory_without_a_model_is_none(names: tuple[str, ...], tmp_path: Path) -> None:
    assert find_unserved(make(tmp_path / "it", *names)) is None
    assert find_unserved(make(tmp_path / "other", *names, config={"editor": 1})) is None


def test_files_beside_model_directories_are_no_model(tmp_path: Path) -> None:
    make(tmp_path / "team", "weights.pt", "a/model.py")
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
