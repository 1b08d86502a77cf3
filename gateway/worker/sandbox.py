"""What a worker gives up before its model's code begins.

Every worker is kept from accidents: no core dumps of weights and prompts, no new privileges, files that only their
owner reads. `confine` is for sandbox = "strict": it writes to a few places only, reaches no network and no process but
its own. Neither is a boundary against a model that means harm: it reads what its user reads.

    sandbox_namespaces.py   a network, a view of the file system and shared memory of its own
    sandbox_landlock.py     where it may write, whom it may signal
    sandbox_calls.py        system calls that reach other processes, or what namespaces do not hide
    sandbox_start.py        the program that does all this and then becomes the one that was asked for
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from .. import memory
from . import sandbox_calls, sandbox_landlock, sandbox_namespaces
from .sandbox_libc import done, libc

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
OOM_SCORE = "500"  # when memory runs out, a worker goes before the gateway
CAPABILITIES_V3 = 0x20080522
TRACING = 1 << 19 | 1 << 21 | 1 << 38  # SYS_PTRACE, SYS_ADMIN, PERFMON: each lets root read the memory of others


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
        libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def limit_accidents(most: int | None = None) -> None:
    """For every worker. `most` are the bytes that it may allocate for itself: its heap and private mappings."""
    os.umask(0o077)
    memory.leave_no_core()
    if most is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    if sys.platform == "linux":
        libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)


def lay_down_tracing() -> None:
    """Root, too, reads no other process's memory or environment: the gateway's hold keys and secrets."""
    if sys.platform != "linux":
        return
    header, data = struct.pack("Ii", CAPABILITIES_V3, 0), ctypes.create_string_buffer(24)
    done(libc().capget(header, data))
    words = struct.unpack("6I", data)  # the low halves of three sets, then the high ones
    kept = (word & ~(TRACING >> 32 * (number > 2)) & 0xFFFFFFFF for number, word in enumerate(words))
    done(libc().capset(header, struct.pack("6I", *kept)))


def confine(writable: Iterable[Path], *, network: bool = False, terminal: bool = False) -> None:
    """Lay down every capability, reach nothing outside, and write nowhere but below `writable` and to devices.

    With `network`, which is for builds, the network stays as it is, and what is started next takes all with it that it
    has started, see `hand_over`. With `terminal` it keeps that.

    Raises:
        Unconfined: the kernel lacks something; what was done until then stays done.
    """
    if sys.platform != "linux":
        raise Unconfined("it needs Linux")
    version, least = sandbox_landlock.version(), sandbox_landlock.LEAST_VERSION
    if version < least:
        have = f"version {version}" if version > 0 else "none"
        raise Unconfined(f"the kernel needs Landlock of version {least}, as Linux 6.12 has it, and has {have}")
    places = [place for place in writable if place.exists()]
    namespaces = partial(sandbox_namespaces.enter, places, network=network, terminal=terminal)
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("the kernel allows no namespaces here", namespaces),
        ("the capabilities cannot be laid down", _lay_down_capabilities),
        ("Landlock refused its rules", partial(sandbox_landlock.restrict, places)),
        ("the kernel takes no filter of system calls", sandbox_calls.install),
    )
    for what, step in steps:
        try:
            step()
        except OSError as error:
            raise Unconfined(f"{what} ({error.strerror or error})") from error


def hand_over() -> None:
    """Go on as the first process in a view of its own, and be in the place of its parent until it ends.

    With the first one the kernel ends all others, whatever they have made of their groups and sessions: a build that
    left one behind would leave its network to its model.
    """
    alive, dead = os.pipe()
    child = os.fork()
    if child:
        os.close(dead)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    os.close(alive)
    done(libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    try:
        os.write(dead, b".")  # the number of a parent outside is not seen: whether it is there, the pipe says
    except BrokenPipeError:
        os._exit(1)
    os.close(dead)


def _lay_down_capabilities() -> None:
    """For good, by no_new_privs. Root, or who made a namespace, could else step back out of it."""
    header, none = struct.pack("Ii", CAPABILITIES_V3, 0), bytes(24)
    done(libc().capset(header, none))


if __name__ == "__main__":
    main()
