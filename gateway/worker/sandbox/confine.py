"""Give up privileges before the model's code starts.

Every worker is protected from accidents: no core dumps with weights and prompts, no new privileges, files that only
their owner can read. `confine` is for sandbox = "strict": the worker can write to a few places only, and reach no
network and no process but its own. Neither is a security boundary against malicious models: they can read what their
user can read.

    namespaces.py   a private network, view of the file system, and shared memory
    landlock.py     where it may write, which processes it may signal
    keeper.py       the process that ends all that it has started
    calls.py        system calls that affect other processes, or what namespaces do not isolate
    start.py        the program that does all this and then becomes the requested one
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

from ...system import memory
from .libc import done, libc

TYPE_CHECKING = False  # as in gateway/__init__.py
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

SIGKILL = 9  # the module `signal` is half of what start.py would import
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
OOM_SCORE = "500"  # the kernel kills a worker before the gateway
CAPABILITIES_V3 = 0x20080522
TRACING = 1 << 19 | 1 << 21 | 1 << 38  # SYS_PTRACE, SYS_ADMIN, PERFMON: each lets root read others' memory


class Unconfined(Exception):
    """This machine cannot confine a process; the text says what is missing."""


def main() -> None:
    """Print why this machine cannot confine a worker; nothing if it can. Run in a process of its own."""
    limit_accidents()
    try:
        confine([])
    except Unconfined as error:
        print(error)


def tie_to_parent(parent: int) -> None:
    """Die when the process that started us dies, even if it has just died."""
    if sys.platform == "linux":
        libc().prctl(PR_SET_PDEATHSIG, SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def forgo_privileges() -> None:
    """Gain no privileges from programs from now on, which Landlock requires."""
    if sys.platform == "linux":
        libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def limit_accidents(most: int | None = None) -> None:
    """Apply the limits for every worker. `most` is the bytes it may allocate: its heap and private mappings."""
    os.umask(0o077)
    memory.leave_no_core()
    if most is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    forgo_privileges()
    if sys.platform == "linux":
        try:
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write(OOM_SCORE)
        except OSError:
            pass


def lay_down_tracing() -> None:
    """Drop the capabilities that let root read other processes' memory or environment, which has keys and secrets."""
    if sys.platform != "linux":
        return
    header, data = struct.pack("Ii", CAPABILITIES_V3, 0), ctypes.create_string_buffer(24)
    done(libc().capget(header, data))
    words = struct.unpack("6I", data)  # the low halves of three sets, then the high halves
    kept = (word & ~(TRACING >> 32 * (number > 2)) & 0xFFFFFFFF for number, word in enumerate(words))
    done(libc().capset(header, struct.pack("6I", *kept)))


def confine(writable: Iterable[str | Path], *, network: bool = False, terminal: bool = False) -> None:
    """Drop all capabilities, reach nothing outside, and write only below `writable` and to devices.

    With `network`, which is for builds, the network is kept; the next child process ends together with all its
    descendants, see `hand_over`. With `terminal`, the terminal is kept.

    Raises:
        Unconfined: the kernel lacks a feature; earlier steps stay in effect.
    """
    if sys.platform != "linux":
        raise Unconfined("it needs Linux")
    from functools import partial
    from pathlib import Path

    from . import calls, landlock, namespaces  # not at the top: a worker of the basic sandbox does without them

    check_landlock()
    places = [place for place in map(Path, writable) if place.exists()]
    enter = partial(namespaces.enter, places, network=network, terminal=terminal)
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("the kernel allows no namespaces here", enter),
        ("the capabilities cannot be dropped", _lay_down_capabilities),
        ("Landlock refused its rules", partial(landlock.restrict, places)),
        ("the kernel does not accept the system call filter", calls.install),
    )
    for what, step in steps:
        try:
            step()
        except OSError as error:
            raise Unconfined(f"{what} ({error.strerror or error})") from error


def check_landlock() -> None:
    """Raise `Unconfined` if the kernel's Landlock cannot restrict signals."""
    from . import landlock

    version, least = landlock.version(), landlock.LEAST_VERSION
    if version < least:
        have = f"version {version}" if version > 0 else "none"
        raise Unconfined(f"the kernel needs Landlock of version {least}, as Linux 6.12 has it, and has {have}")


def hand_over() -> None:
    """Continue as the first process of a pid namespace; the parent only waits for it.

    When the first process ends, the kernel kills all others of the namespace, whatever their groups and sessions.
    Otherwise a process left behind by a build would give its network to the model.
    """
    alive, dead = os.pipe()
    child = os.fork()
    if child:
        os.close(dead)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    os.close(alive)
    done(libc().prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
    try:
        os.write(dead, b".")  # the pid of a parent outside is not visible; the pipe shows whether it is alive
    except BrokenPipeError:
        os._exit(1)
    os.close(dead)


def _lay_down_capabilities() -> None:
    """Drop all capabilities permanently, thanks to no_new_privs.

    With them, root or the creator of a namespace could leave it.
    """
    header, none = struct.pack("Ii", CAPABILITIES_V3, 0), bytes(24)
    done(libc().capset(header, none))


if __name__ == "__main__":
    main()
