"""gateway models"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..wording import addressed, shorten
from . import options

if TYPE_CHECKING:
    from ..inspection.inventory import Inventory
    from ..settings.schema import Settings
    from ..spec import ModelSpec


@click.command("models")
@options.models
@options.config
@click.option("--live", is_flag=True, help="Ask a running gateway instead of reading directories.")
@options.url
@options.as_json
def command(models: tuple[str, ...], config: Path | None, live: bool, url: str | None, as_json: bool) -> None:
    """List the models and what they serve.

    Reads the model directories, or asks a running gateway with --live.
    """
    settings = options.settings_of(config, models=models)
    if live or url:
        _show_live(settings, url, as_json)
    else:
        _show_directories(settings, as_json)


def _show_directories(settings: Settings, as_json: bool) -> None:
    from ..inspection.inventory import take_inventory
    from .tables import show, show_json, table, tell

    found = take_inventory(settings, with_devices=False)
    rows = [_row(spec, found) for spec in found.specs]
    for problem in found.problems:
        tell(f"{problem.level.capitalize()}: {problem}", err=True)
    if as_json:
        show_json(rows)
        return
    columns = ("name", "format", "target", "slots", "devices", "routes")
    show(table(columns, [[_cell(row[column]) for column in columns] for row in rows], several=True))
    for row in rows:
        for note in row["notes"]:
            tell(f"{row['name']}: {note}")


def _row(spec: ModelSpec, found: Inventory) -> dict[str, Any]:
    from ..directories.preview import devices_wanted, routes_of

    return {
        "name": spec.name,
        "format": spec.format,
        "served_by": spec.served_by,
        "target": spec.target,
        "root": shorten(str(spec.root)),
        "slots": spec.limits.slots,
        "replicas": spec.replicas,
        "devices": devices_wanted(spec),
        "routes": routes_of(spec, found.plugins.endpoints()),
        "notes": [addressed(shorten(note), spec.name) for note in (*spec.notes, *spec.asides)],
    }


def _cell(value: Any) -> str:
    return "\n".join(value) or "known once it is loaded" if isinstance(value, list) else str(value)


def _show_live(settings: Settings, url: str | None, as_json: bool) -> None:
    from .client import Client
    from .tables import show, show_json, table

    listing = Client.of(settings, url).get("/v1/models")["data"]
    if as_json:
        show_json(listing)
        return
    rows = [
        (item["id"], item["status"], "\n".join(item["capabilities"]["routes"]), item.get("status_reason", ""))
        for item in listing
    ]
    show(table(("name", "state", "routes", "reason"), rows, several=True))
