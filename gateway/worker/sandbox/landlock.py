"""Landlock: a process and its children can write below a few places only, and reach no process outside.

They cannot send signals outside, connect to abstract sockets outside, or trace or read outside processes in /proc. That
needs version 6, of Linux 6.12.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from .libc import done, libc

# System call numbers, the same on every architecture, and access rights.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
GET_VERSION, PATH_BENEATH = 1, 1
LEAST_VERSION = 6  # the first that restricts signals; Linux 6.12
WRITE_FILE, TRUNCATE = 1 << 1, 1 << 14
WRITING = WRITE_FILE | sum(1 << bit for bit in range(4, 15))  # also remove, create of any kind, rename, truncate
MAKING_DEVICES = 1 << 6 | 1 << 11
DEVICE_CONTROL = 1 << 15  # ioctl on a device, which works even if it was opened for reading
ABSTRACT_SOCKETS, SIGNALS = 1 << 0, 1 << 1


def version() -> int:
    """Return the version of the running kernel; 0 without Landlock."""
    return max(0, int(libc().syscall(CREATE_RULESET, None, 0, GET_VERSION)))


def enclose() -> None:
    """Let this process and its children signal no process outside, permanently. Raises `OSError`."""
    attributes = struct.pack("QQQ", 0, 0, SIGNALS)
    ruleset = done(libc().syscall(CREATE_RULESET, attributes, len(attributes), 0))
    try:
        done(libc().syscall(RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def restrict(writable: Iterable[Path]) -> None:
    """Restrict this process and its children permanently. Raises `OSError`."""
    attributes = struct.pack("QQQ", WRITING | DEVICE_CONTROL, 0, ABSTRACT_SOCKETS | SIGNALS)
    ruleset = done(libc().syscall(CREATE_RULESET, attributes, len(attributes), 0))
    try:
        for place in (*writable, *_devices()):
            try:
                opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                allowed = WRITING & ~MAKING_DEVICES if place.is_dir() else WRITE_FILE | TRUNCATE
                rule = struct.pack("=Qi", allowed | DEVICE_CONTROL, opened)
                done(libc().syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0))
            finally:
                os.close(opened)
        done(libc().syscall(RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)


def _devices() -> list[Path]:
    """Return the devices that models write to. Never all of /dev, which has disks and the terminals of users."""
    dev = Path("/dev")
    usual = [dev / name for name in ("null", "zero", "full", "random", "urandom", "shm", "kfd", "dri")]
    return [*usual, *dev.glob("nvidia*")]
