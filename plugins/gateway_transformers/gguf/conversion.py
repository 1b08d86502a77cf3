"""Convert a GGUF file once to an ordinary folder: config.json, model.safetensors and a tokenizer.

transformers needs a minute or more to read a GGUF file (it parses the header three times in Python), and cannot save
the result. Here the header is parsed once, and the tensors are dequantised and written. The next start finds the
folder, which is identified by the file's content. Weights of architectures that are not in the table below are
converted by transformers, once. The tokenizer always comes from `tokenizer`.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import mmap
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway_language.gguf import tokenizer as tokenizers
from gateway_language.gguf.faults import mapped, read
from gateway_language.gguf.files import parts
from gateway_language.gguf.header import Header, TensorInfo

from gateway import ConfigError, cache_dir, fingerprint, locked, opened, peek_json

from .rope import FREQUENCIES, rope_parameters, say_changed, say_lost

VERSION = 3  # of the output format; a new version uses a new folder
LARGE = 2**30  # bytes above which reading a file takes so long that it is announced
TEMPLATES = "additional_chat_templates"  # a folder name of transformers
PARTIAL = re.compile(r"\.partial-\w{8}")  # suffix of a folder, as `mkdtemp` makes it
SHARD = 2 * 2**30  # bytes of each file that we write, and roughly the memory of a conversion

# model_type and architecture of files that only differ from Llama's by the names below.
ARCHITECTURES = {
    "llama": ("llama", "LlamaForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
}
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


LONG_WAY = "transformers.integrations.ggml"  # the module with the list of architectures that transformers reads


class UnknownLayout(Exception):
    """The file is not covered by the fast conversion; the text says why."""


def folder(path: Path, dtype: str = "float32") -> Path:
    """Return the folder with the converted model, after converting it if needed.

    `dtype` is that of its weights. One process converts while others wait; a folder is either complete or does not
    exist. For a model in several parts, `path` may be any of them.
    """
    files = parts(path)
    if (size := sum(file.stat().st_size for file in files)) > LARGE:
        say(f"reading {path.name}, {size / 1e9:,.1f} GB, to identify it by its content; this happens once")
    contents = " ".join(fingerprint(file) for file in files)
    key = hashlib.sha256(f"{VERSION} {dtype} {contents}".encode()).hexdigest()[:16]
    place = cache_dir() / "gguf" / f"{files[0].stem}-{key}"
    if not place.is_dir():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with locked(place.with_name(f"{place.name}.lock"), tell=say, why=f"{files[0].name} cannot be converted"):
                if not place.is_dir():
                    _convert(files, place, dtype)
        except OSError as error:
            raise _unwritten(files[0].name, place.parent, error.strerror or str(error)) from error
    return place


def say_unread(header: Header) -> None:
    """Raise `ConfigError` for a file that neither the fast conversion nor transformers reads as it is."""
    name = header.architecture
    if name in ARCHITECTURES:
        return
    if (known := _known_to_transformers()) and not _is_known(name, known):
        raise ConfigError(f"transformers cannot read this GGUF file: its architecture {name!r} is not supported")
    say_lost(header)


def _known_to_transformers() -> Container[str]:
    """Return the architectures that it reads; none if it is not installed, or keeps the list elsewhere."""
    with contextlib.suppress(ImportError, AttributeError):
        known: Container[str] = importlib.import_module(LONG_WAY).GGUF_CONFIG_MAPPING
        return known
    return ()


def _is_known(name: str, known: Container[str]) -> bool:
    """Return whether a name is known, in transformers' spelling: qwen2moe is qwen2_moe, minimax-m2 is minimax_m2."""
    return any(text in known for text in (name, name.replace("moe", "_moe"), name.replace("-", "_")))


def _unwritten(name: str, place: Path, why: str) -> ConfigError:
    fix = "free some space, or use another directory: cache_dir in gateway.toml, or GATEWAY_CACHE_DIR"
    return ConfigError(f"{name} cannot be converted in {place}: {why}; {fix}")


def _convert(files: list[Path], place: Path, dtype: str) -> None:
    from safetensors import SafetensorError

    started, name = time.monotonic(), files[0].name
    for left in place.parent.iterdir():  # left by a killed process; we only hold the lock for this name
        if left.name.startswith(place.name) and PARTIAL.fullmatch(left.name[len(place.name) :]):
            shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{place.name}.partial-", dir=place.parent))
    try:
        with contextlib.ExitStack() as held:
            maps = [held.enter_context(mapped(file)) for file in files]
            header = read(maps, files)
            vocabulary = write_tokenizer(header, partial)
            try:
                config = _convert_fast(header, maps, name, partial, dtype)
            except UnknownLayout as reason:
                say_lost(header)
                slow = "transformers reads such a file in Python, which takes a minute or more, once"
                say(f"{name}: {reason}; {slow}")
                for left in partial.glob("model-*.safetensors"):
                    left.unlink()
                config = _convert_slowly(files, partial, dtype)
                say_changed(header, config)
        write_config(config | {"dtype": dtype}, vocabulary, partial)
        # Flush the files before the rename: a power failure must not leave an incomplete folder.
        for file in filter(Path.is_file, partial.rglob("*")):
            with opened(file) as written:
                os.fsync(written.fileno())
        partial.rename(place)
    except SafetensorError as error:  # most likely a full disk
        raise _unwritten(name, place.parent, str(error)) from error
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"{name} is converted, {time.monotonic() - started:.1f} s; kept in {place}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ── fast conversion ──────────────────────────────────────────────────────────────────────────────────────────────────


def _convert_fast(header: Header, maps: Sequence[mmap.mmap], name: str, place: Path, dtype: str) -> dict[str, Any]:
    """Write the weights; return the content of config.json."""
    try:
        config = model_config(header, factors_of(header, maps))
    except KeyError as error:
        raise ConfigError(f"its metadata does not say {error}: get the file again") from error
    tensors = [info for info in header.tensors if info.name != FREQUENCIES]
    names = [weight_name(info.name) for info in tensors]
    size = sum(len(data) for data in maps) / 1e6
    say(f"converting {name}, {size:,.0f} MB, into safetensors; this happens once")
    weights = zip(names, (dequantise(maps[info.part], info, config) for info in tensors), strict=True)
    write_weights(say_progress(name, weights, len(names)), place, dtype)
    return config


def write_config(config: dict[str, Any], vocabulary: tokenizers.Vocabulary, place: Path) -> None:
    """Write config.json and generation_config.json, in which every end token ends an answer."""
    pad = vocabulary.ids.get("padding", config.get("pad_token_id"))
    given = {"bos_token_id": vocabulary.ids.get("bos"), "eos_token_id": sorted(vocabulary.ends), "pad_token_id": pad}
    ids = {name: value for name, value in given.items() if value not in (None, [])}
    (place / "config.json").write_text(json.dumps(config | ids, indent=2))
    kept = place / "generation_config.json"
    sampling = peek_json(kept) if kept.exists() else {}
    kept.write_text(json.dumps(sampling | ids, indent=2))


def write_weights(weights: Iterable[tuple[str, Any]], place: Path, dtype: str) -> None:
    """Write model-00001.safetensors and so on, with the index that transformers needs."""
    import torch
    from safetensors.torch import save_file

    files: dict[str, str] = {}
    shard: dict[str, Any] = {}

    def flush() -> None:
        name = f"model-{len(set(files.values())) + 1:05}.safetensors"
        save_file(shard, place / name, metadata={"format": "pt"})
        files.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, tensor in weights:
        shard[name] = tensor.to(getattr(torch, dtype))
        if sum(part.nbytes for part in shard.values()) > SHARD:
            flush()
    if shard:
        flush()
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def say_progress(name: str, items: Iterable[Any], total: int) -> Iterator[Any]:
    """Pass items on, and print a line at every fifth of them: the output is often a log."""
    for count, item in enumerate(items, 1):
        yield item
        if 5 * count // total > 5 * (count - 1) // total:
            say(f"converting {name}: {100 * count // total} %")


def factors_of(header: Header, maps: Sequence[mmap.mmap]) -> list[float] | None:
    """Return the frequency factors of the rotary embedding, if the file has a tensor of them."""
    info = next((info for info in header.tensors if info.name == FREQUENCIES), None)
    return None if info is None else dequantise(maps[info.part], info, {"model_type": ""}).tolist()


def model_config(header: Header, factors: Sequence[float] | None = None) -> dict[str, Any]:
    """Return the content of config.json. Raises `UnknownLayout` for an architecture or key that is not supported."""
    name, metadata = header.architecture, header.metadata
    if name not in ARCHITECTURES:
        raise UnknownLayout(f"its architecture {name!r} is none of {', '.join(ARCHITECTURES)}")
    tensors = {info.name for info in header.tensors}
    if odd := [key for key in metadata if ".expert_" in key]:
        raise UnknownLayout(f"it sets {odd[0]}")
    model_type, architecture = ARCHITECTURES[name]
    heads = metadata[f"{name}.attention.head_count"]
    width = metadata[f"{name}.embedding_length"]
    head = metadata.get(f"{name}.attention.key_length", width // heads)
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": metadata[f"{name}.feed_forward_length"],
        "num_hidden_layers": metadata[f"{name}.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get(f"{name}.attention.head_count_kv", heads),
        "head_dim": head,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "max_position_embeddings": metadata[f"{name}.context_length"],
        "rms_norm_eps": metadata[f"{name}.attention.layer_norm_rms_epsilon"],
        "rope_parameters": rope_parameters(header, head, factors),
        "tie_word_embeddings": "output.weight" not in tensors,
        "vocab_size": next(info.shape[0] for info in header.tensors if info.name == "token_embd.weight"),
    }


def weight_name(name: str) -> str:
    """Return the name in transformers: blk.3.attn_q.weight → model.layers.3.self_attn.q_proj.weight."""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in NAMES:
        raise UnknownLayout(f"it has a tensor {name}")
    layer = f"model.layers.{match[1]}." if match[1] else ""
    return f"{layer}{NAMES[match[2]]}.{match[3]}"


def dequantise(data: mmap.mmap, info: TensorInfo, config: Mapping[str, Any]) -> Any:
    """Return a tensor in float32. Llama's query and key rows, interleaved in GGUF, are put back in halves."""
    import numpy as np
    import torch
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        kind = GGMLQuantizationType(info.type)
        block, size = GGML_QUANT_SIZES[kind]
        *rows, columns = info.shape
        count = int(np.prod(info.shape)) // block * size
        raw = np.frombuffer(data, np.uint8, count, info.offset).copy()  # torch needs its own memory
        if kind.name in ("F32", "F16"):
            weights = raw.view(np.float32 if kind.name == "F32" else np.float16).reshape(info.shape)
        else:
            weights = dequantize(raw.reshape(*rows, columns // block * size), kind)
    except (NotImplementedError, ValueError, KeyError) as error:
        raise UnknownLayout(f"{info.name} cannot be read ({error})") from error
    if config["model_type"] == "llama" and (match := re.search(r"\.attn_([qk])\.", info.name)):
        heads = config["num_attention_heads" if match[1] == "q" else "num_key_value_heads"]
        weights = weights.reshape(heads, -1, 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)
    return torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32))


def write_tokenizer(header: Header, place: Path) -> tokenizers.Vocabulary:
    """Write tokenizer.json, tokenizer_config.json, and the chat templates in transformers' layout."""
    metadata = header.metadata
    vocabulary = tokenizers.read_vocabulary(metadata)
    # the library's own `save` raises no OSError for a full disk
    (place / "tokenizer.json").write_text(tokenizers.rebuild(metadata, vocabulary).to_str(pretty=True), "utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if (context := metadata.get(f"{header.architecture}.context_length")) is not None:
        config["model_max_length"] = context
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        if (text := vocabulary.text(theirs)) is not None:
            config[f"{ours}_token"] = text
    (place / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    write_templates(metadata, place)
    return vocabulary


def write_templates(metadata: Mapping[str, Any], place: Path) -> None:
    key = "tokenizer.chat_template"
    if template := metadata.get(key):
        (place / "chat_template.jinja").write_text(template, "utf-8")
    named = {name.removeprefix(f"{key}."): text for name, text in metadata.items() if name.startswith(f"{key}.")}
    for name, text in named.items():
        if not re.fullmatch(r"[\w-]+", name):
            raise ConfigError(f"it has a chat template called {name!r}, which is not a valid file name")
        file = place / "chat_template.jinja" if name == "default" else place / TEMPLATES / f"{name}.jinja"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")


# ── slow conversion ──────────────────────────────────────────────────────────────────────────────────────────────────


def _convert_slowly(files: list[Path], place: Path, dtype: str) -> dict[str, Any]:
    """Write the weights and the sampling defaults; return the content of config.json."""
    from transformers import AutoModelForCausalLM

    path = files[0]
    if len(files) > 1:
        join = f"llama-gguf-split --merge {path.name} one.gguf"
        raise ConfigError(f"transformers cannot read a file in parts; join them: {join}")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype="float32", local_files_only=True
        )
    except (ValueError, KeyError, RuntimeError, NotImplementedError, ImportError) as error:
        raise ConfigError(f"transformers cannot read this GGUF file: {error}") from error
    # save_pretrained refuses a model read from GGUF, although its weights are ordinary tensors now.
    tied = model.all_tied_weights_keys
    write_weights(((name, part) for name, part in model.state_dict().items() if name not in tied), place, dtype)
    model.generation_config.save_pretrained(place)
    config: dict[str, Any] = model.config.to_dict()
    del config["quantization_config"]
    return config
