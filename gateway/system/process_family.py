"""Find a process, its descendants and their sockets in the kernel's tables.

Linux only, because it reads /proc; elsewhere everything is unknown. A worker, and a process forked from it without
exec, hides its descriptors from processes that are not privileged like root: `who_holds` reports that.
"""

from __future__ import annotations

import ipaddress
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
Address = tuple[str, int]  # one end of a connection


class Socket(NamedTuple):
    """A row of the kernel's table of TCP sockets. An end is an address and a port in the table's own format."""

    here: str
    there: str
    state: str
    user: str
    inode: str

    @property
    def port(self) -> int:
        return _port(self.here)

    @property
    def peer(self) -> int:
        return _port(self.there)


class Holder(NamedTuple):
    """Which process family holds a socket; or, if no readable process does, the families with unreadable ones."""

    process: int | None = None
    hidden: tuple[int, ...] = ()


STRANGER = Holder()


def owns(client_port: int, server_port: int) -> bool:
    """Return whether one of our processes holds the client end of a connection to `server_port` on this machine."""
    inodes = {each.inode for each in tcp_sockets() if (each.port, each.peer) == (client_port, server_port)}
    return bool(inodes) and any(not inodes.isdisjoint(inodes_of(pid)) for pid in family(os.getpid()))


def who_holds(client: Address, server: Address, processes: Iterable[int], until: float) -> Holder:
    """Find the family that holds the client end of a connection. It uses the kernel's tables only and asks no process.

    What is not found by `until`, on the clock of `time.monotonic`, is a stranger's.
    """
    ends = _ends(client, server)
    sockets = [each for each in tcp_sockets() if (each.here, each.there) in ends]
    if not sockets:
        return STRANGER
    links = {f"socket:[{each.inode}]" for each in sockets}
    everybody, below = _processes()
    hidden, seen = [], set()
    try:
        for process in processes:
            members = _below(process, below)
            seen |= members
            held = [_holds(pid, links, until) for pid in members]
            if any(held):
                return Holder(process)
            if None in held:
                hidden.append(process)
        if not hidden or all(each.user != str(os.geteuid()) for each in sockets):
            return STRANGER  # another user holds it, and our hidden processes have our user
        if any(_holds(pid, links, until) for pid in everybody if pid not in seen):
            return STRANGER
    except TimeoutError:
        return STRANGER
    return Holder(hidden=tuple(hidden))


def family(process: int) -> set[int]:
    """Return a process and its descendants.

    Descendants in a group of their own are found by parent, orphans by group.
    """
    return _below(process, _processes()[1])


def _processes() -> tuple[list[int], dict[int, list[int]]]:
    """Return all pids, and a mapping: pid → children, negative pid → members of the group that it leads."""
    found, below = [], defaultdict(list)
    for name in _names(PROC):
        if not name.isdigit():
            continue
        try:
            fields = (PROC / name / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:  # the process has ended
            continue
        found.append(int(name))
        below[int(fields[1])].append(int(name))
        below[-int(fields[2])].append(int(name))
    return found, below


def _below(process: int, below: dict[int, list[int]]) -> set[int]:
    """Return a process and its descendants, each visited once: a model may have started a very long chain."""
    found, todo = set(), [process, *below.get(-process, ())]
    while todo:
        if (pid := todo.pop()) not in found:
            found.add(pid)
            todo += below.get(pid, ())
    return found


def inodes_of(pid: int) -> Iterator[str]:
    """Yield the inodes of the sockets that a process holds."""
    for name in _names(PROC / str(pid) / "fd"):
        try:
            target = os.readlink(PROC / str(pid) / "fd" / name)
        except OSError:
            continue
        if target.startswith("socket:["):
            yield target[8:-1]


def _holds(pid: int, links: set[str], until: float) -> bool | None:
    """Return whether a process has one of these files open; None if its descriptors cannot be read.

    Raises:
        TimeoutError: `until` has passed; a process may hold very many files.
    """
    try:
        with os.scandir(PROC / str(pid) / "fd") as files:
            for file in files:
                if time.monotonic() > until:
                    raise TimeoutError
                try:
                    if os.readlink(file.path) in links:
                        return True
                except FileNotFoundError:  # closed meanwhile
                    continue
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return False
    except TimeoutError:
        raise
    except OSError:
        return None
    return False


def tcp_sockets() -> Iterator[Socket]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (PROC / "self/net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, here, there, state, *rest = line.split()
            yield Socket(here, there, state, rest[3], rest[5])


def _ends(client: Address, server: Address) -> set[tuple[str, str]]:
    """Return both ends in the tables' format, in two forms: an IPv4 address appears in the IPv4 and the IPv6 table."""
    return set(zip(_written(*client), _written(*server), strict=True))


def _written(host: str, port: int) -> list[str]:
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    forms = [address.packed]
    if address.version == 4:
        forms.append(ipaddress.IPv6Address(f"::ffff:{address}").packed)
    return [f"{_words(form)}:{port:04X}" for form in forms]


def _words(packed: bytes) -> str:
    """Format an address: the kernel writes each four bytes as a number in native byte order."""
    numbers = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return "".join(f"{number:08X}" for number in numbers)


def _port(end: str) -> int:
    return int(end.rpartition(":")[2], 16)


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
