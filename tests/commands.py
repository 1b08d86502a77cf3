"""`gateway COMMAND` as the means of a test: run in this process, which has imported already what it needs.

A command in a process of its own, with its streams, its terminal and its signals, is what tests/cli is about.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from subprocess import CompletedProcess

from click.testing import CliRunner

from gateway.cli import cli


def command(place: Path, *arguments: str, **env: str) -> CompletedProcess[str]:
    """Run a command in a directory. Directory and streams are those of the whole process: not for several threads."""
    with contextlib.chdir(place):
        done = CliRunner().invoke(cli, arguments, prog_name="gateway", env={"COLUMNS": "80", **env})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)
