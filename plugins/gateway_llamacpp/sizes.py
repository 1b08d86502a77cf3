"""Decide how many tokens llama.cpp's cache and steps hold. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway_language.gguf.header import Header
from gateway_language.gguf.kinds import ARCHITECTURES, ENCODER

from gateway import ConfigError

PER_SLOT = 512  # tokens that the cache has for each slot by default, unless one request may have more
SPARE = 64  # cells that no request gets: tokens are counted a step after they are in the cache
ROUND = 256  # llama.cpp rounds up to this
HALF = 2  # bytes of a key's or value's number


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of a server. `cells` are those of its cache, of which requests get the `usable` ones."""

    slots: int
    cells: int
    usable: int
    length: int  # of one request
    context: int  # that the model was trained with
    step_tokens: int
    cell_bytes: int


def plan(header: Header, *, slots: int, step_tokens: int, length: int | None, cells: int | None, memory: int) -> Sizes:
    """Return the sizes for a file. `length` and `cells` are those asked for; `memory` is what the cache may take.

    Raises `ConfigError` if they contradict each other, or the file does not say what is needed.
    """
    context = _number(header, "context_length")
    per_cell = cell_bytes(header)
    reserved = SPARE + 2 * slots
    wanted = min(length or context, context - 1)  # llama.cpp ends an answer one token before its context
    most = max(memory // per_cell - reserved, 0)
    if cells is not None and length is not None and cells < length:
        raise ConfigError(f"options.cache_tokens is {cells}, less than options.max_model_len, which is {length}")
    usable = cells or min(max(wanted, PER_SLOT * slots), most)
    whole = (usable + reserved + ROUND - 1) // ROUND * ROUND
    return Sizes(
        slots=slots,
        cells=whole,
        usable=usable,
        length=min(wanted, usable),
        context=context,
        step_tokens=step_tokens,
        cell_bytes=per_cell,
    )


LONGEST_TEXT = 8192  # tokens, unless max_model_len says more: a step of a whole text needs memory by its length
STEP = 512  # tokens in one step, of short texts together


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSizes:
    """The sizes of a server that computes vectors or ratings of whole texts."""

    cells: int
    batch: int  # tokens in one step
    length: int  # of one text
    bytes: int  # of the cache, about


def plan_texts(header: Header, *, is_last: bool, length: int | None, memory: int) -> TextSizes:
    """Return the sizes for a file. `is_last`: the last token is the vector; only such texts may be read in steps.

    Raises `ConfigError` if the file does not say what is needed, or the memory does not hold one text.
    """
    context = _number(header, "context_length")
    causal = is_causal(header)
    most = context - 1 if causal else context  # llama.cpp wants one place to be free in a cache
    if length is not None and length > most:
        raise ConfigError(f"options.max_model_len is {length}, but the model reads at most {most} tokens")
    wanted = length or min(most, LONGEST_TEXT)
    per_cell = cell_bytes(header) if causal else 0
    if per_cell and (fits := max(memory // per_cell - SPARE - ROUND, 0)) < wanted:
        if length is not None or fits < min(STEP, most):
            raise ConfigError(f"free memory holds a text of {fits} tokens, not {wanted}: give the model more memory")
        wanted = fits
    batch = STEP if causal and is_last else max(wanted, STEP)
    cells = (max(wanted, STEP) + SPARE + ROUND - 1) // ROUND * ROUND
    return TextSizes(cells=cells, batch=batch, length=wanted, bytes=cells * per_cell)


def is_causal(header: Header) -> bool:
    """Return whether tokens see only those before them, for which a cache is kept."""
    said = header.metadata.get(f"{header.architecture}.attention.causal")
    return said is not False and ARCHITECTURES.get(header.architecture) is not ENCODER


def cell_bytes(header: Header) -> int:
    """Return the bytes of one token in the cache: the keys and values of all layers."""
    layers, width = _number(header, "block_count"), _number(header, "embedding_length")
    heads = _number(header, "attention.head_count")
    heads_kv = _sum(header, "attention.head_count_kv", heads, layers)
    key = _number(header, "attention.key_length", max(width // max(heads, 1), 1))
    value = _number(header, "attention.value_length", key)
    return max(heads_kv * (key + value) * HALF, 1)


def _number(header: Header, name: str, default: int | None = None) -> int:
    value = header.metadata.get(f"{header.architecture}.{name}", default)
    if isinstance(value, list) and value and all(isinstance(each, int) for each in value):
        value = max(value)  # a number for each layer
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"its metadata does not say {header.architecture}.{name}: get the file again")
    return value


def _sum(header: Header, name: str, default: int, layers: int) -> int:
    """Return the sum of a number over the layers."""
    value: Any = header.metadata.get(f"{header.architecture}.{name}", default)
    if isinstance(value, list) and all(isinstance(each, int) for each in value):
        return sum(value)
    return (value if isinstance(value, int) else default) * layers
