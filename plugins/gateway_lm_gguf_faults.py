"""What keeps a GGUF file from being served, found in its header: `gateway check` says it before the load does.

Reads the header and the sizes of the files; converts nothing, and opens no weights.
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

import gateway_lm_gguf_tokenizer as tokenizers
from gateway_lm_gguf_files import parts
from gateway_lm_gguf_header import UNNAMED, Header, read_headers
from gateway_lm_gguf_kinds import NAMELESS, kind_of
from gateway_lm_gguf_rope import say_lost

from gateway import ConfigError, opened, placeholder

MARKER = re.compile(r"<[^<>\s]{1,40}>")  # how tokens of a template look: <|im_start|>, <start_of_turn>
LAYER = re.compile(r"blk\.(\d{1,6})\.")
MAX_DIMENSIONS = 4  # of ggml
LONG_WAY = "transformers.integrations.ggml"  # the module with the list of what transformers reads


def say_faults(path: Path, layouts: Container[str]) -> list[str]:
    """Raise `ConfigError` with what the load of the file would say; return what to know though it loads.

    `layouts` are the architectures that we read ourselves; the others are transformers'.
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
        return []  # the extra is missing, which is told by itself
    except ConfigError as error:
        raise ConfigError(f"{files[0].name}: {error}") from error
    except (TypeError, AttributeError, LookupError, ValueError) as error:
        raise ConfigError(f"{files[0].name}: its metadata are of other types than they should be ({error})") from error
    kinds = (tokenizers.CONTROL, tokenizers.UNKNOWN, tokenizers.USER_DEFINED)
    added = {text for text, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=False) if kind in kinds}
    template = header.metadata.get("tokenizer.chat_template", "")
    return [warning] if (warning := cut_markers(template, frozenset(vocabulary.tokens), added)) else []


def cut_markers(template: str, tokens: Container[str], added: Container[str]) -> str | None:
    """What to do when the template writes tokens that the file takes for words: they are cut, by llama.cpp as well."""
    found = sorted({text for text in MARKER.findall(template) if text in tokens and text not in added})
    if not found:
        return None
    what = f"{', '.join(found)} of the chat template is cut into pieces, and answers suffer, as with llama.cpp"
    return f"{what}: the file does not mark it as a control token (tokenizer.ggml.token_type); convert the model again"


@contextlib.contextmanager
def mapped(file: Path) -> Iterator[mmap.mmap]:
    try:
        whole = opened(file)
        with whole, mmap.mmap(whole.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data
    except ValueError as error:  # mmap's, of an empty file
        raise ConfigError(f"{file.name} is empty") from error


def read(maps: Sequence[mmap.mmap], files: Sequence[Path]) -> Header:
    """The header, of files that are whole and hold a language model."""
    if there := next((there for file in files if (there := placeholder(file))), None):
        raise ConfigError(f"it {there.what}: {there.fix}")
    header = read_headers(maps, [file.name for file in files])
    if other := kind_of(header.metadata, len(header.tensors), (info.name for info in header.tensors)):
        raise ConfigError(f"it is {other.what} ({other.why}), and nobody here serves that: {other.fix}")
    if not header.tensors:
        raise ConfigError("it has no tensors, and so no weights: get the file again")
    check_tensors(header, [len(data) for data in maps], [file.name for file in files])
    say_left_over(header)
    return header


def say_left_over(header: Header) -> None:
    """Raise `ConfigError` where there are more layers than the metadata say, which would be left out of every answer.

    llama.cpp refuses such a file too: every tensor is read, or the file is another model's.
    """
    count = header.metadata.get(f"{header.architecture}.block_count")
    there = [int(match[1]) for info in header.tensors if (match := LAYER.match(info.name))]
    if isinstance(count, int) and there and max(there) >= count:
        what = f"it has the weights of {max(there) + 1} layers, and its block_count says {count}"
        raise ConfigError(f"{what}: convert the model again, or get the file again")


def check_tensors(header: Header, sizes: Sequence[int], names: Sequence[str]) -> None:
    """Raise `ConfigError` where a file ends before its tensors do, or its table of tensors cannot be meant.

    No byte of a file is in two tensors. So what a conversion writes is bounded by the size of the file: the kind with
    the fewest bits, of 1.56 a number, grows by twenty.
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
            continue  # a kind of numbers that the reading of it will tell of
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
    """The architectures that it reads, or none where it is not installed or keeps them elsewhere."""
    with contextlib.suppress(ImportError, AttributeError):
        known: Container[str] = importlib.import_module(LONG_WAY).GGUF_CONFIG_MAPPING
        return known
    return ()


def _is_known(name: str, known: Container[str]) -> bool:
    """It writes some names in its own way: qwen2moe is its qwen2_moe, minimax-m2 its minimax_m2."""
    return any(text in known for text in (name, name.replace("moe", "_moe"), name.replace("-", "_")))
