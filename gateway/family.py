"""What the kernel's tables say of a process and those that it started: who they are, and their sockets.

Linux only, as /proc is; elsewhere nothing is known. A worker, and a process that was forked from one and runs no
program of its own, hides its descriptors from all that are not as privileged as root: `who_holds` says so.
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
Address = tuple[str, int]  # of one end of a connection


class Socket(NamedTuple):
    """A line of the kernel's table of TCP sockets; an end is an address and a port as the table writes them."""

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
    """Whose family holds a socket; or, when nobody does who can be seen, in whose family somebody cannot be."""

    process: int | None = None
    hidden: tuple[int, ...] = ()


STRANGER = Holder()


def owns(client_port: int, server_port: int) -> bool:
    """Whether one of us holds the client's end of a connection to `server_port` on this machine."""
    inodes = {each.inode for each in tcp_sockets() if (each.port, each.peer) == (client_port, server_port)}
    return bool(inodes) and any(not inodes.isdisjoint(inodes_of(pid)) for pid in family(os.getpid()))


def who_holds(client: Address, server: Address, processes: Iterable[int], until: float) -> Holder:
    """In whose family the client's end of a connection is. Nobody is asked: what is found is the kernel's word.

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
            return STRANGER  # none of what hides from us is another user's
        if any(_holds(pid, links, until) for pid in everybody if pid not in seen):
            return STRANGER
    except TimeoutError:
        return STRANGER
    return Holder(hidden=tuple(hidden))


def family(process: int) -> set[int]:
    """A process and those that it started: those with a group of their own are known by their parents, orphans by
    their group.
    """
    return _below(process, _processes()[1])


def _processes() -> tuple[list[int], dict[int, list[int]]]:
    """All that there are, by a number those that it started, and by its negative those of the group that it leads."""
    found, below = [], defaultdict(list)
    for name in _names(PROC):
        if not name.isdigit():
            continue
        try:
            fields = (PROC / name / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        found.append(int(name))
        below[int(fields[1])].append(int(name))
        below[-int(fields[2])].append(int(name))
    return found, below


def _below(process: int, below: dict[int, list[int]]) -> set[int]:
    """Each is looked at once: a model may have started very many, each by the one before it."""
    found, todo = set(), [process, *below.get(-process, ())]
    while todo:
        if (pid := todo.pop()) not in found:
            found.add(pid)
            todo += below.get(pid, ())
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


def _holds(pid: int, links: set[str], until: float) -> bool | None:
    """Whether a process has one of these files open; None where it hides what it holds.

    Raises:
        TimeoutError: it is not known by then, for a process may hold very many files.
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
    """Both ends as the tables write them: an address of IPv4 is in both of them."""
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
    """The kernel writes each four bytes as the number that they are in its memory."""
    numbers = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return "".join(f"{number:08X}" for number in numbers)


def _port(end: str) -> int:
    return int(end.rpartition(":")[2], 16)


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []
