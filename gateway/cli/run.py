"""gateway run"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from . import options


@click.command("run")
@click.argument("name")
@click.option("-d", "--data", metavar="JSON|@FILE", help="Call it once with this and end.")
@click.option("--method", metavar="NAME", help="The method to call.  [default: predict, else its first]")
@click.option("--pdb", "debug", is_flag=True, help="Open a debugger where the model raises.")
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

    No gateway has to run. The model is loaded as `gateway serve` loads it: in its own environment, on its devices, in
    its sandbox. Answers go to stdout, what it prints to stderr. Without --data, each line of stdin is the JSON of a
    call. Exits with 1 when the load or a call failed, with 130 after Ctrl-C.
    """
    from .. import adopted, logs, memory, scratch
    from ..errors import ConfigError
    from ..foreground import run
    from ..inventory import take_inventory
    from ..redaction import KNOWN
    from ..replica import LoadError, Terminal

    body = _body(data)
    adopted.adopt()
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
        raise click.ClickException("; ".join(mine) or f"{name} is no model")
    # Without data the lines of a pipe are calls, and there is nobody to ask.
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
