"""Ends every worker's process group when the gateway dies, however it dies.

Run as a script by `Reaper` below: it reads "+pid" and "-pid" lines from its standard input until that closes, which the
kernel does for us even after a SIGKILL. Processes that left their group are the model's own business.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys


class Reaper:
    """The gateway's end of the pipe."""

    def __init__(self) -> None:
        # -S -E -I: nothing of the environment, no site-packages; it must be small and outlive anything odd in both.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-E", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={},
        )

    def add(self, pid: int) -> None:
        self._tell(f"+{pid}\n")

    def remove(self, pid: int) -> None:
        self._tell(f"-{pid}\n")

    def close(self) -> None:
        """All workers have ended in order: nothing is left to reap."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _tell(self, line: str) -> None:
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except (OSError, ValueError):
            pass  # someone killed the reaper; workers still have PDEATHSIG and the end of their channel


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        try:
            pid = int(line[1:])
        except ValueError:  # half a line, cut by the end
            continue
        if line[0] == "+":
            groups.add(pid)
        else:
            groups.discard(pid)
    for group in groups:
        try:
            os.killpg(group, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass


if __name__ == "__main__":
    main()
