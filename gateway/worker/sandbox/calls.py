"""A seccomp filter for system calls that neither namespaces nor Landlock restrict.

prlimit, setpriority, sched_set…, ioprio_set   limits and priorities: of the process itself only
sched_setaffinity                              not of the gateway; a library may name any of its own threads
keyctl, add_key, request_key                   the kernel's keyrings, which are shared by user
fcntl                                          no file leases: the next process that opens the file, which may be the
                                               gateway, would wait until the lease is given up
clone, unshare                                 no user namespace, which would give it capabilities again
setns, open_by_handle_at                       nor one that exists: its owner has all capabilities in it, and it can be
                                               found without a path
socket                                         AF_UNIX, AF_INET, AF_INET6, AF_NETLINK only: some other families, such
                                               as AF_VSOCK, are not part of a network namespace. No protocol SMC:
                                               closing its sockets can block
setsockopt                                     no SO_LINGER: closing such a socket blocks, also in a process that was
                                               sent the socket, such as the gateway
clone3, io_uring_setup                         ENOSYS: a filter cannot inspect their arguments, and callers have a
                                               fallback
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from typing import NamedTuple

from .libc import done, libc

PR_SET_SECCOMP, FILTER = 22, 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
# Instructions of the kernel's filters: load a word, jump on a comparison, return.
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in the data of a filter
X32 = 0x40000000  # start of the second set of call numbers on x86_64
CLONE_NEWUSER = 0x10000000
FAMILIES = (1, 2, 10, 16)
IP = (2, 10)
IPPROTO_SMC = 256
SOL_SOCKET, SO_LINGER = 1, 13
PRIO_PROCESS, IOPRIO_PROCESS = 0, 1
F_SETLEASE = 1024

NAMES = (
    "ioprio_set unshare sched_setparam sched_setscheduler sched_setaffinity setpriority socket add_key request_key "
    "keyctl clone prlimit64 sched_setattr io_uring_setup clone3 fcntl setsockopt "
    "setns open_by_handle_at"
).split()
# By `uname -m`: the kernel's code of the architecture, and its numbers of `NAMES`.
ARCHITECTURES = {
    "x86_64": (
        0xC000003E,
        (251, 272, 142, 144, 203, 141, 41, 248, 249, 250, 56, 302, 314, 425, 435, 72, 54, 308, 304),
    ),
    "aarch64": (
        0xC00000B7,
        (30, 97, 118, 119, 122, 140, 198, 217, 218, 219, 220, 261, 274, 425, 435, 25, 208, 268, 265),
    ),
}


class Instruction(NamedTuple):
    code: int
    value: int
    if_so: int = 0  # how many instructions to skip
    if_not: int = 0


def install() -> None:
    """Install the filter permanently for this process and its children. Needs no_new_privs. Raises `OSError`."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"the system call numbers of {machine} are not known")
    code = b"".join(struct.pack("HBBI", one.code, one.if_so, one.if_not, one.value) for one in program(machine))
    buffer = ctypes.create_string_buffer(code)
    head = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    done(libc().prctl(PR_SET_SECCOMP, FILTER, ctypes.c_char_p(head), 0, 0))


def program(machine: str) -> list[Instruction]:
    """Return the filter. Each block handles one system call and ends with its verdict."""
    architecture, numbers = ARCHITECTURES[machine]
    found = [
        Instruction(LOAD, ARCHITECTURE),
        Instruction(EQUAL, architecture, if_so=1),
        _refuse(errno.ENOSYS),  # another architecture
        Instruction(LOAD, NUMBER),
        Instruction(AT_LEAST, X32, if_not=1),
        _refuse(errno.ENOSYS),
    ]
    for name, number in zip(NAMES, numbers, strict=True):
        block = _verdict(name)
        found += [Instruction(EQUAL, number, if_not=len(block)), *block]
    return [*found, Instruction(RETURN, ALLOW)]


def _verdict(name: str) -> list[Instruction]:
    allow, refuse = Instruction(RETURN, ALLOW), _refuse(errno.EPERM)
    if name in ("clone3", "io_uring_setup"):
        return [_refuse(errno.ENOSYS)]
    if name in ("keyctl", "add_key", "request_key", "setns", "open_by_handle_at"):
        return [refuse]
    if name in ("clone", "unshare"):
        return [_load(0), Instruction(ANY_BIT, CLONE_NEWUSER, if_not=1), refuse, allow]
    if name == "fcntl":
        return [_load(1), Instruction(EQUAL, F_SETLEASE, if_not=1), refuse, allow]
    if name == "socket":
        family = [_load(0), *_unless(FAMILIES), _refuse(errno.EAFNOSUPPORT)]
        smc = [_load(2), Instruction(EQUAL, IPPROTO_SMC, if_not=1), _refuse(errno.EPROTONOSUPPORT)]
        return [*family, *_unless(IP), allow, *smc, allow]
    if name == "setsockopt":
        level = [_load(1), Instruction(EQUAL, SOL_SOCKET, if_so=1), allow]
        return [*level, _load(2), Instruction(EQUAL, SO_LINGER, if_not=1), refuse, allow]
    if name == "prlimit64":  # reading is allowed
        reading = [
            _load(2),
            Instruction(EQUAL, 0, if_not=3),
            _load(2, high=True),
            Instruction(EQUAL, 0, if_not=1),
            allow,
        ]
        return [*reading, _load(0), Instruction(EQUAL, 0, if_so=1), refuse, allow]
    if name in ("setpriority", "ioprio_set"):
        own = PRIO_PROCESS if name == "setpriority" else IOPRIO_PROCESS
        which = [_load(0), Instruction(EQUAL, own, if_so=1), refuse]
        return [*which, _load(1), Instruction(EQUAL, 0, if_so=1), refuse, allow]
    if name == "sched_setaffinity":
        return [_load(0), Instruction(EQUAL, os.getppid(), if_not=1), refuse, allow]
    return [_load(0), Instruction(EQUAL, 0, if_so=1), refuse, allow]  # sched_set…: 0 is the caller


def _load(argument: int, *, high: bool = False) -> Instruction:
    """Load half of an argument. Both architectures are little-endian."""
    return Instruction(LOAD, ARGUMENTS + 8 * argument + 4 * high)


def _unless(values: Sequence[int]) -> list[Instruction]:
    """Skip the next instruction if the loaded word is one of these values."""
    return [Instruction(EQUAL, value, if_so=len(values) - place) for place, value in enumerate(values)]


def _refuse(number: int) -> Instruction:
    return Instruction(RETURN, ERRNO | number)
