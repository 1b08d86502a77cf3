"""What the kernel's tables say of this worker and the processes that it started: who they are, and their sockets.

Linux only, as /proc is; elsewhere nothing is known. A process that was forked and runs no program of its own hides its
descriptors: its sockets are not seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Socket(NamedTuple):
    """A line of the kernel's table of TCP sockets."""

    port: int  # at this end
    peer: int  # at the other
    state: str
    inode: str


def owns(client_port: int, server_port: int) -> bool:
    """Whether one of us holds the client's end of a connection to `server_port` on this machine."""
    inodes = {each.inode for each in tcp_sockets() if (each.port, each.peer) == (client_port, server_port)}
    return bool(inodes) and any(not inodes.isdisjoint(inodes_of(pid)) for pid in family(os.getpid()))


def family(process: int) -> set[int]:
    """A process and those that it started: those with a group of their own are known by their parents, orphans by
    their group.
    """
    parents: dict[int, int] = {}
    found = {process}
    for name in _names(PROC):
        if not name.isdigit():
            continue
        try:
            fields = (PROC / name / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents[int(name)] = int(fields[1])
        if int(fields[2]) == process:
            found.add(int(name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def inodes_of(pid: int) -> Iterator[str]:
    """The sockets that a process holds."""
    for name in _names(PROC / str(pid) / "fd"):
        try:
            target = os.readlink(PROC / str(pid) / "fd" / name)
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def tcp_sockets() -> Iterator[Socket]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "self/net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, here, there, state, *rest = line.split()
            yield Socket(_port(here), _port(there), state, rest[5])


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
