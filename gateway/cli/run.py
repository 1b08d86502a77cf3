"""gateway run"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from . import options


@click.command("run")
@click.argument("name")
@click.option("-d", "--data", metavar="JSON|@FILE", help="Call the model once with this input and exit.")
@click.option("--method", metavar="NAME", help="Method to call.  [default: predict, else the first one]")
@click.option("--pdb", "debug", is_flag=True, help="Open a debugger where the model raises an exception.")
@options.models
@options.config
@options.devices
@options.any_gpu
def command(
    name: str,
    data: str | None,
    method: str | None,
    debug: bool,
    models: tuple[str, ...],
    config: Path | None,
    devices: str | None,
    any_gpu: bool | None,
) -> None:
    """Run one model in this terminal, with breakpoint() and input().

    Needs no running gateway. The model is loaded as by `gateway serve`: in its own environment, on its devices and in
    its sandbox. Answers go to stdout, the model's own output to stderr. Without --data, each line of stdin is the JSON
    input of one call. Exits with 1 if the load or a call failed, with 130 after Ctrl-C.
    """
    from ..errors import ConfigError
    from ..files import scratch
    from ..inspection.inventory import take_inventory
    from ..runners.replica import LoadError, Terminal
    from ..system import adopted_processes, memory
    from ..telemetry import logs
    from ..telemetry.redaction import KNOWN
    from .foreground import run

    body = _body(data)
    adopted_processes.adopt()
    memory.leave_no_core()
    memory.hide()
    settings = options.settings_of(config, models=models, devices=devices, any_gpu=any_gpu)
    scratch.root()
    KNOWN.hide([settings.gateway.api_key or ""])
    logs.set_up("text", settings.gateway.log_level)
    try:
        found = take_inventory(settings, only=[name])
    except ConfigError as error:
        raise click.ClickException(str(error).removeprefix("--only: ")) from error
    if not found.specs:
        mine = [str(problem) for problem in found.problems if problem.model == name and problem.level == "error"]
        raise click.ClickException("; ".join(mine) or f"{name} is not a model")
    # Without --data the lines of a pipe are calls, so the model cannot read from a terminal.
    terminal: Terminal = "" if data is None and not sys.stdin.isatty() else "pdb" if debug else "plain"
    if debug and not terminal:
        raise click.UsageError("--pdb needs --data, or a terminal as stdin")
    try:
        sys.exit(run(found, method, body, terminal))
    except (ConfigError, LoadError) as error:
        raise click.ClickException(str(error)) from error


def _body(data: str | None) -> bytes | None:
    import json

    if data is None:
        return None
    try:
        text = Path(data[1:]).read_text("utf-8") if data.startswith("@") else data
        json.loads(text)
    except OSError as error:
        raise click.UsageError(f"--data {data}: {error.strerror}") from error
    except ValueError as error:
        raise click.UsageError(f"--data is not JSON: {error}") from error
    return text.encode()
