"""gateway logs"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from . import options


@click.command("logs")
@click.argument("name")
@click.option(
    "-n", "--lines", type=click.IntRange(1), default=200, show_default=True, help="So many of the last lines."
)
@options.url
@options.config
def command(name: str, lines: int, url: str | None, config: Path | None) -> None:
    """Print the last lines of a model's output."""
    from .operator import Operator
    from .tables import tell

    found = Operator.of(options.settings_of(config), url).ask("GET", f"/models/{quote(name)}/logs?lines={lines}")
    for line in found["lines"]:
        tell(line)
