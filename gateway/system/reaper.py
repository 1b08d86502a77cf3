"""Kill every worker's process group, and processes that left it, when the gateway dies for any reason.

`Reaper` below runs this file as a script. It reads "+pid mark" and "-pid" lines from standard input until that closes;
the kernel closes it even after a SIGKILL. A process that left its group is found by the environment variable with the
mark, which it inherited; a process of a strict worker is found by its network namespace, which is unique. Both on Linux
only. A process of another worker that was started with a clean environment is not found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

MARK = "GW_WORKER"
# Bytes at the beginning of an environment in which the mark is searched. The gateway sets it first, and a process may
# say that its environment has gigabytes.
BEGINNING = 64 * 1024
KILLING = 5.0  # seconds in which processes are ended, before those that remain are left alone
LOOK_AGAIN = 0.01  # seconds between two searches
MOST_THREADS = 1000  # of one process that are asked; threads may end while others begin, so it may take several
Network = tuple[int, int]  # device and inode; reused only when no process and no open file holds the namespace


class Reaper:
    """The gateway's end of the pipe."""

    def __init__(self) -> None:
        # -S -E -I: no environment, no site-packages. The process must be small and survive problems in both.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-E", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={},
        )

    def add(self, pid: int, mark: str) -> None:
        """Register a worker. `mark` is its `MARK`; it is sent, because a worker may hide its environment.

        Call it again when the worker has a network namespace of its own.
        """
        self._tell(f"+{pid} {mark}\n")

    def remove(self, pid: int) -> None:
        self._tell(f"-{pid}\n")

    def close(self) -> None:
        """End the reaper; all workers have ended normally."""
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
            pass  # the reaper was killed; workers still have PDEATHSIG and the end of their channel


def born(pid: int) -> str:
    """Return the start time of a process in ticks since boot, or "" if there is none. Pids are reused."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()  # field 22; the name may contain anything
    except (OSError, IndexError):
        return ""


def is_ours(leader: int, begun: str) -> bool:
    """Return whether the group still belongs to the worker that started then, even if the worker itself is gone.

    A group number is reused only when no process of the group is left; its new owner has a later start time.
    """
    return born(leader) in ("", begun)


def hold_network(pid: int) -> int | None:
    """Open the network namespace of a process. None if it is the same as ours, or cannot be read."""
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
    return of_any_thread(process, _network_at)


def _network_at(place: str) -> Network | None:
    try:
        found = os.stat(f"{place}/ns/net")
    except OSError:  # it has ended
        return None
    return found.st_dev, found.st_ino


def of_any_thread(process: int | str, ask: Callable[[str], T | None]) -> T | None:
    """Return what `ask` finds in the directory of a process in /proc, or else in that of one of its threads.

    The directory of a process shows its first thread. Once that has ended, much of it is empty, also if other threads
    of the process run.
    """
    if (found := ask(f"/proc/{process}")) is not None:
        return found
    asked = 0
    while asked < MOST_THREADS and (others := _other_threads(process)):
        for thread in others[: MOST_THREADS - asked]:
            if (found := ask(f"/proc/{process}/task/{thread}")) is not None:
                return found
        asked += len(others)
    return None


def _other_threads(process: int | str) -> list[str]:
    try:
        return [thread for thread in os.listdir(f"/proc/{process}/task") if thread != str(process)]
    except OSError:  # it has ended
        return []


def signal_strays(
    number: int, mark: str, network: Network | None = None, *, since: str = "", but: int = 0
) -> list[int]:
    """Send a signal to each process of a worker as soon as it is found. Returns all that were found.

    Those in group `but` are left out: they are signalled together. `since` is the start time of the worker.
    Call it on a thread: it may take long, because models decide how many processes there are, and what they are like.
    """
    try:
        all_of_them = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    except OSError:  # no /proc
        return []
    found = []
    for pid in all_of_them:
        if is_of(pid, mark, network, since) and _group(pid) != but:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
            found.append(pid)
    return found


def is_of(pid: int, mark: str, network: Network | None = None, since: str = "") -> bool:
    """Return whether a process is alive and has the network namespace, or, if none is given, the mark.

    No process can leave the network of a strict worker, so that nothing that others write has to be read for it.
    """
    if network is not None:
        return _network(pid) == network
    return bool(mark) and int(born(pid) or -1) >= int(since or 0) and _has_mark(pid, mark)


def _has_mark(pid: int, mark: str) -> bool:
    beginning = of_any_thread(pid, _environment_at) or b""
    return b"\0%b=%b\0" % (MARK.encode(), os.fsencode(mark)) in b"\0%b\0" % beginning


def _environment_at(place: str) -> bytes | None:
    try:
        with open(f"{place}/environ", "rb", buffering=0) as file:
            return file.read(BEGINNING) or None
    except OSError:
        return None


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


def end(leader: int, begun: str, mark: str, network: Network | None = None) -> bool:
    """Kill the group of the worker that started then, and all its processes that left the group.

    Returns whether any were found. Repeat it until there are none: a process that forks during the search has a child
    that was not found.
    """
    if is_ours(leader, begun):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
    return bool(signal_strays(signal.SIGKILL, mark, network, since=begun))


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, tuple[str, str, int | None]] = {}
    for line in sys.stdin:
        group, _, mark = line[1:].strip().partition(" ")
        try:
            pid = int(group)
        except ValueError:  # an incomplete last line
            continue
        if line[0] == "+":
            _release(groups.get(pid))
            groups[pid] = mark, born(pid), hold_network(pid)
        else:
            _release(groups.pop(pid, None))
    until = time.monotonic() + KILLING
    left = {leader: (begun, mark, network_of(held)) for leader, (mark, begun, held) in groups.items()}
    while left := {leader: its for leader, its in left.items() if end(leader, *its)}:
        if time.monotonic() >= until:
            break
        time.sleep(LOOK_AGAIN)


def _release(group: tuple[str, str, int | None] | None) -> None:
    if group is not None and group[2] is not None:
        os.close(group[2])


if __name__ == "__main__":
    main()
