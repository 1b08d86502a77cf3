"""Check the peer of the admin socket: an operator, or code that the gateway itself has started. Refuse passed files.

Only our user may open the socket file, but models run as that user. So the kernel is asked which process has connected.
Linux only; elsewhere the file mode is the only protection.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
from pathlib import Path

SO_PASSRIGHTS = 83  # Linux 6.16
SO_PEERPIDFD = 77  # Linux 6.5; a handle to the process, safe against reuse of its pid
CREDENTIALS = struct.Struct("3i")
PROC = Path("/proc")
MAX_DEPTH = 1000  # ancestors; a bound, because a reused pid could form a cycle


def may_operate(fd: int) -> bool:
    """Return whether the process at the other end of this connection was started by an operator.

    1. root may, if we are not root  2. a process outside our pid namespace may: what we start is inside
    3. our own process may
    4. a descendant of ours may not; orphans among them are our children (`adopted_processes.py`)
    5. a process with NoNewPrivs may not, if we do not have it: an earlier gateway may have started it
    6. a process that has ended meanwhile may not: its pid may be reused
    """
    if sys.platform != "linux":
        return True
    with socket.socket(fileno=os.dup(fd)) as connection:
        return _is_operator(connection)


def take_no_files(sock: socket.socket) -> bool:
    """Refuse file descriptors sent to this socket or to sockets it accepts. False if the kernel cannot.

    We never use them, but reading beside one, or closing the socket, would close the file, and we might be its last
    owner. Such a close can block: a socket may wait to send its data, memory to be freed.
    """
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError):  # an older kernel
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        return True
    return False


def credentials_of(fd: int) -> tuple[int, int] | None:
    """Return the pid and uid of the peer; None if the platform does not provide them."""
    if sys.platform != "linux":
        return None
    with socket.socket(fileno=os.dup(fd)) as connection:
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, _ = CREDENTIALS.unpack(found)
    return pid, uid


def _is_operator(connection: socket.socket) -> bool:
    pid, user, _ = CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    if (user == 0 and os.geteuid() != 0) or pid in (0, os.getpid()):
        return True
    if user not in (0, os.geteuid()):
        return False
    try:
        process = _process(connection, pid)
    except OSError:
        return False
    try:
        return not _is_ours(pid) and not _has_ended(process)
    except (OSError, ValueError, KeyError):
        return False
    finally:
        os.close(process)


def _process(connection: socket.socket, pid: int) -> int:
    try:
        return connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError:  # an older kernel
        return os.pidfd_open(pid)


def _has_ended(process: int) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))


def _is_ours(pid: int) -> bool:
    """Return whether we started the process.

    NoNewPrivs and the network namespace are checked first: a strict model may have very many ancestors.
    """
    is_bound = _status(str(pid))["NoNewPrivs"] == "1"
    if is_bound and (_status("self")["NoNewPrivs"] == "0" or _network(str(pid)) != _network("self")):
        return True
    us = str(os.getpid())
    ancestor = str(pid)
    for _ in range(MAX_DEPTH):
        ancestor = _status(ancestor)["PPid"]
        if ancestor == us:
            return True
        if ancestor == "0":
            return False
    return True  # no command has so many; a model that forks may


def _status(process: str) -> dict[str, str]:
    lines = (PROC / process / "status").read_text("utf-8", "replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _network(process: str) -> str:
    return os.readlink(PROC / process / "ns" / "net")
