"""Running the clients that are commands: in a directory of their own, with nothing of this machine's settings."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 90.0  # seconds for what a command line agent does in one go


@dataclass(frozen=True)
class Ran:
    status: int
    said: str  # on stdout
    beside: str  # on stderr


def run(command: list[str], desk: Path, **env: str) -> Ran:
    """Run it with `desk` as its home, in an empty directory there."""
    work = desk / "work"
    work.mkdir(exist_ok=True)
    result = subprocess.run(
        command,
        cwd=work,
        env={"PATH": os.environ["PATH"], "HOME": str(desk), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return Ran(result.returncode, result.stdout, result.stderr)
