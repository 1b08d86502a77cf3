"""Start a worker: make it end with the gateway, exchange hellos, load, serve until the channel ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys

from ..system import memory
from ..system.begun import Begun
from .loading import forks, terminal
from .sandbox import confine
from .sandbox.libc import libc

PR_SET_NAME = 15
SWITCH_INTERVAL = 0.001  # seconds; with the default of 5 ms, a computing model delays reading a cancel by that much


def tie_to_parent() -> tuple[socket.socket, Begun]:
    """Make this process die with the gateway. Returns the channel's socket and the page of begun calls."""
    confine.tie_to_parent(int(os.environ["GW_PARENT_PID"]))
    fd = int(os.environ.pop("GW_FD"))
    # Otherwise the model's subprocesses would keep the channel open, and its end would never be noticed.
    os.set_inheritable(fd, False)
    begun = Begun(int(os.environ.pop("GW_BEGUN")))
    begun.close_file()
    return socket.socket(fileno=fd), begun


def harden() -> str:
    """Apply the protections that exec resets; `sandbox/start.py` has applied the others before exec.

    Returns why the model must not be loaded, if its sandbox cannot be set up.
    """
    refusal = os.environ.pop("GW_REFUSAL", "")
    memory.hide()  # after everything that needs files in /proc
    confine.tie_to_parent(int(os.environ.pop("GW_PARENT_PID")))  # again: a change of credentials resets it
    return refusal


def be_named() -> str:
    """Show the model's name in `top`. The command line ends with the name; model code does not see it in `sys.argv`."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    del sys.argv[1:]
    if sys.platform == "linux":
        libc().prctl(PR_SET_NAME, f"gw:{name}".encode(), 0, 0, 0)  # the kernel keeps 15 bytes
    return name


async def run(sock: socket.socket, begun: Begun, refusal: str, foreign: set[int]) -> int:
    """Serve. `foreign` are file descriptors that were open before ours."""
    from .server import Server

    server = Server(asyncio.get_running_loop(), begun, refusal)
    return await server.serve(sock, foreign)


def new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # in the model's own virtual environment
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def main() -> None:
    gc.disable()  # until the model loads: what is imported before stays
    sock, begun = tie_to_parent()
    foreign = forks.open_descriptors() - {sock.fileno()}
    refusal = harden()
    memory.keep_freed()
    terminal.begin(be_named())
    # Ctrl-C goes to the whole terminal; the gateway decides. The signal is handled, not ignored: child processes of the
    # model would inherit that, and many servers are stopped with this signal.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    sys.setswitchinterval(SWITCH_INTERVAL)
    # The runner is never closed: that would wait for all threads of the model, which must not delay the exit.
    code = asyncio.Runner(loop_factory=new_loop).run(run(sock, begun, refusal, foreign))
    gc.disable()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the model may have closed it
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
