"""Whether this machine can confine a worker, for tests that hold on those that can and on those that cannot."""

from __future__ import annotations

import functools
import subprocess
import sys


@functools.cache
def why_not() -> str:
    """What this machine lacks; nothing when it can confine."""
    command = [sys.executable, "-P", "-m", "gateway.worker.sandbox.confine"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
