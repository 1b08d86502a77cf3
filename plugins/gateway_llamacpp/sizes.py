"""Decide how many tokens llama.cpp's cache holds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway_language.gguf.header import Header

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
