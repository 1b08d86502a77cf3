"""Attention of packed requests over a cache with one row a request.

A forward gets the tokens of all requests as one sequence. Everything in a transformer but attention treats tokens one
by one, so this function, which transformers calls in every layer, is all that has to know whose token is whose.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "gateway_slots"  # what transformers knows our function by


class UnsupportedModel(Exception):
    """A model that does not compute with our cache what it computes alone."""


class Cache:
    """Keys and values of every layer: [slots, heads, length, width], made when a layer is first seen."""

    def __init__(self, slots: int, length: int) -> None:
        self.slots, self.length = slots, length
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def store(self, layer: int, key: Tensor, value: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Put [heads, tokens, width] where the batch says; returns the whole layer."""
        if layer not in self.layers:
            self.layers[layer] = self._room(key), self._room(value)
        keys, values = self.layers[layer]
        keys.transpose(1, 2)[batch.slots, batch.positions] = key.transpose(0, 1)
        values.transpose(1, 2)[batch.slots, batch.positions] = value.transpose(0, 1)
        return keys, values

    @property
    def bytes_per_token(self) -> int:
        """Of one slot, all layers together."""
        return sum(part.nbytes for pair in self.layers.values() for part in pair) // (self.slots * self.length)

    def _room(self, like: Tensor) -> Tensor:
        shape = (self.slots, like.shape[0], self.length, like.shape[2])
        if like.device.type != "cpu":
            return torch.zeros(shape, dtype=like.dtype, device=like.device)
        # Anonymous pages are zero, and real only once written: an idle slot and an unused length cost nothing. They
        # must be finite, since attention reads beyond the end of the shorter rows before it masks; and small, since a
        # short answer touches the beginning of many rows.
        count = torch.Size(shape).numel()
        pages = mmap.mmap(-1, count * like.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            pages.madvise(mmap.MADV_NOHUGEPAGE)
        return torch.frombuffer(pages, dtype=like.dtype, count=count).view(shape)


@dataclass(slots=True)
class Group:
    """Neighbouring slots that attention treats in one call; `tokens` new ones each, the longest row `length` long."""

    slot: int
    rows: int
    tokens: int
    length: int
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)

    def mask(self, window: int | None, repeats: int, positions: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What a query may see, as [rows, 1, repeats * tokens, length] to add; None where that is everything."""
        if window not in self.masks:
            query = positions.view(self.rows, 1, self.tokens, 1)
            key = torch.arange(self.length, device=positions.device)
            hidden = key > query
            if window is not None:
                hidden |= key <= query - window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=positions.device).masked_fill(hidden, float("-inf"))
            is_open = self.rows == self.tokens == 1 and (window is None or self.length <= window)
            self.masks[window] = None if is_open else mask.repeat(1, 1, repeats, 1)
        return self.masks[window]


@dataclass(slots=True)
class Batch:
    """What one forward computes: packed tokens, and the groups they fall into, in their order."""

    cache: Cache
    ids: Tensor
    positions: Tensor
    slots: Tensor
    last: Tensor  # the tokens whose logits are wanted
    groups: Sequence[Group]


def group(rows: Iterable[tuple[int, int]]) -> list[Group]:
    """Group single tokens, given as (slot, length) in the order of slots, into calls of attention.

    One call over neighbours is cheaper than one each until it has to pad: beside one long conversation the short ones
    must not pay for its length. A call of its own costs a CPU what about 32 more tokens would (SmolLM2-135M).
    """
    groups: list[Group] = []
    total = 0
    for slot, length in rows:
        if groups and slot == (last := groups[-1]).slot + last.rows:
            longest = max(last.length, length)
            if longest * (last.rows + 1) <= 1.25 * (total + length) + 32 * last.rows:
                last.rows, last.length, total = last.rows + 1, longest, total + length
                continue
        groups.append(Group(slot, 1, 1, length))
        total = length
    return groups


def attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    batch: Batch,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer; all tensors are [1, heads, tokens, width], the result [1, tokens, heads, width].

    Query heads that share a key are laid beside each other as if they were tokens, so no key is ever repeated.
    """
    if odd := [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]:
        raise UnsupportedModel(f"its attention uses {odd[0]}")
    if attention_mask is not None:  # the library makes none for a function that it does not know
        raise UnsupportedModel("its attention adds a mask that it computes itself")
    keys, values = batch.cache.store(module.layer_idx, key[0], value[0], batch)
    heads = keys.shape[1]
    repeats = query.shape[1] // heads
    queries = query[0].unflatten(0, (heads, repeats))
    outputs = []
    start = 0
    for part in batch.groups:
        stop = start + part.rows * part.tokens
        rows = slice(part.slot, part.slot + part.rows)
        split = queries[:, :, start:stop].unflatten(2, (part.rows, part.tokens))
        out = scaled_dot_product_attention(
            split.permute(2, 0, 1, 3, 4).flatten(2, 3),  # [rows, heads, repeats * tokens, width]
            keys[rows, :, : part.length],
            values[rows, :, : part.length],
            attn_mask=part.mask(sliding_window, repeats, batch.positions[start:stop], query.dtype),
            scale=scaling,
        )
        back = out.unflatten(2, (repeats, part.tokens)).permute(0, 3, 1, 2, 4)
        outputs.append(back.flatten(2, 3).flatten(0, 1))
        start = stop
    return torch.cat(outputs)[None], None


def forward(model: Any, batch: Batch) -> Tensor:
    """The logits that the batch wants: [wanted, vocabulary]."""
    output = model(
        input_ids=batch.ids[None],
        position_ids=batch.positions[None],
        use_cache=False,
        logits_to_keep=batch.last,
        batch=batch,
    )
    return output.logits[0]


def lay_out(model: torch.nn.Module) -> None:
    """Store the float32 weights of linear layers by columns, which a CPU multiplies faster with a few rows at a time.

    SmolLM2-135M answers 4 and 16 requests 8 to 10 % faster so, and one as fast; in bfloat16 it would lose. The
    embedding shares the last layer's weights in many models and is read by rows: that one stays.
    """
    embedding = model.get_input_embeddings().weight
    for module in model.modules():
        if type(module) is not torch.nn.Linear or module.weight is embedding:
            continue
        if module.weight.is_cpu and module.weight.dtype == torch.float32:
            columns = module.weight.detach().t().contiguous().t()
            module.weight = torch.nn.Parameter(columns, requires_grad=False)


def cache_memory(device: str) -> int:
    """Bytes that the cache may take: most of what a GPU has free, half of what the machine or the container has."""
    if device == "cuda":
        return int(0.85 * torch.cuda.mem_get_info()[0])  # the rest is for the forward itself
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        group = Path("/sys/fs/cgroup")
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError, StopIteration):
        pass  # no container, or no limit
    return free // 2
