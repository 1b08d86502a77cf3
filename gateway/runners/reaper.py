"""Ends every worker's process group, and what left it, when the gateway dies, however it dies.

Run as a script by `Reaper` below: it reads "+pid mark" and "-pid" lines from its standard input until that closes,
which the kernel does for us even after a SIGKILL. A process that left its group is known by the variable that it
inherited from its worker, which holds the mark, and what a strict worker started by their network, which nobody else
has; on Linux only. What was started by another worker with an environment of its own is not known.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

MARK = "GW_WORKER"
Network = tuple[int, int]  # device and inode; another has them once nobody has this one, or an open file of it


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
        """`mark` is the worker's `MARK`. It is sent, for a worker may hide its environment from other processes.

        To be said again when the worker has a network of its own.
        """
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


def hold_network(pid: int) -> int | None:
    """An open file of the network of a process; None while that is ours, or where nobody can look."""
    try:
        held = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    if network_of(held) != _network("self"):
        return held
    os.close(held)
    return None


def network_of(held: int | None) -> Network | None:
    if held is None:
        return None
    found = os.fstat(held)
    return found.st_dev, found.st_ino


def _network(process: int | str) -> Network | None:
    try:
        found = os.stat(f"/proc/{process}/ns/net")
    except OSError:  # it has ended
        return None
    return found.st_dev, found.st_ino


def strays(mark: str, network: Network | None = None, *, but: int = 0) -> list[int]:
    """The processes of a worker, but for those of this group, which are reached together."""
    try:
        found = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    except OSError:  # no /proc
        return []
    return [pid for pid in found if is_of(pid, mark, network) and _group(pid) != but]


def is_of(pid: int, mark: str, network: Network | None = None) -> bool:
    """Whether a process lives and carries the mark, or has that network; one that has ended has neither."""
    return (bool(mark) and _mark_of(pid) == mark) or (network is not None and _network(pid) == network)


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


def end(leader: int, begun: str, mark: str, network: Network | None = None) -> None:
    """Kill the group of a worker that began then, what carries its mark, and what has its network."""
    if is_ours(leader, begun):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
    for pid in strays(mark, network):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, tuple[str, str, int | None]] = {}
    for line in sys.stdin:
        group, _, mark = line[1:].strip().partition(" ")
        try:
            pid = int(group)
        except ValueError:  # half a line, cut by the end
            continue
        if line[0] == "+":
            _release(groups.get(pid))
            groups[pid] = mark, born(pid), hold_network(pid)
        else:
            _release(groups.pop(pid, None))
    for leader, (mark, begun, held) in groups.items():
        end(leader, begun, mark, network_of(held))


def _release(group: tuple[str, str, int | None] | None) -> None:
    if group is not None and group[2] is not None:
        os.close(group[2])


if __name__ == "__main__":
    main()
