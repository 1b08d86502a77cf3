"""The tiny chat model of `models/` as a GGUF file, so that engines answer the same questions from the same weights."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

TINY = Path(__file__).parents[2] / "models" / "tiny-chat"
CUTS = (r"\p{L}+|\p{N}|\s|[^\p{L}\p{N}\s]+",)  # of its tokenizer; llama.cpp knows no such one
PRE = "smollm"  # by which the file calls them


@cache
def _names() -> dict[str, str]:
    from gateway_transformers.gguf.conversion import NAMES

    return {name: gguf for gguf, name in NAMES.items()}


def vocabulary(out: Any) -> None:
    """Add its tokenizer to a file."""
    tokenizer = json.loads((TINY / "tokenizer.json").read_text())
    marked = {token["id"]: token for token in tokenizer["added_tokens"]}
    tokens = {index: text for text, index in tokenizer["model"]["vocab"].items()}
    tokens |= {index: token["content"] for index, token in marked.items()}
    kinds = [(3 if marked[index]["special"] else 4) if index in marked else 1 for index in sorted(tokens)]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(PRE)
    out.add_token_list([tokens[index] for index in sorted(tokens)])
    out.add_token_types(kinds)
    out.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    out.add_bos_token_id(0)
    out.add_eos_token_id(2)
    out.add_pad_token_id(0)
    out.add_add_bos_token(False)


def write(path: Path, quant: str = "F32", added: Mapping[str, Any] | None = None, part: int = 0, **said: str) -> Path:
    """Write the model. `said` are strings of the tokenizer's metadata, `added` is added to tensors of the file.

    `part` is the number of tensors in each of several files; 0 makes one file.
    """
    import gguf
    from safetensors import safe_open

    config = json.loads((TINY / "config.json").read_text())
    out = gguf.GGUFWriter(path, "llama", split_max_tensors=part)
    out.add_context_length(config["max_position_embeddings"])
    out.add_embedding_length(config["hidden_size"])
    out.add_block_count(config["num_hidden_layers"])
    out.add_feed_forward_length(config["intermediate_size"])
    out.add_head_count(config["num_attention_heads"])
    out.add_head_count_kv(config["num_key_value_heads"])
    out.add_key_length(config["head_dim"])
    out.add_value_length(config["head_dim"])
    out.add_rope_dimension_count(config["head_dim"])
    out.add_layer_norm_rms_eps(config["rms_norm_eps"])
    out.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    vocabulary(out)
    template = (TINY / "chat_template.jinja").read_text()
    for key, value in {"chat_template": template, **said}.items():
        if value:
            out.add_string(f"tokenizer.{key}", value)
    with safe_open(TINY / "model.safetensors", "numpy") as weights:
        for name in weights.keys():  # noqa: SIM118 (no mapping)
            data = weights.get_tensor(name)
            if ".q_proj" in name or ".k_proj" in name:
                heads = config["num_attention_heads"]
                data = data.reshape(heads, 2, -1, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
            data = data + (added or {}).get(_gguf_name(name), 0)
            # rows of other lengths cannot be quantized
            wanted = gguf.GGMLQuantizationType[quant if data.ndim == 2 and data.shape[1] % 32 == 0 else "F32"]
            out.add_tensor(_gguf_name(name), gguf.quants.quantize(data, wanted), raw_dtype=wanted)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def write_adapter(path: Path, tensors: Mapping[str, Any], alpha: float, **keys: str) -> Path:
    """Write a LoRA file as llama.cpp's converter does."""
    import gguf

    said = {"general.type": "adapter", "adapter.type": "lora", **{key.replace("_", "."): keys[key] for key in keys}}
    out = gguf.GGUFWriter(path, said.pop("architecture", "llama"))
    for key, value in said.items():
        out.add_string(key, value)
    out.add_float32("adapter.lora.alpha", alpha)
    for name, data in tensors.items():
        out.add_tensor(name, data)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def _gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("model.layers."):
        _, _, layer, rest = stem.split(".", 3)
        return f"blk.{layer}.{_names()[rest]}.{kind}"
    return f"{_names()[stem]}.{kind}"


@contextmanager
def words_of_tiny_chat() -> Iterator[None]:
    """Let our tokenizer cut words as the model's own does. llama.cpp's is not used: it gets token ids."""
    from gateway_language.gguf import words

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(words.PRE, PRE, replace(words.PRE[PRE], cuts=CUTS))
        yield


@contextmanager
def loaded(path: Path, engine: str, **overrides: Any) -> Iterator[Any]:
    """Load a model directory as a worker does: by its spec, in its directory."""
    import gateway_llamacpp
    import gateway_transformers

    options = {**overrides.pop("options", {}), **({"engine": engine} if list(path.glob("*.gguf")) else {})}
    plugin = gateway_llamacpp if engine == "llamacpp" else gateway_transformers
    spec = plugin.find_model(path, {**overrides, "options": options})
    assert spec is not None, f"{path} is not recognised"
    module, name = spec.target.split(":")
    kind = getattr(importlib.import_module(module), name)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        model = kind(spec.config, spec.data_dir) if name == "LanguageModel" else kind(spec.config)
        model.load()
        try:
            yield model
        finally:
            model.unload()
