"""Who is at the other end of the admin socket: an operator, or code that the gateway itself has started; and what none
of them may hand over.

The socket is a file that only our user may open, and models run as that user. So the kernel is asked which process has
connected. Linux only; elsewhere the mode of the file is all there is.
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
SO_PEERPIDFD = 77  # Linux 6.5; the process itself, whatever becomes of its number
CREDENTIALS = struct.Struct("3i")
PROC = Path("/proc")
MAX_DEPTH = 1000  # of ancestors; a number that comes again would go round for ever


def may_operate(fd: int) -> bool:
    """Whether the process at the other end of this connection is one that an operator started.

    1. root may, when we are not root  2. one that is outside of our view of processes may: what we start is inside
    3. ourselves may  4. one that descends from us may not, and whose parents are gone is our child, see `adopted.py`
    5. nor one that was bound not to gain privileges and is not as we are: so is what an earlier gateway has started
    6. nor one that has ended meanwhile, whose number may be somebody else's
    """
    if sys.platform != "linux":
        return True
    with socket.socket(fileno=os.dup(fd)) as connection:
        return _is_operator(connection)


def take_no_files(sock: socket.socket) -> bool:
    """Whoever hands an open file over to this socket, or one that it accepts, is refused; False where none can be.

    Nobody here asks for any, but whoever reads the bytes beside one, or closes the socket, would close it, and might be
    its last owner. The system then lets the caller wait: for a socket to send what it holds, for memory to be freed.
    """
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError):  # an older kernel
        sock.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 0)
        return True
    return False


def credentials_of(fd: int) -> tuple[int, int] | None:
    """The process and the user at the other end; None where the kernel does not say."""
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
    """What binds it is looked at first: of a strict model, whose ancestors may be many, that says it at once."""
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
    return True  # no command has so many, and a model that forks may have made them


def _status(process: str) -> dict[str, str]:
    lines = (PROC / process / "status").read_text("utf-8", "replace").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _network(process: str) -> str:
    return os.readlink(PROC / process / "ns" / "net")
