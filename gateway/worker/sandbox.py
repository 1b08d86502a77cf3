"""What a worker gives up before its model's code begins.

Every worker is kept from accidents: no core dumps of weights and prompts, no new privileges, files that only their
owner reads. `confine` is for sandbox = "strict": it may write to a few places only, and reach no network. Neither is a
boundary against a model that means harm: it reads what its user reads.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
OOM_SCORE = "500"  # when memory runs out, a worker goes before the gateway
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
CAPABILITIES_V3 = 0x20080522
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

# Landlock: numbers of its system calls, which are the same on every architecture, and its rights.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
GET_VERSION, PATH_BENEATH = 1, 1
LEAST_VERSION = 3  # the first that keeps a file from being truncated; Linux 6.2
WRITE_FILE, TRUNCATE = 1 << 1, 1 << 14
WRITING = WRITE_FILE | sum(1 << bit for bit in range(4, 15))  # and remove, make of any kind, rename, truncate
MAKING_DEVICES = 1 << 6 | 1 << 11


class Unconfined(Exception):
    """This machine cannot do what was asked for; the text says what is missing."""


def main() -> None:
    """Say what keeps this machine from confining a worker; nothing when it can. A process of its own tries it."""
    limit_accidents()
    try:
        confine([])
    except Unconfined as error:
        print(error)


def tie_to_parent(parent: int) -> None:
    """The death of the process that started us is ours, even if it died a moment ago."""
    if sys.platform == "linux":
        _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def limit_accidents(memory: int | None = None) -> None:
    """For every worker. `memory` are the bytes that it may allocate for itself: its heap and private mappings."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    if sys.platform == "linux":
        _libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)


def hide() -> None:
    """Other processes of this user cannot read our memory, nor trace us. Last, for it closes files of /proc to us."""
    if sys.platform == "linux":
        _libc().prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def confine(writable: Iterable[Path]) -> None:
    """Leave the network, lay down every capability, and write nowhere but below `writable` and to devices.

    Raises:
        Unconfined: the kernel lacks something; what was done until then stays done.
    """
    if sys.platform != "linux":
        raise Unconfined("it needs Linux")
    try:
        _leave_network()
    except OSError as error:
        raise Unconfined(f"the kernel allows no network namespace here ({error.strerror})") from error
    try:
        _lay_down_capabilities()
    except OSError as error:
        raise Unconfined(f"the capabilities cannot be laid down ({error.strerror})") from error
    version = landlock_version()
    if version < LEAST_VERSION:
        have = f"version {version}" if version > 0 else "none"
        raise Unconfined(f"the kernel needs Landlock of version {LEAST_VERSION}, as Linux 6.2 has it, and has {have}")
    try:
        _write_only_below((*writable, *_devices()))
    except OSError as error:
        raise Unconfined(f"Landlock refused its rules ({error.strerror})") from error


def landlock_version() -> int:
    """Of the running kernel; 0 without Landlock."""
    return max(0, int(_libc().syscall(CREATE_RULESET, None, 0, GET_VERSION)))


def _leave_network() -> None:
    """A network of our own with nothing but a loopback of its own; without root it takes a user namespace."""
    try:
        _done(_libc().unshare(CLONE_NEWNET))
    except PermissionError:
        user, group = os.geteuid(), os.getegid()
        _done(_libc().unshare(CLONE_NEWUSER | CLONE_NEWNET))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    import fcntl

    with socket.socket() as sock:  # libraries talk to themselves over loopback
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


def _lay_down_capabilities() -> None:
    """For good, by no_new_privs. Root, or who made a namespace, could else step back out of it."""
    header, none = struct.pack("Ii", CAPABILITIES_V3, 0), bytes(24)
    _done(_libc().capset(header, none))


def _devices() -> list[Path]:
    """Those that models write to; never all of /dev, where root has its disks."""
    dev = Path("/dev")
    usual = [dev / name for name in ("null", "zero", "full", "random", "urandom", "tty", "pts", "shm", "kfd", "dri")]
    return [*usual, *dev.glob("nvidia*")]


def _write_only_below(places: Iterable[Path]) -> None:
    libc = _libc()
    ruleset = _done(libc.syscall(CREATE_RULESET, struct.pack("Q", WRITING), 8, 0))
    try:
        for place in places:
            try:
                opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                allowed = WRITING & ~MAKING_DEVICES if place.is_dir() else WRITE_FILE | TRUNCATE
                rule = struct.pack("=Qi", allowed, opened)
                _done(libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0))
            finally:
                os.close(opened)
        _done(libc.syscall(RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _done(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno() or errno.EPERM
        raise OSError(number, os.strerror(number))
    return result


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    main()
