"""Find in the header why a GGUF file cannot be served, so that `gateway check` reports it before the load.

Reads the header and the file sizes; converts nothing, and reads no weights.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
import re
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path

from gateway import ConfigError, opened, placeholder

from . import tokenizer as tokenizers
from .files import parts
from .header import UNNAMED, Header, read_headers
from .kinds import NAMELESS, Task, kind_of

MARKER = re.compile(r"<[^<>\s]{1,40}>")  # typical tokens in templates: <|im_start|>, <start_of_turn>
LAYER = re.compile(r"blk\.(\d{1,6})\.")
MAX_DIMENSIONS = 4  # of ggml
# Type of a tensor → values and bytes of a block, as in ggml. Other types are reported when the tensor is read.
BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 40),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
    40: (64, 36),
    41: (128, 18),
}


def say_faults(path: Path, say_unread: Callable[[Header], None] | None = None, task: Task = "chat") -> list[str]:
    """Raise `ConfigError` with the error that the load would raise; return warnings.

    `say_unread` raises `ConfigError` for a model that the engine cannot read; `task` is what it is to do.
    """
    files = parts(path)
    try:
        with contextlib.ExitStack() as opened:
            header = read([opened.enter_context(mapped(file)) for file in files], files, task)
        if header.architecture == UNNAMED:
            raise ConfigError(f"it is {NAMELESS.what}: {NAMELESS.fix}")
        if say_unread is not None:
            say_unread(header)
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
    if task != "chat":
        return []
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


def read(maps: Sequence[mmap.mmap], files: Sequence[Path], task: Task = "chat") -> Header:
    """Return the header of complete files with a model for this task. Raises `ConfigError` for others.

    A language model may serve any, if its settings say so.
    """
    if there := next((there for file in files if (there := placeholder(file))), None):
        raise ConfigError(f"it {there.what}: {there.fix}")
    header = read_headers(maps, [file.name for file in files])
    other = kind_of(header.metadata, len(header.tensors), (info.name for info in header.tensors))
    if other is not None and (task == "chat" or other.task != task):
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
    spans = []
    for info in header.tensors:
        if len(info.shape) > MAX_DIMENSIONS or 0 in info.shape:
            shape = " x ".join(map(str, info.shape[:9]))
            raise ConfigError(f"{names[info.part]} is damaged: {info.name} has the shape {shape}; get the file again")
        if info.type not in BLOCKS:
            continue
        block, size = BLOCKS[info.type]
        end = info.offset + math.prod(info.shape) // block * size
        if end > sizes[info.part]:
            what = f"{names[info.part]} breaks off: it has {sizes[info.part]:,} bytes, and {info.name} ends at {end:,}"
            raise ConfigError(f"{what}: get the file again")
        spans.append((info.part, info.offset, end, info.name))
    spans.sort()
    for (part, _, end, name), (other_part, start, _, other) in itertools.pairwise(spans):
        if part == other_part and start < end:
            raise ConfigError(f"{names[part]} is damaged: {name} and {other} share bytes; get the file again")
