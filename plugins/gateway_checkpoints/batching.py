"""Give models of a plugin batches by default."""

from __future__ import annotations

from dataclasses import replace

from gateway import ModelSpec


def batched(spec: ModelSpec, size: int) -> ModelSpec:
    """Set the default batch size, and the slots that belong to it."""
    if spec.batching.size is not None or spec.parity == "strict":  # which has no batches
        return spec
    batching = replace(spec.batching, size=size)
    limits = spec.limits if batching.has_own_slots else replace(spec.limits, slots=batching.slots)
    return replace(spec, batching=batching, limits=limits)
