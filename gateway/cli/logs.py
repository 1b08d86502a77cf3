"""gateway logs"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from . import options


@click.command("logs")
@click.argument("name", required=False)
@click.option(
    "-n", "--lines", type=click.IntRange(0), default=200, show_default=True, help="So many of the last lines."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with those that come, until Ctrl-C.")
@options.url
@options.config
def command(name: str | None, lines: int, follow: bool, url: str | None, config: Path | None) -> None:
    """Print the last lines of a model's output.

    Without NAME, those of all models, each behind its model's name. What is followed goes on when the model is reloaded
    or its worker is started again.
    """
    from .operator import Operator
    from .tables import tell

    place = "/admin/logs" if name is None else f"/models/{quote(name)}/logs"
    operator = Operator.of(options.settings_of(config), url)
    if not follow:
        for found in operator.ask("GET", f"{place}?lines={lines}")["lines"]:
            tell(found if name is not None else f"{found['model']}: {found['line']}")
        return
    try:
        for found in operator.lines(f"{place}?lines={lines}&follow=true"):
            tell(found["line"] if name is not None or not found["model"] else f"{found['model']}: {found['line']}")
    except KeyboardInterrupt:  # which is how it ends
        return
    tell("the gateway has ended", err=True)
