"""A private network, view of the file system, and shared memory for a worker.

The view shows all files, but read-only except for the given places. So nothing outside can change, including modes,
owners, times and attributes, which Landlock does not protect. /dev/shm is an empty one.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from .libc import done, libc

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 0x4000, 0x40000
# System call numbers, the same on every architecture.
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
OPEN_TREE_CLONE, OPEN_TREE_CLOEXEC, AT_RECURSIVE, FROM_EMPTY_PATH, AT_FDCWD = 1, os.O_CLOEXEC, 0x8000, 4, -100
ATTR_RDONLY = 1
SHARED_MEMORY = Path("/dev/shm")


def enter(writable: Iterable[Path], *, network: bool, terminal: bool = False) -> None:
    """Enter new namespaces.

    With `network` the network is kept, and the next child is the first process of a pid namespace. Raises `OSError` if
    the kernel or the container does not allow it.
    """
    _unshare(CLONE_NEWNS | CLONE_NEWIPC | (CLONE_NEWPID if network else CLONE_NEWNET))
    _keep_files(list(writable))
    # Open stdin again: it was opened in the old view, where it could still change the file's mode. The same for a
    # terminal.
    for number in (0, 1, 2) if terminal else (0,):
        is_terminal = terminal and os.isatty(number)
        if number and not is_terminal:
            continue
        again = os.open(os.ttyname(number) if is_terminal else os.devnull, os.O_RDWR | os.O_NOCTTY)
        os.dup2(again, number, inheritable=True)
        os.close(again)
    if not network:
        _raise_loopback()


def _unshare(kinds: int) -> None:
    """Without root, use a user namespace."""
    try:
        done(libc().unshare(kinds))
    except PermissionError:
        user, group = os.geteuid(), os.getegid()
        done(libc().unshare(kinds | CLONE_NEWUSER))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _keep_files(writable: list[Path]) -> None:
    done(libc().mount(None, b"/", None, MS_REC | MS_PRIVATE, None))  # otherwise others would see the mounts below
    if SHARED_MEMORY.is_dir():
        done(libc().mount(b"tmpfs", bytes(SHARED_MEMORY), b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=1777"))
        writable = [*writable, SHARED_MEMORY]
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE
    kept = [(done(libc().syscall(OPEN_TREE, AT_FDCWD, bytes(place), flags)), place) for place in writable]
    attributes = struct.pack("QQQQ", ATTR_RDONLY, 0, 0, 0)
    done(libc().syscall(MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, attributes, len(attributes)))
    for tree, place in kept:
        done(libc().syscall(MOVE_MOUNT, tree, b"", AT_FDCWD, bytes(place), FROM_EMPTY_PATH))
        os.close(tree)


def _raise_loopback() -> None:
    """Bring up the loopback interface, which libraries use internally."""
    import fcntl

    with socket.socket() as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
