"""Give models of a plugin batches by default."""

from __future__ import annotations

from dataclasses import replace

from gateway import ModelSpec


def batched(spec: ModelSpec, size: int, concurrency: int = 1) -> ModelSpec:
    """Set the default batch size and number of batches at once, and the slots that belong to them."""
    if spec.batching.size is not None or spec.parity == "strict":  # which has no batches
        return spec
    at_once = max(concurrency, spec.batching.concurrency)  # one is the setting's default too
    batching = replace(spec.batching, size=size, concurrency=at_once)
    limits = spec.limits if batching.has_own_slots else replace(spec.limits, slots=batching.slots)
    return replace(spec, batching=batching, limits=limits)
