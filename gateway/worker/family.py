"""Whether a connection belongs to this worker or to a process that it started: the kernel's tables say so.

Linux only, as /proc is. A process that was forked and runs no program of its own hides its descriptors: it is not seen.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def owns(client_port: int, server_port: int) -> bool:
    """Whether one of us holds the client's end of a connection to `server_port` on this machine."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(client_port, server_port)}
    return bool(sockets) and any(not sockets.isdisjoint(_held(pid)) for pid in _family())


def _inodes(client_port: int, server_port: int) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "self/net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, remote, *rest = line.split()
            if (_port(local), _port(remote)) == (client_port, server_port):
                yield rest[6]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _family() -> Iterator[int]:
    """This process, and all below it."""
    children = defaultdict(list)
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            children[int(fields[1])].append(int(entry.name))
    todo = [os.getpid()]
    while todo:
        pid = todo.pop()
        yield pid
        todo += children[pid]


def _held(pid: int) -> Iterator[str]:
    try:
        entries = list((PROC / str(pid) / "fd").iterdir())
    except OSError:
        return
    for entry in entries:
        try:
            yield os.readlink(entry)
        except OSError:
            continue
