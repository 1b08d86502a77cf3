"""gateway reload"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from . import options


@click.command("reload")
@click.argument("name")
@options.url
@options.config
def command(name: str, url: str | None, config: Path | None) -> None:
    """Read a model's directory again and serve that, without a gap.

    The new replicas are loaded beside the old ones, then calls go to them; the old ones finish what they have begun.
    Where no device has room for both, the old ones end first. New code that cannot be loaded changes nothing, exits
    with 1 and says why.
    """
    from .operator import Operator

    found = Operator.of(options.settings_of(config), url).ask("POST", f"/admin/models/{quote(name)}/reload")
    click.echo(f"{name} is reloaded, in {found['load_seconds']:.1f} s")
