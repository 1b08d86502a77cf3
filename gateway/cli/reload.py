"""gateway reload"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from . import options
from .tables import tell


@click.command("reload")
@click.argument("name", required=False)
@options.url
@options.config
def command(name: str | None, url: str | None, config: Path | None) -> None:
    """Reload a model from its directory without downtime.

    New replicas are loaded next to the old ones. Then calls go to the new replicas, and the old ones finish their
    calls. If no device has room for both, the old replicas stop first. If the new code cannot be loaded, nothing
    changes, and the command exits with 1 and prints the reason.

    Without NAME, the model directories are searched again: new and repaired models are served, deleted ones are
    removed.
    """
    from ..telemetry.audit import DONE
    from .operator import Operator

    operator = Operator.of(options.settings_of(config), url)
    if name is None:
        _tell(operator.ask("POST", "/admin/reload"))
        return
    found = operator.ask("POST", f"/admin/models/{quote(name)}/reload")
    if found["outcome"] != DONE:
        tell(f"{name}: {found['outcome']}")
        return
    took = f", in {found['load_seconds']:.1f} s" if found["state"] == "ready" else "; it loads at its first request"
    tell(f"{name} is reloaded{took}")


def _tell(found: dict[str, Any]) -> None:
    for name in found["new"]:
        tell(f"{name} is new; gateway ps shows its progress")
    for name in found["gone"]:
        tell(f"{name} was removed")
    for name, reason in found["failed"].items():
        tell(f"{name} cannot be read: {reason}", err=True)
    if not any(found.values()):
        tell("nothing has changed")
    sys.exit(bool(found["failed"]))
