"""gateway settings"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import click

from . import options


@click.command("settings")
@options.config
@options.as_json
def command(config: Path | None, as_json: bool) -> None:
    """Print every setting and where it comes from.

    Hides the API key and the values of `environment` of models.
    """
    from .tables import show, show_json, table, tell

    settings = options.settings_of(config)
    rows = [
        {"key": key, "value": value, "from": settings.origin(key)}
        for key, value in [*_flat("gateway", settings.gateway), *_tables(settings.models)]
    ]
    if as_json:
        show_json(rows)
        return
    show(table(("setting", "value", "from"), [(row["key"], _shown(row["value"]), row["from"]) for row in rows]))
    for problem in settings.problems:
        tell(f"{problem.level.capitalize()}: {problem}", err=True)


def _flat(key: str, value: Any) -> list[tuple[str, Any]]:
    if is_dataclass(value):
        inner = [(item.name, getattr(value, item.name)) for item in fields(value)]
        return [row for name, each in inner for row in _flat(f"{key}.{name}", each)]
    if key == "gateway.api_key":
        value = None if value is None else "(set)"
    return [(key, value)]


def _tables(models: Any) -> list[tuple[str, Any]]:
    """Return what the models' tables set. Defaults are left out."""
    return [
        (f"models.{name}.{item.name}", dict.fromkeys(value, "(set)") if item.name == "environment" else value)
        for name, table in models.items()
        for item in fields(table)
        if (value := getattr(table, item.name)) != item.default
    ]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
