"""gateway check"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options
from .tables import tell

if TYPE_CHECKING:
    from ..inspection.check import Finding


@click.command("check")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@options.models
@options.config
@options.devices
@options.any_gpu
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@options.as_json
def command(
    paths: tuple[str, ...], models: tuple[str, ...], config: Path | None, strict: bool, as_json: bool, **placement: Any
) -> None:
    """Check model directories without running their code.

    PATH is a model directory or a directory of them. Default: the directories of the settings. Exits with 1 if there
    are errors.
    """
    from ..inspection.check import check
    from ..inspection.inventory import take_inventory
    from .tables import show_json

    settings = options.settings_of(config, models=models, **placement)
    found = take_inventory(settings, roots=[Path(path) for path in paths])
    findings = check(found)
    if as_json:
        show_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            tell(_line(finding))
        broken = {finding.model for finding in findings if finding.level == "error"}
        tell(_sum(findings, sum(spec.name not in broken for spec in found.specs)))
    fatal = {"error", "warning"} if strict else {"error"}
    sys.exit(any(finding.level in fatal for finding in findings))


def _line(finding: Finding) -> str:
    fix = f" ({finding.fix})" if finding.fix else ""
    return f"{finding.where}: {finding.level}: {finding.what}{fix} [{finding.code}]"


def _sum(findings: list[Finding], models: int) -> str:
    levels = [finding.level for finding in findings]
    counts = [f"{levels.count(level)} {level}{'s' * (levels.count(level) != 1)}" for level in ("error", "warning")]
    return f"{models} model{'s' * (models != 1)} can be served: {', '.join(counts)}"
