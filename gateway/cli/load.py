"""gateway load"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from . import options
from .tables import tell


@click.command("load")
@click.argument("name")
@options.url
@options.config
def command(name: str, url: str | None, config: Path | None) -> None:
    """Load a model that is unloaded, failed or new."""
    from ..telemetry.audit import DONE
    from .operator import Operator

    found = Operator.of(options.settings_of(config), url).ask("POST", f"/admin/models/{quote(name)}/load")
    but = f"; {found['reason']}" if found["reason"] else ""
    is_done = found["outcome"] == DONE
    tell(
        f"{name} is ready, after {found['load_seconds']:.1f} s{but}" if is_done else f"{name}: {found['outcome']}{but}"
    )
