"""The settings of batches: those of config.yaml, overridden by the operator's, and the slots that result from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..spec import Batching, Limits

_NAMES = tuple(field.name for field in fields(Batching) if field.name != "has_own_slots")


def batching_of(runtime: Mapping[str, Any], *, has_own_slots: bool) -> Batching:
    """Return the settings in `runtime` of a config.yaml, which has been checked."""
    return replace(Batching(has_own_slots=has_own_slots), **_given(runtime))


def override(batching: Batching, limits: Limits, values: Mapping[str, Any], root: Path) -> tuple[Batching, Limits]:
    """Apply a [models.NAME] table. Applying it twice changes nothing.

    Raises:
        ConfigError: a setting needs another one.
    """
    has_own_slots = batching.has_own_slots or "slots" in values
    batching = replace(batching, has_own_slots=has_own_slots, **_given(values))
    if batching.cost is None and (needs := [name for name in ("budget", "sort") if getattr(batching, name)]):
        what = f"batch_{needs[0]} needs batch_cost, the name of a method that returns the cost of an item"
        raise ConfigError(f"{root}: {what}")
    if batching.size is not None and not has_own_slots:
        limits = replace(limits, slots=batching.slots)
    return batching, limits


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[key] for name in _NAMES if values.get(key := f"batch_{name}") is not None}
