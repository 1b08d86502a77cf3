"""gateway plan"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .tables import tell

if TYPE_CHECKING:
    from ..inspection.inventory import Inventory


@click.command("plan")
@options.models
@options.config
@options.devices
@options.any_gpu
@click.option("--for", "name", metavar="MODEL", help="Place this model last, after all others.")
@options.as_json
def command(models: tuple[str, ...], config: Path | None, name: str | None, as_json: bool, **placement: Any) -> None:
    """Show which devices each model gets, and why. Starts nothing.

    Exits with 1 if a model is broken or cannot be placed.
    """
    from ..devices.plan import plan_inventory
    from ..inspection.inventory import take_inventory
    from .tables import show_json

    found = take_inventory(options.settings_of(config, models=models, **placement))
    rows = plan_inventory(found, name)
    if as_json:
        devices = [
            {"id": device.id, "index": device.index, "model": device.model, "memory": device.total, "kind": device.kind}
            for device in found.devices
        ]
        show_json({"devices": devices, "placements": rows})
    else:
        _show(found, rows)
    broken = any(problem.level == "error" for problem in found.problems)
    sys.exit(broken or any(row["state"] in ("impossible", "busy") for row in rows))


def _show(found: Inventory, rows: list[dict[str, Any]]) -> None:
    from ..devices.device import format_size
    from .tables import show, table

    for problem in found.problems:
        tell(f"{problem.level.capitalize()}: {problem}", err=True)
    tell(f"Devices: {', '.join(map(str, found.devices)) or 'no accelerator, only the CPU'}")
    tell(f"Headroom: {format_size(found.settings.gateway.placement.headroom)} on each device")
    shown = {device.id: str(device).partition(" (")[0] for device in found.devices}
    columns = ("model", "state", "device", "memory", "why")
    show(table(columns, [_cells(row, shown) for row in rows]))


def _cells(row: dict[str, Any], shown: dict[str, str]) -> list[str]:
    return [
        f"{row['model']}/{row['replica']}",
        row["state"],
        ", ".join(shown[device] for device in row["devices"]),
        row["memory"] or "",
        row["why"].partition(" ")[2],  # the sentence begins with the replica, which has its own column
    ]
