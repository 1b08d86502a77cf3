"""Find in the header why a GGUF file cannot be served, so that `gateway check` reports it before the load.

Reads the header and the file sizes; converts nothing, and reads no weights.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import mmap
import re
from collections.abc import Container, Iterator, Sequence
from pathlib import Path

from gateway import ConfigError, opened, placeholder

from . import tokenizer as tokenizers
from .files import parts
from .header import UNNAMED, Header, read_headers
from .kinds import NAMELESS, kind_of
from .rope import say_lost

MARKER = re.compile(r"<[^<>\s]{1,40}>")  # typical tokens in templates: <|im_start|>, <start_of_turn>
LAYER = re.compile(r"blk\.(\d{1,6})\.")
MAX_DIMENSIONS = 4  # of ggml
LONG_WAY = "transformers.integrations.ggml"  # the module with the list of architectures that transformers reads


def say_faults(path: Path, layouts: Container[str]) -> list[str]:
    """Raise `ConfigError` with the error that the load would raise; return warnings.

    `layouts` are the architectures that we convert ourselves; transformers handles the others.
    """
    files = parts(path)
    try:
        with contextlib.ExitStack() as opened:
            header = read([opened.enter_context(mapped(file)) for file in files], files)
        name = header.architecture
        if name == UNNAMED:
            raise ConfigError(f"it is {NAMELESS.what}: {NAMELESS.fix}")
        if name not in layouts and (known := _known_to_transformers()) and not _is_known(name, known):
            raise ConfigError(f"transformers cannot read this GGUF file: its architecture {name!r} is not supported")
        if name not in layouts:
            say_lost(header)
        vocabulary = tokenizers.read_vocabulary(header.metadata)
        tokenizers.rebuild(header.metadata, vocabulary)
    except ImportError:
        return []  # the missing extra is reported separately
    except ConfigError as error:
        raise ConfigError(f"{files[0].name}: {error}") from error
    except (TypeError, AttributeError, LookupError, ValueError) as error:
        raise ConfigError(f"{files[0].name}: its metadata has values of the wrong type ({error})") from error
    kinds = (tokenizers.CONTROL, tokenizers.UNKNOWN, tokenizers.USER_DEFINED)
    added = {text for text, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=False) if kind in kinds}
    template = header.metadata.get("tokenizer.chat_template", "")
    return [warning] if (warning := cut_markers(template, frozenset(vocabulary.tokens), added)) else []


def cut_markers(template: str, tokens: Container[str], added: Container[str]) -> str | None:
    """Return a warning if the template contains tokens that the file marks as ordinary text: they are split."""
    found = sorted({text for text in MARKER.findall(template) if text in tokens and text not in added})
    if not found:
        return None
    what = f"{', '.join(found)} of the chat template is split into pieces, which makes answers worse, as with llama.cpp"
    return f"{what}: the file does not mark it as a control token (tokenizer.ggml.token_type); convert the model again"


@contextlib.contextmanager
def mapped(file: Path) -> Iterator[mmap.mmap]:
    try:
        whole = opened(file)
        with whole, mmap.mmap(whole.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except ValueError as error:  # mmap's error for an empty file
        raise ConfigError(f"{file.name} is empty") from error


def read(maps: Sequence[mmap.mmap], files: Sequence[Path]) -> Header:
    """Return the header of complete files with a language model. Raises `ConfigError` for others."""
    if there := next((there for file in files if (there := placeholder(file))), None):
        raise ConfigError(f"it {there.what}: {there.fix}")
    header = read_headers(maps, [file.name for file in files])
    if other := kind_of(header.metadata, len(header.tensors), (info.name for info in header.tensors)):
        raise ConfigError(f"it is {other.what} ({other.why}), which is not served here: {other.fix}")
    if not header.tensors:
        raise ConfigError("it has no tensors, so no weights: get the file again")
    check_tensors(header, [len(data) for data in maps], [file.name for file in files])
    say_left_over(header)
    return header


def say_left_over(header: Header) -> None:
    """Raise `ConfigError` if there are more layers than in the metadata, which would be ignored in every answer.

    llama.cpp refuses such a file too, because every tensor must be used.
    """
    count = header.metadata.get(f"{header.architecture}.block_count")
    there = [int(match[1]) for info in header.tensors if (match := LAYER.match(info.name))]
    if isinstance(count, int) and there and max(there) >= count:
        what = f"it has the weights of {max(there) + 1} layers, and its block_count says {count}"
        raise ConfigError(f"{what}: convert the model again, or get the file again")


def check_tensors(header: Header, sizes: Sequence[int], names: Sequence[str]) -> None:
    """Raise `ConfigError` if a file ends before its tensors do, or if its table of tensors is invalid.

    No byte may belong to two tensors, so the size of the converted model is bounded by the file's: the smallest format,
    of 1.56 bits per weight, grows by a factor of twenty.
    """
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    spans = []
    for info in header.tensors:
        if len(info.shape) > MAX_DIMENSIONS or 0 in info.shape:
            shape = " x ".join(map(str, info.shape[:9]))
            raise ConfigError(f"{names[info.part]} is damaged: {info.name} has the shape {shape}; get the file again")
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(info.type)]
        except (ValueError, KeyError):
            continue  # an unknown type, which is reported when it is read
        end = info.offset + math.prod(info.shape) // block * size
        if end > sizes[info.part]:
            what = f"{names[info.part]} breaks off: it has {sizes[info.part]:,} bytes, and {info.name} ends at {end:,}"
            raise ConfigError(f"{what}: get the file again")
        spans.append((info.part, info.offset, end, info.name))
    spans.sort()
    for (part, _, end, name), (other_part, start, _, other) in itertools.pairwise(spans):
        if part == other_part and start < end:
            raise ConfigError(f"{names[part]} is damaged: {name} and {other} share bytes; get the file again")


def _known_to_transformers() -> Container[str]:
    """Return the architectures that it reads; none if it is not installed, or keeps the list elsewhere."""
    with contextlib.suppress(ImportError, AttributeError):
        known: Container[str] = importlib.import_module(LONG_WAY).GGUF_CONFIG_MAPPING
        return known
    return ()


def _is_known(name: str, known: Container[str]) -> bool:
    """Return whether a name is known, in transformers' spelling: qwen2moe is qwen2_moe, minimax-m2 is minimax_m2."""
    return any(text in known for text in (name, name.replace("moe", "_moe"), name.replace("-", "_")))
