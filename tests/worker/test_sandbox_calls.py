"""The filter of system calls, run as the kernel runs it: also for what this machine's kernel does not have."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from gateway.worker.sandbox import calls

HIGH = 7 << 32  # a register is wider than the int that the kernel takes from it


def verdict(machine: str, name: str, *arguments: int) -> int:
    """0 when the call goes through, or the number of its error."""
    architecture, numbers = calls.ARCHITECTURES[machine]
    number = numbers[calls.NAMES.index(name)]
    seen = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    program, place, word = calls.program(machine), 0, 0
    while True:
        code, value, if_so, if_not = program[place]
        place += 1
        if code == calls.LOAD:
            (word,) = struct.unpack_from("<I", seen, value)
        elif code == calls.RETURN:
            return 0 if value == calls.ALLOW else value & 0xFFFF
        else:
            holds = {calls.EQUAL: word == value, calls.AT_LEAST: word >= value, calls.ANY_BIT: bool(word & value)}
            place += if_so if holds[code] else if_not


@pytest.mark.parametrize("machine", calls.ARCHITECTURES)
def test_no_socket_waits_when_it_is_closed(machine: str) -> None:
    """Whoever holds it last would wait, and a socket can be handed over."""
    level, linger = socket.SOL_SOCKET, socket.SO_LINGER
    for high in (0, HIGH):
        assert verdict(machine, "setsockopt", 3, high | level, high | linger) == errno.EPERM
        assert verdict(machine, "setsockopt", 3, high | level, high | socket.SO_REUSEADDR) == 0
        assert verdict(machine, "setsockopt", 3, high | socket.IPPROTO_TCP, high | linger) == 0
        for family in (socket.AF_INET, socket.AF_INET6):
            assert verdict(machine, "socket", high | family, 1, high | 256) == errno.EPROTONOSUPPORT  # SMC
            assert verdict(machine, "socket", high | family, 1, high | socket.IPPROTO_TCP) == 0
    for family in (socket.AF_UNIX, 16):  # netlink, whose protocols have numbers of their own
        assert verdict(machine, "socket", family, 1, 256) == 0
    assert verdict(machine, "socket", 40, 1, 0) == errno.EAFNOSUPPORT


@pytest.mark.parametrize("machine", calls.ARCHITECTURES)
def test_no_namespace_is_entered_that_exists(machine: str) -> None:
    """Its owner has capabilities in it, also if nobody may make another."""
    for descriptor in (0, 3):
        for kind in (0, HIGH | 0x10000000):
            assert verdict(machine, "setns", descriptor, kind) == errno.EPERM
        assert verdict(machine, "open_by_handle_at", descriptor, HIGH, 0) == errno.EPERM
