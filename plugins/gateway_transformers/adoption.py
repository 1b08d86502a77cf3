"""Verify that a model gives the same results with our attention and cache as alone, before it serves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .attention import NAME, Batch, Cache, Group, UnsupportedModel, attend, forward

Part = tuple[int, int, int]  # row, first token, end

LONG = 48  # tokens of a row: differences may only show after some tokens
# Rounding gives 3e-6, 0.01, and 0.06 in bfloat16 (SmolLM2-135M); a model's own mask gave 0.01, a wrong mask 0.5.
TOLERANCES = {torch.float32: 1e-3, torch.float16: 0.05}
COARSE = 0.25
PROBES = 3  # a router near a tie may round to another expert: this affects some tokens, never all


@torch.inference_mode()
def adopt(model: Any) -> int:
    """Switch the model to our attention after comparing it with its own; return the cache's bytes per token.

    transformers has about two hundred architectures, and not all use attention in a way that we support: better to
    refuse one here than to serve nonsense. Raises `UnsupportedModel`.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    own = model.config._attn_implementation
    for probe in range(PROBES):
        rows = _rows(model, probe)
        wanted = _alone(model, rows)
        found, per_token = _together(model, rows)
        off = _off(found, wanted)
        if off < TOLERANCES.get(model.dtype, COARSE):
            return per_token
        model.set_attn_implementation(own)
    raise UnsupportedModel(f"its answers change with our cache, by {off:.1%} of a logit")


def _rows(model: Any, probe: int) -> Tensor:
    """Return two rows of tokens, [2, length], of which the second is read in part; different for each probe."""
    config = model.config.get_text_config()
    length = min(LONG, getattr(config, "max_position_embeddings", None) or LONG)
    count = torch.arange(length, device=model.device) + probe * LONG
    rows: Tensor = torch.stack([count, 7 * count + 3]) % config.vocab_size
    return rows


def _short(rows: Tensor) -> int:
    return max(3, rows.shape[1] // 3)


def _alone(model: Any, rows: Tensor) -> Tensor:
    """Return the model's own logits of the whole first row and of the beginning of the second."""
    logits: Tensor = model(input_ids=rows, use_cache=False).logits.float()
    half = rows.shape[1] // 2
    begun = model(input_ids=rows[:1, :half], use_cache=False).logits[0, -1].float()
    if not _off(begun, logits[0, half - 1]) < COARSE:
        raise UnsupportedModel("its tokens attend to later ones, as in an encoder")
    return torch.cat([logits[0], logits[1, : _short(rows)]])


def _together(model: Any, rows: Tensor) -> tuple[Tensor, int]:
    """Return the same through our cache, and its bytes per token: pieces of both rows, of one, then single tokens."""
    length, short = rows.shape[1], _short(rows)
    half, rest = length // 2, length - 2
    steps: list[list[Part]] = [[(0, 0, half), (1, 0, short - 2)], [(0, half, rest)]]
    steps += [[(0, at, at + 1), (1, at - length + short, at - length + short + 1)] for at in (rest, rest + 1)]
    cache = Cache(3, length)
    logits: list[list[Tensor]] = [[], []]
    try:
        model.set_attn_implementation(NAME)
        for parts in steps:
            for (row, _, _), found in zip(parts, _read(model, cache, rows, parts), strict=True):
                logits[row].append(found)
    except UnsupportedModel:
        raise
    except Exception as error:
        raise UnsupportedModel(f"its forward pass does not take our cache: {error!r}") from error
    if not cache.layers:
        raise UnsupportedModel("its attention does not pass through our cache")
    return torch.cat([*logits[0], *logits[1]]), cache.bytes_per_token


def _read(model: Any, cache: Cache, rows: Tensor, parts: Sequence[Part]) -> Sequence[Tensor]:
    """Return the logits of parts of the rows, read in one forward pass as in the engine."""
    ids = torch.cat([rows[row, start:stop] for row, start, stop in parts])
    positions = torch.cat([torch.arange(start, stop, device=ids.device) for _, start, stop in parts])
    slots = torch.cat([torch.full((stop - start,), row + 1, device=ids.device) for row, start, stop in parts])
    if len(parts) == 2 and len(ids) == 2:  # single tokens in adjacent slots share a call
        groups = [Group(1, 2, 1, max(stop for *_, stop in parts))]
    else:
        groups = [Group(row + 1, 1, stop - start, stop) for row, start, stop in parts]
    batch = Batch(cache, ids, positions, slots, torch.arange(len(ids), device=ids.device), groups)
    logits = forward(model, batch).float()
    starts = torch.tensor([stop - start for _, start, stop in parts]).cumsum(0)[:-1]
    return torch.tensor_split(logits, starts)


def _off(logits: Tensor, wanted: Tensor) -> float:
    """Return the difference relative to what distinguishes tokens; over all tokens together, not the worst one."""
    return float((logits - wanted).norm() / (wanted - wanted.mean(-1, keepdim=True)).norm())
