"""gateway plugins"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from . import options


@click.command("plugins")
@options.config
@options.as_json
def command(config: Path | None, as_json: bool) -> None:
    """List the plugins and what they provide."""
    from ..plugins import Plugins
    from .tables import show, show_json, table

    gateway = options.settings_of(config).gateway
    plugins = Plugins.load(gateway.plugins, gateway.block_plugins)
    rows = plugins.describe()
    if as_json:
        problems = [asdict(problem) for problem in plugins.problems]
        show_json({"plugins": [asdict(row) for row in rows], "problems": problems})
        return
    cells = [(row.name, row.version, row.source, "\n".join(row.hooks), "\n".join(row.provides)) for row in rows]
    show(table(("plugin", "version", "from", "hooks", "provides"), cells))
    for problem in plugins.problems:
        click.echo(f"Error: {problem}", err=True)
