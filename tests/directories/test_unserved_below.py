"""Below a model that nobody serves, whole models are served and others are told of; its own parts are neither."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway import ConfigError, ModelSpec, hookimpl
from gateway.directories.discovery import Discovery, discover
from gateway.plugins import Plugins

from .unserved_cases import architecture, make

LLAMA = architecture("LlamaForCausalLM", model_type="llama")
ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "acme/tiny"}
ABOVE: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "an adapter": (("adapter_model.safetensors",), {"adapter_config": ADAPTER}),
    "an adapter beside the config of its base": (
        ("adapter_model.safetensors", "tokenizer.json"),
        {"adapter_config": ADAPTER, "config": LLAMA},
    ),
    "a checkpoint that is a pickle": (("pytorch_model.bin", "tokenizer.json"), {"config": LLAMA}),
    "a language model of MLC": (("params_shard_0.bin",), {"mlc-chat-config": {}}),
    "an agent of Stable-Baselines3": (("_stable_baselines3_version", "policy.pth"), {}),
    "an MLflow model": (("MLmodel",), {}),
}


@hookimpl
def find_model(path: Path) -> ModelSpec | None:
    if (path / "broken").exists():
        raise ConfigError(f"{path}: a file of it is missing")
    return ModelSpec(name="it", root=path, target="it:Model") if (path / "whole").exists() else None


@pytest.fixture(scope="module")
def plugins() -> Plugins:
    found = Plugins()
    found.register(SimpleNamespace(find_model=find_model), "it", source="test")
    return found


def told(found: Discovery) -> dict[str | None, str]:
    return {problem.model: problem.what for problem in found.problems}


def test_every_kind_above_is_told_and_what_is_whole_below_it_is_served(plugins: Plugins, tmp_path: Path) -> None:
    for kind, (names, objects) in ABOVE.items():
        place = tmp_path / kind.replace(" ", "-")
        make(make(place / "out", *names, **objects) / "merged", "whole")
        for root, name in ((place, "out/merged"), (place / "out", "merged")):
            found = discover([root], plugins)
            assert [spec.name for spec in found.specs] == [name], kind
            assert list(told(found)) == ["out"], kind


@pytest.mark.parametrize("kind", ["an adapter", "an adapter beside the config of its base", "a language model of MLC"])
def test_another_model_that_nobody_serves_has_its_line_there(kind: str, plugins: Plugins, tmp_path: Path) -> None:
    names, objects = ABOVE[kind]
    place = make(tmp_path / "out", *names, **objects)
    make(place / "merged", "pytorch_model.bin", "tokenizer.json", config=LLAMA)
    make(place / "half", "broken")
    lines = told(discover([tmp_path], plugins))
    assert lines.keys() == {"out", "out/merged", "out/half"}
    assert "whose weights are a pickle" in lines["out/merged"]


def test_parts_of_a_model_that_nobody_serves_are_no_models(plugins: Plugins, tmp_path: Path) -> None:
    adapter = make(tmp_path / "adapter", *ABOVE["an adapter"][0], adapter_config=ADAPTER)
    make(adapter / "checkpoint-100", "adapter_model.safetensors", "optimizer.pt", adapter_config=ADAPTER)
    make(adapter / "tokenizer", "tokenizer.json")
    pickle = make(tmp_path / "pickle", "pytorch_model.bin", "tokenizer.json", config=LLAMA)
    make(pickle / "onnx", "model.onnx", config=LLAMA)
    make(pickle / "original", "consolidated.00.pth")
    make(pickle / "checkpoint-100", "pytorch_model.bin", config=LLAMA)
    pipeline = make(tmp_path / "pipeline", model_index={"_class_name": "FluxPipeline", "text_encoder_2": ["a", "B"]})
    make(pipeline / "text_encoder_2", "whole")
    encoder = make(tmp_path / "encoder", modules=[{"idx": 0, "path": "0_CLIPModel", "type": "x.models.CLIPModel"}])
    make(encoder, config_sentence_transformers={"model_type": "SparseEncoder"})
    make(encoder / "0_CLIPModel", "whole")
    trained = make(tmp_path / "trained", "zero_to_fp32.py", "latest")
    make(trained / "global_step200", "zero_pp_rank_0_mp_rank_00_model_states.pt")
    (make(tmp_path / "saved", "saved_model.pb") / "assets").mkdir()
    found = discover([tmp_path], plugins)
    assert (found.specs, told(found).keys()) == (
        (),
        {"adapter", "pickle", "pipeline", "encoder", "trained", "saved"},
    )


def test_a_whole_model_below_the_last_directories_that_are_searched_is_told(plugins: Plugins, tmp_path: Path) -> None:
    place = make(tmp_path / "a/b/c/out", *ABOVE["an adapter"][0], adapter_config=ADAPTER)
    make(place / "checkpoint-100", "adapter_model.safetensors", adapter_config=ADAPTER)
    assert [problem.code for problem in discover([tmp_path], plugins).problems] == ["unserved"]
    make(place / "merged", "whole")
    _, deep = discover([tmp_path], plugins).problems
    assert deep.code == "too_deep" and deep.what.endswith(": merged")


def test_a_zip_file_beside_its_unpacked_folder_has_its_line_too(plugins: Plugins, tmp_path: Path) -> None:
    with zipfile.ZipFile(make(tmp_path / "ppo") / "agent.zip", "w") as opened:
        opened.writestr("policy.pth", b"")
    make(tmp_path / "ppo" / "agent", "_stable_baselines3_version", "policy.pth")
    unpacked, packed = (problem.what for problem in discover([tmp_path], plugins).problems)
    assert unpacked.startswith("an agent of Stable-Baselines3, unpacked")
    assert packed.startswith("an agent of Stable-Baselines3 (agent.zip), next to other directories")


def test_relative_roots_and_names_that_cannot_be_printed_change_nothing(
    plugins: Plugins, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = make(tmp_path / "odd\n", *ABOVE["an adapter"][0], adapter_config=ADAPTER)
    make(odd / "other", "adapter_model.safetensors", adapter_config=ADAPTER)
    make(make(tmp_path / "flow", "MLmodel") / "model", "whole")
    monkeypatch.chdir(tmp_path)
    found = discover(["."], plugins)
    assert [spec.name for spec in found.specs] == ["flow/model"]
    assert told(found).keys() == {"odd\n", "odd\n/other", "flow"}
