"""What is told of a worker's processes is what the kernel has of them."""

from __future__ import annotations

import os
import subprocess
import sys

from gateway.system.processes import usage_of

# It holds 64 MiB, and so does the child that it starts in a group of its own, and one that it forks and that forks.
HOLDER = """
import os, subprocess, sys
held = bytearray(b"x") * (64 << 20)
if sys.argv[1] == "parent":
    child = subprocess.Popen([sys.executable, "-c", sys.argv[2], "child", ""], stdout=subprocess.PIPE, process_group=0)
    child.stdout.readline()
print("held", flush=True)
sys.stdin.read()
"""


def test_memory_is_that_of_a_process_and_of_what_it_has_started() -> None:
    command = [sys.executable, "-c", HOLDER, "parent", HOLDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == b"held\n"
        found = usage_of([process.pid, os.getpid()])
        assert 128 << 20 < found[process.pid].memory < 256 << 20
        assert found[os.getpid()].memory > found[process.pid].memory  # we have started it
        assert 0 <= found[process.pid].uptime < found[os.getpid()].uptime
        process.stdin.close()


def test_nothing_is_told_of_a_process_that_is_not_there() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert usage_of([process.pid]) == {}
    assert usage_of([]) == {}
