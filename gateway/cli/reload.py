"""gateway reload"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from . import options


@click.command("reload")
@click.argument("name", required=False)
@options.url
@options.config
def command(name: str | None, url: str | None, config: Path | None) -> None:
    """Read a model's directory again and serve that, without a gap.

    The new replicas are loaded beside the old ones, then calls go to them; the old ones finish what they have begun.
    Where no device has room for both, the old ones end first. New code that cannot be loaded changes nothing, exits
    with 1 and says why. Without NAME, the model roots are looked at again: models that are new or
    mended are served, those that are gone are forgotten.
    """
    from ..audit import DONE
    from .operator import Operator

    operator = Operator.of(options.settings_of(config), url)
    if name is None:
        _tell(operator.ask("POST", "/admin/reload"))
        return
    found = operator.ask("POST", f"/admin/models/{quote(name)}/reload")
    if found["outcome"] != DONE:
        click.echo(f"{name}: {found['outcome']}")
        return
    took = f", in {found['load_seconds']:.1f} s" if found["state"] == "ready" else "; it loads at its first request"
    click.echo(f"{name} is reloaded{took}")


def _tell(found: dict[str, Any]) -> None:
    for name in found["new"]:
        click.echo(f"{name} is new; gateway ps shows how it loads")
    for name in found["gone"]:
        click.echo(f"{name} is gone")
    for name, reason in found["failed"].items():
        click.echo(f"{name} cannot be read: {reason}", err=True)
    if not any(found.values()):
        click.echo("nothing is new")
    sys.exit(bool(found["failed"]))
