"""The keeper of a strict worker: a small process beside it that ends everything that the worker has started.

It is in a Landlock domain of its own, in which the worker has its narrower one. So a signal from the keeper to all
processes reaches what the worker has started, whatever its session, environment or program, and nothing else; a signal
from there does not reach the keeper. The kernel sends such a signal to all at once, so that no process escapes that
forks meanwhile.

It acts when the gateway shuts its end of a socket down, or dies. Forked, and not executed: nobody can start what kills
all processes outside such a domain.
"""

from __future__ import annotations

import ctypes
import os
import time

from ...system import memory
from . import confine, landlock
from .libc import libc

TYPE_CHECKING = False  # as in gateway/__init__.py
if TYPE_CHECKING:
    from typing import NoReturn

PR_SET_NAME = 15
NAME = b"gw:keeper"
SIGHUP, SIGINT, SIGTERM, SIGKILL = 1, 2, 15, 9
SIG_IGN = 1
FIRST_LOOK, LOOK_AGAIN = 0.005, 1.0  # seconds between two checks: at first, and at most
STARTED, DONE = b"+", b"."  # tell the gateway that there is a keeper, and that nothing is left


def begin(parent: int, channel: int) -> None:
    """Enter a domain, fork the keeper, and close our copy of its socket. Needs no thread besides this one.

    Raises:
        Unconfined: the kernel restricts no signals.
        OSError: there can be no more processes.
    """
    confine.check_landlock()
    try:
        landlock.enclose()
    except OSError as error:
        raise confine.Unconfined(f"Landlock refused its rules ({error.strerror or error})") from error
    if _reaches(parent):  # or the keeper would kill what is not the model's
        raise confine.Unconfined("Landlock restricts no signals here")
    if os.getppid() != parent:
        os._exit(1)
    # Not our child: the model would wait for it with its own.
    if not (between := os.fork()):
        try:
            if not os.fork():
                _keep(channel)
        except OSError:  # no more processes
            os._exit(1)
        os._exit(0)
    if os.waitpid(between, 0)[1]:
        raise OSError("no process could be started that ends the others")
    os.write(channel, STARTED)
    os.close(channel)


def _keep(channel: int) -> NoReturn:
    try:
        os.setsid()
        for number in (SIGHUP, SIGINT, SIGTERM):  # of a terminal, or for a group
            libc().signal(number, ctypes.c_void_p(SIG_IGN))
        _be_small(channel)
        while os.read(channel, 1):
            pass
    finally:
        try:
            _end_all()
            os.write(channel, DONE)
        finally:
            os._exit(0)


def _be_small(channel: int) -> None:
    """Let go of what was inherited: the model's channel and log would seem open."""
    libc().prctl(PR_SET_NAME, NAME, 0, 0, 0)
    for name in os.listdir("/proc/self/fd"):
        if int(name) != channel:
            try:
                os.close(int(name))
            except OSError:  # the one by which the directory was listed
                pass
    memory.leave_no_core()
    memory.hide()


def _end_all() -> None:
    """Kill all processes in reach, and return when none is left."""
    pause = FIRST_LOOK
    while True:
        try:
            os.kill(-1, SIGKILL)
        except OSError:  # none
            pass
        if not any(_is_left(int(name)) for name in os.listdir("/proc") if name.isdigit()):
            return
        time.sleep(pause)
        pause = min(2 * pause, LOOK_AGAIN)


def _is_left(pid: int) -> bool:
    """Return whether it is in reach and still has a thread that runs; who has to wait for it is not our concern."""
    if pid == os.getpid() or not _reaches(pid):
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # the name may contain anything
        return fields[0] not in (b"Z", b"X") or int(fields[17]) > 1  # its state, and how many threads it has
    except (OSError, IndexError, ValueError):  # it has ended
        return False


def _reaches(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
