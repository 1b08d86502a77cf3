from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import ConfigError, ModelSpec, hookimpl
from gateway.directories.discovery import discover
from gateway.plugins import Plugins

from .unserved_cases import WHOLE, architecture, make

CHAT = architecture("LlamaForCausalLM", model_type="llama")


def told(root: Path, format: str, fault: str = "") -> list[str]:
    """What is said of passed over models where a plugin of that format claims the directory `it`."""

    @hookimpl
    def find_model(path: Path) -> ModelSpec | None:
        if path.name != "it":
            return None
        if fault:
            raise ConfigError(f"{path}: {fault}")
        return ModelSpec(name="it", root=path, target="it:Model", format=format)

    plugins = Plugins()
    plugins.register(SimpleNamespace(find_model=find_model), "it", source="test")
    found = discover([root], plugins)
    assert [spec.name for spec in found.specs] == ([] if fault else ["it"])
    problems = [problem for problem in found.problems if problem.code == "passed_over"]
    in_it = [problem for problem in problems if "in its directories" not in problem.what]
    assert {problem.level for problem in in_it} <= {"warning" if fault else "note"}
    return [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("format", "names", "others"),
    [
        ("sklearn", ("model.skops", *WHOLE), "model.safetensors"),
        ("sklearn", ("model.skops", "model.cbm", "net.h5"), "model.cbm, net.h5"),
        ("sentence-transformers", (*WHOLE, "tiny.gguf"), "tiny.gguf"),
        ("transformers", ("tiny.gguf", "face.onnx"), "face.onnx"),
        ("transformers", (*WHOLE, "clf.skops", "model.ubj"), "clf.skops, model.ubj"),
    ],
)
def test_files_of_other_models_beside_the_one_that_is_served_are_named(
    format: str, names: tuple[str, ...], others: str, tmp_path: Path
) -> None:
    make(tmp_path / "it", *names, **({"config": CHAT} if WHOLE[0] in names else {}))
    (line,) = told(tmp_path, format)
    assert f"its files make it one {format} model, so these are ignored: {others} (move " in line


@pytest.mark.parametrize(
    ("fault", "names", "others"),
    [
        ("model.pkl is a pickle; save it as model.skops", ("model.pkl", "tiny.gguf", "a.onnx"), "a.onnx, tiny.gguf"),
        ("several GGUF files (a.gguf, b.gguf)", ("a.gguf", "b.gguf", "c.pt"), "c.pt"),
        ("b.safetensors is missing", ("a.safetensors", "pytorch_model.bin", "c.gguf"), "c.gguf"),
    ],
)
def test_files_of_other_models_beside_a_broken_one_are_named(
    fault: str, names: tuple[str, ...], others: str, tmp_path: Path
) -> None:
    make(tmp_path / "it", *names)
    (line,) = told(tmp_path, "any", fault)
    assert f"it is broken and can be only one model, so these are ignored: {others} (move " in line


@pytest.mark.parametrize(
    ("format", "names"),
    [
        ("sklearn", ("model.skops", "scaler.joblib", "notes.txt")),
        ("sentence-transformers", (*WHOLE, "pytorch_model.bin", "model.onnx", "tf_model.h5", "model_head.pkl")),
        ("transformers", (*WHOLE, "flax_model.msgpack", "64.tflite", "rust_model.ot", "small.gguf")),
        ("another", ("a.onnx", "b.onnx", "c.skops")),
        ("sklearn", ("model.skops", "model.cbm", "config.yaml")),
    ],
    ids=["estimators", "embeddings", "copies of a checkpoint", "a format of a stranger", "chosen by config.yaml"],
)
def test_copies_of_a_model_and_what_its_plugin_tells_have_no_line(
    format: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    make(tmp_path / "it", *names, **({"config": CHAT} if WHOLE[0] in names else {}))
    assert told(tmp_path, format) == []


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"adapter_config": {"peft_type": "LORA"}}, "it/below (a LORA adapter, not a whole model)"),
        ({"config": architecture("BertForSequenceClassification")}, "it/below (BertForSequenceClassification, a class"),
        ({"model_index": {"_class_name": "WanPipeline"}}, "it/below (a diffusers WanPipeline)"),
    ],
)
def test_a_model_that_nobody_serves_below_one_that_is_served_is_named(
    files: dict[str, Any], says: str, tmp_path: Path
) -> None:
    make(tmp_path / "it", *WHOLE, config=CHAT)
    make(tmp_path / "it" / "below", "model.safetensors", **files)
    (line,) = told(tmp_path, "transformers")
    assert f"so the models in its directories are ignored: {says}" in line


def test_parts_and_copies_below_a_model_are_no_models(tmp_path: Path) -> None:
    place = make(tmp_path / "it", *WHOLE, config=CHAT, router_config={"types": {"query_0": "x"}})
    make(place, modules=[{"path": "0_Part", "type": "sentence_transformers.models.Transformer"}])
    make(place / "0_Part", "model.safetensors", config=architecture("BertModel"))
    make(place / "query_0", "model.safetensors", config=architecture("BertModel"))
    make(place / "openvino", "openvino_model.xml", config=CHAT)
    make(place / "onnx", "model.onnx")
    make(place / "original", "consolidated.00.pth")
    assert told(tmp_path, "sentence-transformers") == []


@pytest.mark.parametrize("name", ["big.gguf.part", "big.gguf.crdownload", "model.safetensors.incomplete", "m.aria2"])
def test_a_download_that_is_not_finished_beside_a_model_is_named(name: str, tmp_path: Path) -> None:
    make(tmp_path / "it", "tiny.gguf", name)
    (line,) = told(tmp_path, "transformers")
    assert f"unfinished downloads: {name} (download them again, or delete them)" in line
