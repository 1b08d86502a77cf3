"""gateway plugins"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options

if TYPE_CHECKING:
    from ..plugins import PluginInfo
    from ..spec import Problem


@click.command("plugins")
@options.config
@options.as_json
def command(config: Path | None, as_json: bool) -> None:
    """List the plugins and what they provide.

    Exits with 1 if a plugin has a problem.
    """
    from ..http.route_table import is_own
    from ..plugins import Plugins
    from .tables import show_json

    gateway = options.settings_of(config).gateway
    plugins = Plugins.load(gateway.plugins, gateway.block_plugins, is_own=is_own)
    rows = plugins.describe()
    if as_json:
        problems = [asdict(problem) for problem in plugins.problems]
        show_json({"plugins": [asdict(row) for row in rows], "problems": problems})
    else:
        _show(rows, plugins.problems)
    sys.exit(bool(plugins.problems))


def _show(rows: Sequence[PluginInfo], problems: Sequence[Problem]) -> None:
    from .tables import show, table, tell

    cells = [(row.name, row.version, row.source, "\n".join(row.hooks), "\n".join(row.provides)) for row in rows]
    show(table(("plugin", "version", "from", "hooks", "provides"), cells, several=True))
    for problem in problems:
        tell(f"Error: {problem}", err=True)
