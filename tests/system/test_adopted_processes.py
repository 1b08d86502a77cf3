"""Processes that a model let go are the gateway's children; those that have ended are taken away, and no others."""

from __future__ import annotations

import subprocess
import sys

BEGIN = """
import ctypes, os, subprocess, sys
from gateway.system import adopted_processes as adopted

adopted.adopt()
children = adopted.Adopted()
BOUND = "import ctypes; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0);"  # as a worker is

def start(code, bound=True):
    "A session of its own, as a worker's."
    command = [sys.executable, "-c", BOUND * bound + "import os, subprocess, sys;" + code]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)

def let_go(how, session="False"):
    "A process whose parent has ended; it ends when its input does."
    first = start(how + f"print(subprocess.Popen([sys.executable, '-c', 'input()'], start_new_session={session}).pid)")
    orphan = int(first.stdout.readline())
    first.wait()
    return first.stdin, orphan

def ended(*pids):
    for pid in pids:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

def is_there(pid):
    return os.path.exists(f"/proc/{pid}")
"""


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", BEGIN + code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_what_has_been_let_go_is_ours_and_taken_away_once_it_has_ended() -> None:
    code = """
door, orphan = let_go("")
parent = [line for line in open(f"/proc/{orphan}/status") if line.startswith("PPid")][0].split()[1]
children.reap()
print(int(parent) == os.getpid(), is_there(orphan))
door.close()
ended(orphan)
children.reap()
print(is_there(orphan))
"""
    assert run(code) == ["True", "True", "False"]


def test_what_left_the_session_before_it_was_let_go_is_taken_away_at_the_second_look() -> None:
    code = """
door, orphan = let_go("", "True")
door.close()
ended(orphan)
children.reap()
print(is_there(orphan))
children.reap()
print(is_there(orphan))
"""
    assert run(code) == ["True", "False"]


def test_the_ends_of_children_that_somebody_waits_for_are_theirs() -> None:
    code = """
plain = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(7)"])
apart = start("sys.exit(8)", bound=False)
ended(plain.pid, apart.pid)
for _ in range(adopted.PATIENCE):
    children.reap()
print(plain.wait(), apart.wait())
"""
    assert run(code) == ["7", "8"]


def test_without_a_list_of_children_all_processes_are_looked_at() -> None:
    code = """
adopted._children = lambda: []
door, orphan = let_go("")
door.close()
ended(orphan)
children.reap()
print(is_there(orphan))
"""
    assert run(code) == ["False"]


def test_the_first_process_of_a_container_can_be_ended_before_it_listens() -> None:
    code = """
import signal
os.getpid = lambda: 1
adopted.adopt()
print(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL)
"""
    assert run(code) == ["True"]
