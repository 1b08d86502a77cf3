"""A GGUF file, once, as an ordinary folder: config.json, model.safetensors and a tokenizer.

transformers reads a GGUF in a minute or more (it parses the header three times in Python) and cannot save what it read.
Here the header is parsed once, the tensors are dequantised and written, and the next start finds the folder.
Architectures beyond the table below go the long way, once.
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
import struct
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway import ConfigError, cache_dir

VERSION = 1  # of what is written; another one is another folder
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
CONTROL, USER_DEFINED = 3, 4  # kinds of tokens
PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
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


@dataclass(frozen=True, slots=True)
class TensorInfo:
    name: str
    shape: tuple[int, ...]
    type: int
    offset: int  # from the start of the file


@dataclass(frozen=True, slots=True)
class Header:
    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]

    @property
    def architecture(self) -> str:
        return self.metadata.get("general.architecture", "unknown")


def folder(path: Path, dtype: str = "float32") -> Path:
    """Return the folder that `path` was converted to, converting it now when there is none.

    `dtype` is that of the weights in it. One process converts while others wait for it; a folder is complete or not
    there at all.
    """
    if PART.search(path.name):
        join = f"llama-gguf-split --merge {path.name} one.gguf"
        raise ConfigError(f"{path.name} is one part of several; join them: {join}")
    stat = path.stat()
    key = hashlib.sha256(f"{VERSION} {dtype} {path.name} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    place = cache_dir() / "gguf" / f"{path.stem}-{key}"
    if not place.is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        with only_one(place.with_name(f"{place.name}.lock")):
            if not place.is_dir():
                _convert(path, place, dtype)
    return place


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


def _convert(path: Path, place: Path, dtype: str) -> None:
    started = time.monotonic()
    for left in place.parent.glob(f"{place.name}.partial-*"):  # of a process that was killed; we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{place.name}.partial-", dir=place.parent))
    try:
        try:
            _convert_fast(path, partial, dtype)
        except UnknownLayout as reason:
            say(f"{path.name}: {reason}; transformers reads such a file in Python, which takes a minute or more, once")
            _convert_slowly(path, partial, dtype)
        for file in partial.iterdir():  # on the disk before the name is: a power cut must not leave a half folder
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        partial.rename(place)
    except OSError as error:
        raise ConfigError(f"{path.name} cannot be converted in {place.parent}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    say(f"{path.name} is converted, {time.monotonic() - started:.1f} s; kept in {place}")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ── the fast way ─────────────────────────────────────────────────────────────────────────────────────────────────────


def read_header(data: mmap.mmap) -> Header:
    """The metadata and the table of tensors. Raises `UnknownLayout` when this is no GGUF that we can read."""
    magic, version, tensor_count, key_count = struct.unpack_from("<4sIQQ", data)
    if magic != b"GGUF" or version not in (2, 3):
        raise UnknownLayout(f"it starts with {magic!r}, version {version}")
    at = 24

    def take(form: str) -> tuple[Any, ...]:
        nonlocal at
        values = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(f"<{form}")
        return values

    def text() -> str:
        nonlocal at
        (size,) = take("Q")
        at += size
        return data[at - size : at].decode("utf-8", "replace")

    def value(kind: int) -> Any:
        if kind == STRING:
            return text()
        if kind != ARRAY:
            return take(SCALARS[kind])[0]
        kind, count = take("IQ")
        return list(take(f"{count}{SCALARS[kind]}")) if kind in SCALARS else [value(kind) for _ in range(count)]

    metadata = {}
    for _ in range(key_count):
        key = text()
        metadata[key] = value(take("I")[0])
    tensors = []
    for _ in range(tensor_count):
        name = text()
        (dimensions,) = take("I")
        shape = take(f"{dimensions}Q")[::-1]  # the file counts the fastest first
        tensors.append((name, shape, *take("IQ")))
    alignment = metadata.get("general.alignment", 32)
    start = (at + alignment - 1) // alignment * alignment
    infos = (TensorInfo(name, shape, kind, start + offset) for name, shape, kind, offset in tensors)
    return Header(metadata, tuple(infos))


def _convert_fast(path: Path, place: Path, dtype: str) -> None:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        header = read_header(data)
        config = {**model_config(header), "dtype": dtype}
        names = [weight_name(info.name) for info in header.tensors]
        say(f"converting {path.name}, {len(data) / 1e6:,.0f} MB, into safetensors; this happens once")
        write_tokenizer(header, place)
        weights = zip(names, (dequantise(data, info, config) for info in header.tensors), strict=True)
        write_weights(say_progress(path.name, weights, len(names)), place, dtype)
    (place / "config.json").write_text(json.dumps(config, indent=2))
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if config[key] is not None}
    (place / "generation_config.json").write_text(json.dumps(ids, indent=2))


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


def model_config(header: Header) -> dict[str, Any]:
    """config.json. Raises `UnknownLayout` for what this table does not say."""
    name, metadata = header.architecture, header.metadata
    if name not in ARCHITECTURES:
        raise UnknownLayout(f"its architecture {name!r} is none of {', '.join(ARCHITECTURES)}")
    tensors = {info.name for info in header.tensors}
    if odd := [key for key in metadata if ".rope.scaling." in key or ".expert_" in key]:
        raise UnknownLayout(f"it sets {odd[0]}")
    model_type, architecture = ARCHITECTURES[name]
    heads = metadata[f"{name}.attention.head_count"]
    width = metadata[f"{name}.embedding_length"]
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": metadata[f"{name}.feed_forward_length"],
        "num_hidden_layers": metadata[f"{name}.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get(f"{name}.attention.head_count_kv", heads),
        "head_dim": metadata.get(f"{name}.attention.key_length", width // heads),
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "max_position_embeddings": metadata[f"{name}.context_length"],
        "rms_norm_eps": metadata[f"{name}.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": metadata.get(f"{name}.rope.freq_base", 10000.0)},
        "tie_word_embeddings": "output.weight" not in tensors,
        "vocab_size": next(info.shape[0] for info in header.tensors if info.name == "token_embd.weight"),
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }


def weight_name(name: str) -> str:
    """blk.3.attn_q.weight → model.layers.3.self_attn.q_proj.weight"""
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
    if match is None or match[2] not in NAMES:
        raise UnknownLayout(f"it has a tensor {name}")  # rope_freqs among them: rotary factors of Llama 3.1
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


def write_tokenizer(header: Header, place: Path) -> None:
    """tokenizer.json and tokenizer_config.json, with the chat template inside."""
    metadata = header.metadata
    try:
        tokenizer = smollm(metadata) if metadata.get("tokenizer.ggml.pre") == "smollm" else by_transformers(header)
    except (ImportError, KeyError, ValueError) as error:
        raise UnknownLayout(f"its tokenizer cannot be rebuilt ({error})") from error
    tokenizer.save(str(place / "tokenizer.json"))
    tokens = metadata["tokenizer.ggml.tokens"]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata[f"{header.architecture}.context_length"],
        "add_bos_token": metadata.get("tokenizer.ggml.add_bos_token", metadata["tokenizer.ggml.model"] == "llama"),
    }
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        if (token := metadata.get(f"tokenizer.ggml.{theirs}_token_id")) is not None:
            config[f"{ours}_token"] = tokens[token]
    if template := metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    (place / "tokenizer_config.json").write_text(json.dumps(config, indent=2))


def smollm(metadata: Mapping[str, Any]) -> Any:
    """Byte-level BPE that takes digits one by one, which transformers does not know of."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = list(zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True))
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in kinds if k == CONTROL])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t, k in kinds if k == USER_DEFINED])
    return tokenizer


def by_transformers(header: Header) -> Any:
    from transformers.integrations.gguf import GGUF_TOKENIZER_MAPPING, convert_gguf_tokenizer

    names = {f"tokenizer.{key}": ours for key, ours in GGUF_TOKENIZER_MAPPING["tokenizer"].items()}
    known = {names[key]: value for key, value in header.metadata.items() if key in names}
    return convert_gguf_tokenizer(header.architecture, known)[0]


# ── the long way ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _convert_slowly(path: Path, place: Path, dtype: str) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype="float32", local_files_only=True
        )
    except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(f"{path.name}: transformers cannot read this GGUF file: {error}") from error
    tokenizer.save_pretrained(place)
    # Its save_pretrained refuses what came from a GGUF, though by now these are ordinary weights.
    tied = model.all_tied_weights_keys
    write_weights(((name, part) for name, part in model.state_dict().items() if name not in tied), place, dtype)
    config = model.config.to_dict() | {"dtype": dtype}
    del config["quantization_config"]
    (place / "config.json").write_text(json.dumps(config, indent=2))
    model.generation_config.save_pretrained(place)
