"""gateway logs"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from . import options


@click.command("logs")
@click.argument("name", required=False)
@click.option("-n", "--lines", type=click.IntRange(0), default=200, show_default=True, help="Number of lines.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines, until Ctrl-C.")
@options.url
@options.config
def command(name: str | None, lines: int, follow: bool, url: str | None, config: Path | None) -> None:
    """Print the last lines of a model's output, with timestamps.

    Without NAME, the lines of all models, each after its model's name. --follow continues when the model is reloaded or
    its worker is restarted.
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
    except KeyboardInterrupt:  # the normal end of --follow
        return
    tell("the gateway has ended", err=True)


def _line(found: dict[str, Any], *, named: bool) -> str:
    import time

    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["time"]))
    return f"{when} {found['model']}: {found['line']}" if named and found["model"] else f"{when} {found['line']}"
