"""Attention for packed requests over a cache with one row per request.

A forward pass gets the tokens of all requests as one sequence. All of a transformer except attention treats tokens
independently, so only this function, which transformers calls in every layer, has to know which request a token belongs
to.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from gateway_language.memory import available
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

NAME = "gateway_slots"  # the name of our function in transformers


class UnsupportedModel(Exception):
    """The model gives other results with our cache than alone."""


class Cache:
    """Keys and values of every layer: [slots, heads, length, width], allocated when a layer is first used."""

    def __init__(self, slots: int, length: int) -> None:
        self.slots, self.length = slots, length
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def store(self, layer: int, key: Tensor, value: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Store [heads, tokens, width] at the positions in the batch; return the whole layer."""
        if layer not in self.layers:
            self.layers[layer] = self._room(key), self._room(value)
        keys, values = self.layers[layer]
        keys.transpose(1, 2)[batch.slots, batch.positions] = key.transpose(0, 1)
        values.transpose(1, 2)[batch.slots, batch.positions] = value.transpose(0, 1)
        return keys, values

    @property
    def bytes_per_token(self) -> int:
        """Return the bytes of one token in one slot, over all layers."""
        return sum(part.nbytes for pair in self.layers.values() for part in pair) // (self.slots * self.length)

    def _room(self, like: Tensor) -> Tensor:
        shape = (self.slots, like.shape[0], self.length, like.shape[2])
        if like.device.type != "cpu":
            return torch.zeros(shape, dtype=like.dtype, device=like.device)
        # Anonymous pages are zero, and only use memory once written: idle slots and unused length cost nothing. Values
        # must be finite, because attention reads beyond the end of shorter rows before masking. Pages must be small,
        # because a short answer touches the beginning of many rows.
        count = torch.Size(shape).numel()
        pages = mmap.mmap(-1, count * like.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            pages.madvise(mmap.MADV_NOHUGEPAGE)
        return torch.frombuffer(pages, dtype=like.dtype, count=count).view(shape)


@dataclass(slots=True)
class Group:
    """Adjacent slots that attention handles in one call: `tokens` new ones each, the longest row has `length`."""

    slot: int
    rows: int
    tokens: int
    length: int
    masks: dict[int | None, Tensor | None] = field(default_factory=dict)

    def mask(self, window: int | None, repeats: int, positions: Tensor, dtype: torch.dtype) -> Tensor | None:
        """Return the additive mask of a query, [rows, 1, repeats * tokens, length]; None if everything is visible."""
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
    """The input of one forward pass: packed tokens, and their groups in order."""

    cache: Cache
    ids: Tensor
    positions: Tensor
    slots: Tensor
    last: Tensor  # the tokens whose logits are needed
    groups: Sequence[Group]


def group(rows: Iterable[tuple[int, int]]) -> list[Group]:
    """Group single tokens, given as (slot, length) ordered by slot, into calls of attention.

    One call for adjacent slots is cheaper than separate calls until padding dominates: short conversations must not pay
    for the length of a long one. On a CPU, a separate call costs as much as about 32 more tokens (SmolLM2-135M).
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
    """Compute attention of one layer; all tensors are [1, heads, tokens, width], the result [1, tokens, heads, width].

    Query heads that share a key are placed next to each other like tokens, so keys are never repeated.
    """
    if odd := [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]:
        raise UnsupportedModel(f"its attention uses {odd[0]}")
    if attention_mask is not None:  # the library creates no mask for a function that it does not know
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
    """Return the logits requested by the batch: [wanted, vocabulary]."""
    output = model(
        input_ids=batch.ids[None],
        position_ids=batch.positions[None],
        use_cache=False,
        logits_to_keep=batch.last,
        batch=batch,
    )
    return output.logits[0]


def lay_out(model: torch.nn.Module) -> None:
    """Store float32 weights of linear layers by columns, which a CPU multiplies faster with a few rows.

    This makes SmolLM2-135M 8 to 10 % faster with 4 and 16 requests, and equally fast with one; bfloat16 would be
    slower. In many models the embedding shares the last layer's weights and is read by rows: it is not changed.
    """
    embedding = model.get_input_embeddings().weight
    for module in model.modules():
        if type(module) is not torch.nn.Linear or module.weight is embedding:
            continue
        if module.weight.is_cpu and module.weight.dtype == torch.float32:
            columns = module.weight.detach().t().contiguous().t()
            module.weight = torch.nn.Parameter(columns, requires_grad=False)


def cache_memory(device: str) -> int:
    """Return the bytes that the cache may take: most of a GPU's free memory, or half of the host's or container's."""
    if device == "cuda":
        return int(0.85 * torch.cuda.mem_get_info()[0])  # the rest is for the forward pass
    return available() // 2
