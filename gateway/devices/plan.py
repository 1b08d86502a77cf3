"""The placement of all models as a table for `gateway plan`, by the same rules as at the start.

Starts nothing and queries no device; with a static inventory it works on a laptop.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..spec import ModelSpec
from .claims import HEADROOM, NoFit, Placement, Request, claims_of
from .device import Device, format_size
from .placement import Unmatched, explain, plan_models

if TYPE_CHECKING:
    from ..inspection.inventory import Inventory


def plan_inventory(found: Inventory, only: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of an inventory by its settings; with `only`, of this model after all others are loaded.

    Raises ConfigError if there is no such model.
    """
    rules = found.settings.gateway.placement
    table = partial(plan_table, found.specs, found.devices, headroom=rules.headroom)
    names = [spec.name for spec in found.specs]
    if only is None:
        lazy = [name for name in names if found.settings.model(name).load == "lazy"]
        return table(unmatched=rules.unmatched_accelerator, lazy=lazy)
    if only not in names:
        raise ConfigError(f"no model named {only!r} (have: {', '.join(names) or 'none'})")
    rows = table(unmatched=rules.unmatched_accelerator, lazy={only})
    return [row for row in rows if row["model"] == only]


def plan_table(
    specs: Iterable[ModelSpec],
    devices: Sequence[Device],
    *,
    headroom: int = HEADROOM,
    unmatched: Unmatched = "error",
    lazy: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Return one row per replica, in the order of `specs`, ready for JSON.

    `model`, `replica`, `devices` (ids), `memory` ("20GiB", "50%", "alone", None on the CPU), `why` (a sentence) and
    `state`:

        placed       it has its devices; a model in `lazy` gets them at its first request
        cpu          it needs none
        busy         other replicas hold them
        impossible   never on these devices, or its resources are invalid

    Models in `lazy` are not part of the start; each is planned separately, after the others.
    """
    specs = list(specs)
    place = partial(plan_models, devices, headroom=headroom, unmatched=unmatched)
    outcomes = place([spec for spec in specs if spec.name not in lazy])
    held = [
        claim
        for replicas in outcomes.values()
        for request, outcome in replicas
        if isinstance(outcome, Placement)
        for claim in claims_of(request, outcome)
    ]
    rows = []
    for spec in specs:
        is_lazy = spec.name in lazy
        replicas = place([spec], claims=held)[spec.name] if is_lazy else outcomes[spec.name]
        rows += [_row(spec, number, *replica, is_lazy=is_lazy) for number, replica in enumerate(replicas)]
    return rows


def _row(
    spec: ModelSpec, number: int, request: Request, outcome: Placement | NoFit, *, is_lazy: bool
) -> dict[str, Any]:
    why = explain(request, outcome)
    return {
        "model": spec.name,
        "replica": number,
        "state": _state(outcome),
        "devices": [device.id for device in outcome.devices] if isinstance(outcome, Placement) else [],
        "memory": None if _state(outcome) == "cpu" else _memory(request),
        "why": f"at the first request, {why}" if is_lazy else why,
    }


def _state(outcome: Placement | NoFit) -> str:
    if isinstance(outcome, NoFit):
        return outcome.reason
    return "placed" if outcome.devices else "cpu"


def _memory(request: Request) -> str | None:
    if request.count == 0:
        return None
    if request.share is not None:
        return f"{request.share * 100:g}%"
    return "alone" if request.memory is None else format_size(request.memory)
