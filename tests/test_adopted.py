"""Processes that a model let go are the gateway's children; those that have ended are taken away, and no others."""

from __future__ import annotations

import subprocess
import sys

LETS_GO = """
import os, subprocess, sys
from gateway import adopted

adopted.adopt()
between = "import os, subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'input()']).pid, flush=True)"
first = subprocess.Popen([sys.executable, "-c", between], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
orphan = int(first.stdout.readline())
first.wait()
parent = [line for line in open(f"/proc/{orphan}/status") if line.startswith("PPid")][0].split()[1]
print(int(parent) == os.getpid())
own = subprocess.Popen([sys.executable, "-c", ""])
children = adopted.Adopted()
children.reap()
print(os.path.exists(f"/proc/{orphan}"))
first.stdin.close()
os.waitid(os.P_PID, orphan, os.WEXITED | os.WNOWAIT)
children.reap()
print(os.path.exists(f"/proc/{orphan}"))
print(own.wait())
children.reap()
print(os.path.exists(f"/proc/{orphan}"))
"""


def test_what_has_been_let_go_is_ours_and_taken_away_once_it_has_ended() -> None:
    done = subprocess.run([sys.executable, "-c", LETS_GO], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "True", "True", "0", "False"], done.stderr
