"""gateway doctor"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options
from .tables import tell

if TYPE_CHECKING:
    from ..inspection.doctor import Line


@click.command("doctor")
@options.models
@options.config
@click.option("--security", is_flag=True, help="Look at security only.")
@options.as_json
def command(models: tuple[str, ...], config: Path | None, security: bool, as_json: bool) -> None:
    """Check security and machine before production.

    Looks at this machine, the settings and the models without running their code. Exits with 1 if there is a danger.
    """
    from ..inspection.doctor import Machine, examine, examine_security
    from ..inspection.inventory import take_inventory
    from .tables import show_json

    found = take_inventory(options.settings_of(config, models=models), with_devices=not security)
    lines = (examine_security if security else examine)(found, Machine.here())
    if as_json:
        show_json([asdict(line) for line in lines])
    else:
        for line in lines:
            tell(_line(line))
        tell(_sum(lines))
    sys.exit(any(line.level == "danger" for line in lines))


def _line(line: Line) -> str:
    fix = f" ({line.fix})" if line.fix and line.level != "pass" else ""
    return f"{line.level:<6}  {line.name}: {line.what}{fix}"


def _sum(lines: list[Line]) -> str:
    dangers, warnings = (sum(line.level == level for line in lines) for level in ("danger", "warn"))
    return f"{dangers} danger{'s' * (dangers != 1)}, {warnings} warning{'s' * (warnings != 1)}"
