"""gateway unload"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from . import options
from .tables import tell


@click.command("unload")
@click.argument("name")
@options.url
@options.config
def command(name: str, url: str | None, config: Path | None) -> None:
    """Stop a model's processes and free its devices.

    Running calls may finish within `drain_timeout`. A model with load = "lazy" is loaded again by its next request.
    """
    from ..telemetry.audit import DONE
    from .operator import Operator

    found = Operator.of(options.settings_of(config), url).ask("POST", f"/admin/models/{quote(name)}/unload")
    tell(f"{name} is {found['state']}" if found["outcome"] == DONE else f"{name}: {found['outcome']}")
