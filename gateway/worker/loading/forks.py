"""Turn processes that the model forks into ordinary processes, independent of the worker.

A forked process has Python's default signal actions and no descriptor of the worker's channel or event loop. It ends
when its code returns from the model's code, so that it cannot answer for the worker. Processes started with exec, such
as those of the start methods spawn and forkserver, are not affected.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from ..bodies.failures import say

# The signals that the worker and its loop handle, and their defaults in a Python process.
USUAL: dict[signal.Signals, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
    signal.SIGCHLD: signal.SIG_DFL,  # set by libuv, unknown to Python
}


class Forks:
    """Create it on the event loop's thread, after the loop has its descriptors and before any code of the model runs.

    `descriptors` are the worker's own. `doors` are objects and names of their methods that lead to the gateway: in a
    forked process, calling one ends the process.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, descriptors: Iterable[int], doors: Iterable[tuple[Any, str]]
    ) -> None:
        self._loop, self._thread = loop, threading.get_ident()
        self._descriptors = {fd: _is_epoll(fd) for fd in descriptors}
        self._doors = list(doors)
        self._handlers = {number: signal.getsignal(number) for number in USUAL}
        self._blocked = threading.local()
        os.register_at_fork(
            before=self._hold_signals, after_in_parent=self._let_signals_through, after_in_child=self._become_ordinary
        )

    def guard(self, owner: Any, name: str) -> None:
        """Add a door."""
        self._doors.append((owner, name))

    def _hold_signals(self) -> None:
        """Block signals during the fork: one for the child must wait until the child's handlers are set."""
        self._blocked.before = signal.pthread_sigmask(signal.SIG_BLOCK, USUAL)

    def _let_signals_through(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked.before)

    def _become_ordinary(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, action in USUAL.items():
            if signal.getsignal(number) == self._handlers[number]:  # otherwise the model has set its own
                signal.signal(number, action)
        self._let_signals_through()
        asyncio._set_running_loop(None)
        for owner, name in self._doors:
            setattr(owner, name, leave)
        if threading.get_ident() == self._thread:  # runs when the code awaits something
            self._loop.call_soon(leave)
        self._let_go_of_descriptors()

    def _let_go_of_descriptors(self) -> None:
        """Replace the descriptors. If they were closed, objects that remember the numbers would close reused ones."""
        with open(os.devnull, "r+b", buffering=0) as nothing, contextlib.closing(_new_poller()) as poller:
            for fd, is_epoll in self._descriptors.items():
                os.dup2(poller.fileno() if is_epoll else nothing.fileno(), fd, inheritable=False)


def leave(*args: Any) -> NoReturn:
    """End the forked process as if its code had returned or raised.

    atexit functions do not run, because they were registered in the worker. `args` are those of the method that was
    called.
    """
    error = next((value for value in args if isinstance(value, BaseException)), None)
    raised = error or sys.exception()  # without `error`, it has been printed already
    code: Any = 1
    if isinstance(raised, SystemExit):
        code = raised.code
    elif error is not None:
        say("".join(traceback.format_exception(error)).rstrip())
    elif raised is None:
        say("a process that the model forked returned from the model's code; it ends here")
        code = 0
    if code is not None and not isinstance(code, int):  # as Python does
        say(str(code))
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit((code or 0) & 0xFF)


def open_descriptors() -> set[int]:
    """Return the descriptors of this process except standard streams; empty if the system does not list them."""
    for listing in (Path("/proc/self/fd"), Path("/dev/fd")):
        with contextlib.suppress(OSError):
            return {int(name) for name in os.listdir(listing) if int(name) > 2 and _is_open(int(name))}
    return set()


def _is_open(fd: int) -> bool:
    """Return whether it is open; that of the listing itself is closed by now."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _is_epoll(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventpoll]"
    except OSError:
        return False


def _new_poller() -> Any:
    return select.epoll() if hasattr(select, "epoll") else open(os.devnull, "rb")
