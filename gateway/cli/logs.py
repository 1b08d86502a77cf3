"""gateway logs"""

from __future__ import annotations

from pathlib import Path
from typing import Any
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
    """Print the last lines of a model's output, each with its time.

    Without NAME, those of all models, each behind its model's name. What is followed goes on when the model is reloaded
    or its worker is started again.
    """
    from .operator import Operator
    from .tables import tell

    place = "/admin/logs" if name is None else f"/models/{quote(name)}/logs"
    operator = Operator.of(options.settings_of(config), url)
    if not follow:
        for found in operator.ask("GET", f"{place}?lines={lines}")["lines"]:
            tell(_line(found, named=name is None))
        return
    try:
        for found in operator.lines(f"{place}?lines={lines}&follow=true"):
            tell(_line(found, named=name is None))
    except KeyboardInterrupt:  # which is how it ends
        return
    tell("the gateway has ended", err=True)


def _line(found: dict[str, Any], *, named: bool) -> str:
    import time

    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["time"]))
    return f"{when} {found['model']}: {found['line']}" if named and found["model"] else f"{when} {found['line']}"
