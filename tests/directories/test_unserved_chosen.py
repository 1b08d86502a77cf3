"""A directory whose config.yaml chose another framework than that of its files is told what its files are."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from gateway import peek_mismatch

from .unserved_cases import architecture, make

LORA = {"peft_type": "LORA", "base_model_name_or_path": "the/base"}
ENCODER = architecture("BertModel", model_type="bert")
WRITER = architecture("LlamaForCausalLM", model_type="llama")
MODULES: list[object] = []
KINDS: Mapping[str, Callable[[Path], Path]] = {
    "modules": lambda path: make(path, "model.safetensors", modules=MODULES, config=ENCODER),
    "modules below": lambda path: make(path, "0_Transformer/model.safetensors", modules=MODULES),
    "adapter": lambda path: make(path, "adapter_model.safetensors", adapter_config=LORA),
    "adapter and its base's config": lambda path: make(
        path, "adapter_model.safetensors", adapter_config=LORA, config=WRITER
    ),
    "mlx": lambda path: make(path, "adapters.safetensors", adapter_config={"fine_tune_type": "lora"}, config=WRITER),
    "skops": lambda path: make(path, "model.skops"),
    "onnx": lambda path: make(path, "model.onnx"),
    "static": lambda path: make(path, "model.safetensors", config={"apply_pca": 8, "apply_zipf": True}),
    "language model": lambda path: make(path, "model.safetensors", config=WRITER),
    "gguf": lambda path: make(path, "it.gguf"),
}
SENTENCES = "modules.json makes it a model of sentence-transformers.*write framework: sentence-transformers into config"


@pytest.mark.parametrize(
    ("framework", "kind", "says"),
    [
        ("transformers", "modules", SENTENCES),
        ("transformers", "modules below", SENTENCES),
        ("transformers", "adapter", "a LORA adapter of the/base.*merge"),
        ("transformers", "adapter and its base's config", "a LORA adapter of the/base.*merge"),
        ("transformers", "mlx", r"an adapter of mlx-lm.*mlx_lm\.fuse"),
        ("transformers", "skops", r"model\.skops is a model of scikit-learn: write framework: sklearn into config"),
        ("transformers", "onnx", "an ONNX model"),
        ("transformers", "static", "model2vec.*without modules.json"),
        ("sentence-transformers", "mlx", r"an adapter of mlx-lm.*mlx_lm\.fuse"),
        ("sentence-transformers", "skops", "write framework: sklearn into config.yaml"),
        ("sentence-transformers", "onnx", "an ONNX model"),
        ("sentence-transformers", "static", "model2vec.*without modules.json"),
        ("sklearn", "modules", SENTENCES),
        ("sklearn", "adapter", "a LORA adapter of the/base.*merge"),
        ("sklearn", "onnx", "an ONNX model"),
        ("sklearn", "language model", "LlamaForCausalLM, a language model: write framework: transformers into config"),
        ("sklearn", "gguf", "it.gguf is a language model as a GGUF file: write framework: transformers into config"),
    ],
)
def test_the_line_is_about_what_is_there(framework: str, kind: str, says: str, tmp_path: Path) -> None:
    place = KINDS[kind](tmp_path)
    (place / "config.yaml").write_text(f"framework: {framework}\n")
    assert (told := peek_mismatch(place, framework)) is not None
    assert re.search(says, told)


@pytest.mark.parametrize(
    ("framework", "kind"),
    [
        ("transformers", "language model"),
        ("transformers", "gguf"),
        ("sentence-transformers", "modules"),
        ("sentence-transformers", "modules below"),
        ("sentence-transformers", "gguf"),  # of which it gives no vectors, and says so
        ("sentence-transformers", "adapter"),  # which its library applies
        ("sentence-transformers", "language model"),  # of which it makes vectors
        ("sklearn", "skops"),
    ],
)
def test_what_the_framework_may_serve_is_its_own_to_tell(framework: str, kind: str, tmp_path: Path) -> None:
    assert peek_mismatch(KINDS[kind](tmp_path), framework) is None


def test_a_model_that_writes_and_gives_vectors_is_what_config_yaml_says(tmp_path: Path) -> None:
    place = make(tmp_path, "model.safetensors", modules=MODULES, config=WRITER)
    assert peek_mismatch(place, "transformers") is None
    assert peek_mismatch(place, "sentence-transformers") is None


def test_an_empty_directory_is_told_what_it_lacks_by_the_framework(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("framework: transformers\n")
    assert peek_mismatch(tmp_path, "transformers") is None
