"""A GGUF file, once, as an ordinary folder: config.json, model.safetensors and a tokenizer.

transformers reads a GGUF in a minute or more (it parses the header three times in Python) and cannot save what it read.
Here the header is parsed once, the tensors are dequantised and written, and the next start finds the folder, which is
known by what is in the file. The weights of architectures beyond the table below go the long way, once. The tokenizer
is gateway_lm_gguf_tokenizer, whichever way the weights go.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gateway_lm_gguf_tokenizer as tokenizers
from gateway_lm_gguf_faults import mapped, read
from gateway_lm_gguf_files import parts
from gateway_lm_gguf_header import Header, TensorInfo
from gateway_lm_gguf_rope import FREQUENCIES, rope_parameters, say_changed, say_lost

from gateway import ConfigError, cache_dir, fingerprint, opened, peek_json

VERSION = 3  # of what is written; another one is another folder
LARGE = 2**30  # bytes, beyond which reading a file takes long enough to say so
TEMPLATES = "additional_chat_templates"  # a folder's name, of transformers
SHARD = 2 * 2**30  # bytes of a file that we write, and about what a conversion holds in memory

# model_type and architecture of the files that only differ from Llama's by the names below.
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


class UnknownLayout(Exception):
    """A file that the fast way does not cover; the text says why."""


def folder(path: Path, dtype: str = "float32") -> Path:
    """Return the folder that `path` was converted to, converting it now when there is none.

    `dtype` is that of the weights in it. One process converts while others wait for it; a folder is complete or not
    there at all. Of a model in several parts, `path` may be any.
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
            with only_one(place.with_name(f"{place.name}.lock")):
                if not place.is_dir():
                    _convert(files, place, dtype)
        except OSError as error:
            raise _unwritten(files[0].name, place.parent, error.strerror or str(error)) from error
    return place


def _unwritten(name: str, place: Path, why: str) -> ConfigError:
    fix = "make room for it, or name another place: cache_dir in gateway.toml, or GATEWAY_CACHE_DIR"
    return ConfigError(f"{name} cannot be converted in {place}: {why}; {fix}")


@contextlib.contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Hold a lock file against other processes; the system lets go of it when its holder dies."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is converting {lock.stem}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _convert(files: list[Path], place: Path, dtype: str) -> None:
    from safetensors import SafetensorError

    started, name = time.monotonic(), files[0].name
    for left in place.parent.glob(f"{place.name}.partial-*"):  # of a process that was killed; we hold the lock
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
        # On the disk before the name is: a power cut must not leave a half folder.
        for file in filter(Path.is_file, partial.rglob("*")):
            with opened(file) as written:
                os.fsync(written.fileno())
        partial.rename(place)
    except SafetensorError as error:  # a full disk, above all
        raise _unwritten(name, place.parent, str(error)) from error
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"{name} is converted, {time.monotonic() - started:.1f} s; kept in {place}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ── the fast way ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _convert_fast(header: Header, maps: Sequence[mmap.mmap], name: str, place: Path, dtype: str) -> dict[str, Any]:
    """Write the weights; return config.json."""
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
    """config.json and generation_config.json: an answer ends at every token that ends one."""
    pad = vocabulary.ids.get("padding", config.get("pad_token_id"))
    given = {"bos_token_id": vocabulary.ids.get("bos"), "eos_token_id": sorted(vocabulary.ends), "pad_token_id": pad}
    ids = {name: value for name, value in given.items() if value not in (None, [])}
    (place / "config.json").write_text(json.dumps(config | ids, indent=2))
    kept = place / "generation_config.json"
    sampling = peek_json(kept) if kept.exists() else {}
    kept.write_text(json.dumps(sampling | ids, indent=2))


def write_weights(weights: Iterable[tuple[str, Any]], place: Path, dtype: str) -> None:
    """model-00001.safetensors and so on, with the index by which transformers finds a tensor."""
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
    """Pass items on, with a line at every fifth of them: it goes to a log as often as to a terminal."""
    for count, item in enumerate(items, 1):
        yield item
        if 5 * count // total > 5 * (count - 1) // total:
            say(f"converting {name}: {100 * count // total} %")


def factors_of(header: Header, maps: Sequence[mmap.mmap]) -> list[float] | None:
    """The factors of the rotary embedding's frequencies, where the file has a tensor of them."""
    info = next((info for info in header.tensors if info.name == FREQUENCIES), None)
    return None if info is None else dequantise(maps[info.part], info, {"model_type": ""}).tolist()


def model_config(header: Header, factors: Sequence[float] | None = None) -> dict[str, Any]:
    """config.json. Raises `UnknownLayout` for what this table does not say."""
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
    """blk.3.attn_q.weight → model.layers.3.self_attn.q_proj.weight"""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in NAMES:
        raise UnknownLayout(f"it has a tensor {name}")
    layer = f"model.layers.{match[1]}." if match[1] else ""
    return f"{layer}{NAMES[match[2]]}.{match[3]}"


def dequantise(data: mmap.mmap, info: TensorInfo, config: Mapping[str, Any]) -> Any:
    """A tensor in float32. Llama's query and key rows, which GGUF keeps in pairs, are put back in halves."""
    import numpy as np
    import torch
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    try:
        kind = GGMLQuantizationType(info.type)
        block, size = GGML_QUANT_SIZES[kind]
        *rows, columns = info.shape
        count = int(np.prod(info.shape)) // block * size
        raw = np.frombuffer(data, np.uint8, count, info.offset).copy()  # torch wants memory of its own
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
    """tokenizer.json and tokenizer_config.json, and the chat templates as transformers keeps them."""
    metadata = header.metadata
    vocabulary = tokenizers.read_vocabulary(metadata)
    # its own `save` has no OSError for a full disk
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
            raise ConfigError(f"it has a chat template called {name!r}, which is no name for a file")
        file = place / "chat_template.jinja" if name == "default" else place / TEMPLATES / f"{name}.jinja"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, "utf-8")


# ── the long way ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _convert_slowly(files: list[Path], place: Path, dtype: str) -> dict[str, Any]:
    """Write the weights and what is known of sampling; return config.json."""
    from transformers import AutoModelForCausalLM

    path = files[0]
    if len(files) > 1:
        join = f"llama-gguf-split --merge {path.name} one.gguf"
        raise ConfigError(f"transformers reads no file in parts; join them: {join}")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype="float32", local_files_only=True
        )
    except (ValueError, KeyError, RuntimeError, NotImplementedError, ImportError) as error:
        raise ConfigError(f"transformers cannot read this GGUF file: {error}") from error
    # Its save_pretrained refuses what came from a GGUF, though by now these are ordinary weights.
    tied = model.all_tied_weights_keys
    write_weights(((name, part) for name, part in model.state_dict().items() if name not in tied), place, dtype)
    model.generation_config.save_pretrained(place)
    config: dict[str, Any] = model.config.to_dict()
    del config["quantization_config"]
    return config
