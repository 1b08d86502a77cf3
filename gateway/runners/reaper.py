"""Ends every worker's process group, and what left it, when the gateway dies, however it dies.

Run as a script by `Reaper` below: it reads "+pid mark" and "-pid" lines from its standard input until that closes,
which the kernel does for us even after a SIGKILL. A process that left its group is known by the variable that it
inherited from its worker, which holds the mark; on Linux only, and not when it was started with an environment of its
own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

MARK = "GW_WORKER"


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

    def add(self, pid: int, mark: str) -> None:
        """`mark` is the worker's `MARK`. It is sent, for a worker may hide its environment from other processes."""
        self._tell(f"+{pid} {mark}\n")

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


def born(pid: int) -> str:
    """When a process began, in ticks since the machine did; "" where there is none. Numbers are used again."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()  # field 22; the name before may hold anything
    except (OSError, IndexError):
        return ""


def is_ours(leader: int, begun: str) -> bool:
    """Whether the group of that number is still that of a worker that began then, though the worker may be gone.

    A number is free for another process when nothing is left of the group; whoever has it then began later.
    """
    return born(leader) in ("", begun)


def marked(mark: str, *, but: int = 0) -> list[int]:
    """The processes that carry the mark, but for those of this group, which are reached together."""
    try:
        found = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    except OSError:  # no /proc
        return []
    return [pid for pid in found if carries(pid, mark) and _group(pid) != but]


def carries(pid: int, mark: str) -> bool:
    """Whether a process lives and carries the mark; one that has ended has no environment."""
    return bool(mark) and _mark_of(pid) == mark


def _mark_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            variables = file.read().split(b"\0")
    except OSError:
        return ""
    prefix = f"{MARK}=".encode()
    return next((os.fsdecode(one[len(prefix) :]) for one in variables if one.startswith(prefix)), "")


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def end(leader: int, begun: str, mark: str) -> None:
    """Kill the group of a worker that began then, and what carries its mark."""
    if is_ours(leader, begun):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
    for pid in marked(mark):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, tuple[str, str]] = {}
    for line in sys.stdin:
        group, _, mark = line[1:].strip().partition(" ")
        try:
            pid = int(group)
        except ValueError:  # half a line, cut by the end
            continue
        if line[0] == "+":
            groups[pid] = mark, born(pid)
        else:
            groups.pop(pid, None)
    for leader, (mark, begun) in groups.items():
        end(leader, begun, mark)


if __name__ == "__main__":
    main()
