"""gateway ps"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options


@click.command("ps")
@options.url
@options.config
@options.as_json
def command(url: str | None, config: Path | None, as_json: bool) -> None:
    """Show the models of a running gateway: state, processes, calls.

    It is asked over its admin socket, so it must be one of yours on this machine.
    """
    from .operator import Operator
    from .tables import show, show_json, table

    models = Operator.of(options.settings_of(config), url).ask("GET", "/admin/models")["models"]
    if as_json:
        show_json(models)
        return
    heads = ("model", "state", "pid", "devices", "running", "queued", "restarts", "reason")
    show(table(heads, [_row(model) for model in models]))


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    pids = ", ".join(str(replica["pid"]) for replica in model["replicas"] if replica["pid"])
    return (
        model["id"],
        model["state"],
        pids,
        " ".join(model["devices"]),
        f"{model['running']} of {model['slots']}",
        str(model["queued"]),
        str(model["restarts"]),
        model["reason"],
    )
