"""A process that the model forks is a process of the model's own, and nothing of its worker.

It has the signal actions that Python begins with, holds no descriptor of the worker's channel or loop, and ends where
its code comes back out of the model's: it must not answer for the worker. Processes that are executed anew, such as
those of the start methods spawn and forkserver, inherit nothing of all this.
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

from .failures import say

# What the worker and its loop handle, and what a process does with it that nobody has told otherwise.
USUAL: dict[signal.Signals, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
    signal.SIGCHLD: signal.SIG_DFL,  # libuv's, which Python knows nothing of
}


class Forks:
    """Made on the loop's thread, when the loop has its descriptors and no code of the model has run.

    `descriptors` are the worker's own. `doors` are objects with the names of their methods that lead to the gateway:
    in a forked process, each of them ends it.
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

    def _hold_signals(self) -> None:
        """A signal that comes for the child right after its birth waits until it is ready, and is not ours."""
        self._blocked.before = signal.pthread_sigmask(signal.SIG_BLOCK, USUAL)

    def _let_signals_through(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked.before)

    def _become_ordinary(self) -> None:
        signal.set_wakeup_fd(-1)
        for number, action in USUAL.items():
            if signal.getsignal(number) == self._handlers[number]:  # else the model has set one of its own
                signal.signal(number, action)
        self._let_signals_through()
        asyncio._set_running_loop(None)
        for owner, name in self._doors:
            setattr(owner, name, leave)
        if threading.get_ident() == self._thread:  # the loop's turn will come when the code awaits something
            self._loop.call_soon(leave)
        self._let_go_of_descriptors()

    def _let_go_of_descriptors(self) -> None:
        """Replaced and not closed: the numbers are remembered by objects that would close whoever has them next."""
        with open(os.devnull, "r+b", buffering=0) as nothing, contextlib.closing(_new_poller()) as poller:
            for fd, is_epoll in self._descriptors.items():
                os.dup2(poller.fileno() if is_epoll else nothing.fileno(), fd, inheritable=False)


def leave(*args: Any) -> NoReturn:
    """End the forked process as its code came back: with what that raised, if it raised.

    Nothing that is to run at exit does, for it was registered in the worker. `args` are those of the door that it went
    through.
    """
    error = next((value for value in args if isinstance(value, BaseException)), None)
    raised = error or sys.exception()  # without the first, it has been printed
    code: Any = 1
    if isinstance(raised, SystemExit):
        code = raised.code
    elif error is not None:
        say("".join(traceback.format_exception(error)).rstrip())
    elif raised is None:
        say("a process that the model forked came back from the model's code; it ends here")
        code = 0
    if code is not None and not isinstance(code, int):  # as Python does with it
        say(str(code))
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit((code or 0) & 0xFF)


def open_descriptors() -> set[int]:
    """Those of this process beyond its standard streams; none where the system does not list them."""
    for listing in (Path("/proc/self/fd"), Path("/dev/fd")):
        with contextlib.suppress(OSError):
            return {int(name) for name in os.listdir(listing) if int(name) > 2 and _is_open(int(name))}
    return set()


def _is_open(fd: int) -> bool:
    """Not that of the listing itself."""
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
