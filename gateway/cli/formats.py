"""gateway formats"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options

if TYPE_CHECKING:
    from ..spec import Format


@click.command("formats")
@options.config
@options.as_json
def command(config: Path | None, as_json: bool) -> None:
    """List the kinds of model directories that can be served.

    Shows the files by which each is recognized, the routes that it answers, and whether the packages that it needs are
    installed. Exits with 1 if a plugin has a problem.
    """
    from ..http.route_table import is_own
    from ..plugins import Plugins
    from .tables import show, show_json, table, tell

    gateway = options.settings_of(config).gateway
    plugins = Plugins.load(gateway.plugins, gateway.block_plugins, is_own=is_own)
    rows = [_row(name, *found) for name, found in plugins.formats().items()]
    if as_json:
        show_json({"formats": rows, "problems": [asdict(problem) for problem in plugins.problems]})
        sys.exit(bool(plugins.problems))
    cells = [(row["name"], row["files"], "\n".join(row["routes"]), "yes" if row["installed"] else "no") for row in rows]
    show(table(("format", "a directory with", "answers", "installed"), cells, several=True))
    for row in rows:
        if not row["installed"] and row["install"]:
            tell(f"{row['name']}: {row['install']}")
    for problem in plugins.problems:
        tell(f"Error: {problem}", err=True)
    sys.exit(bool(plugins.problems))


def _row(name: str, plugin: str, found: Format) -> dict[str, Any]:
    from ..plugin_checks import is_here

    return {"name": name, **asdict(found), "plugin": plugin, "installed": all(map(is_here, found.needs))}
