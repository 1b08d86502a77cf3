"""Which plugin claims a directory with a GGUF file, and with which engine."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import gateway_llamacpp
import gateway_transformers
import pytest
from gateway_language.gguf import serving
from gguf_headers import model

from gateway import ConfigError

PLUGINS = {"llamacpp": gateway_llamacpp, "torch": gateway_transformers}
CPU = "because it is a GGUF file on a CPU, and xllamacpp is installed"


@pytest.fixture
def has_package(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say that llama.cpp is installed, or that it is not, whatever is."""

    def say(there: bool) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name: (
                object() if there and name == serving.PACKAGE else None if name == serving.PACKAGE else find(name)
            ),
        )

    say(True)
    return say


def write(place: Path, config: str = "") -> Path:
    model(place / "a.gguf")
    (place / "config.yaml").write_text(config)
    return place


def served(place: Path, **overrides: Any) -> tuple[str, str]:
    """The engine of the one plugin that claims the directory, and why."""
    found = {name: spec for name, each in PLUGINS.items() if (spec := each.find_model(place, overrides)) is not None}
    ((name, spec),) = found.items()
    return name, spec.config["engine_why"]


def test_llama_cpp_serves_a_gguf_file_on_a_cpu_if_it_is_installed(tmp_path: Path, has_package: Any) -> None:
    assert served(write(tmp_path)) == ("llamacpp", CPU)
    has_package(False)
    name, why = served(tmp_path)
    assert name == "torch" and why.endswith("pip install 'model-gateway[llamacpp]'")


@pytest.mark.parametrize(
    ("config", "engine", "why"),
    [
        ("engine: torch", "torch", "as its settings say"),
        ("engine: llamacpp", "llamacpp", "as its settings say"),
        ("framework: transformers", "torch", "because of framework: transformers"),
        ("framework: llamacpp", "llamacpp", "because of framework: llamacpp"),
        ("framework: transformers\nengine: llamacpp", "llamacpp", "as its settings say"),
        ("resources: {accelerator: L4}", "torch", "because it has a GPU, and llama.cpp is here for CPUs"),
        ("resources: {accelerator: L4}\nengine: llamacpp", "llamacpp", "as its settings say"),
    ],
)
def test_settings_and_gpus_choose_the_engine(
    config: str, engine: str, why: str, tmp_path: Path, has_package: Any
) -> None:
    assert served(write(tmp_path, config)) == (engine, why)


def test_the_operator_chooses_over_the_directory(tmp_path: Path, has_package: Any) -> None:
    write(tmp_path, "engine: llamacpp")
    assert served(tmp_path, options={"engine": "torch"}) == ("torch", "as its settings say")


def test_an_engine_that_there_is_not_is_told_with_those_there_are(tmp_path: Path, has_package: Any) -> None:
    write(tmp_path, "engine: vllm")
    for plugin in PLUGINS.values():
        with pytest.raises(ConfigError, match=r"engine: 'vllm' is none of those .*: llamacpp, torch"):
            plugin.find_model(tmp_path, {})


def test_a_checkpoint_says_that_llama_cpp_cannot_serve_it(tmp_path: Path, has_package: Any) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "config.yaml").write_text("engine: llamacpp")
    assert gateway_llamacpp.find_model(tmp_path, {}) is None
    with pytest.raises(ConfigError, match="'llamacpp' cannot serve a checkpoint"):
        gateway_transformers.find_model(tmp_path, {})


def test_a_file_that_is_not_installed_yet_is_found_all_the_same(tmp_path: Path, has_package: Any) -> None:
    source = "package://no_such_package/a.gguf"
    (tmp_path / "config.yaml").write_text(f"weights: [{{source: '{source}', pip: '-r demo.txt'}}]")
    assert served(tmp_path) == ("llamacpp", CPU)


@pytest.mark.parametrize("config", ["framework: sklearn", "framework: sentence-transformers"])
def test_another_framework_and_a_class_of_its_own_come_first(config: str, tmp_path: Path, has_package: Any) -> None:
    write(tmp_path, config)
    assert [plugin.find_model(tmp_path, {}) for plugin in PLUGINS.values()] == [None, None]
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "model.py").write_text("class Model: ...")
    assert [plugin.find_model(tmp_path, {}) for plugin in PLUGINS.values()] == [None, None]


def test_what_lies_beside_a_file_is_told_by_either_plugin(tmp_path: Path, has_package: Any) -> None:
    write(tmp_path / "a")
    (tmp_path / "a" / "Modelfile").touch()
    for engine, plugin in PLUGINS.items():
        spec = plugin.find_model(tmp_path / "a", {"options": {"engine": engine}})
        assert spec is not None and "the Ollama Modelfile next to a.gguf is not read" in spec.asides[-1]
