"""Start of a worker: tie its life to the gateway's, shake hands, load, serve until the channel ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys

from .. import memory
from . import forks, sandbox, terminal
from .sandbox_libc import libc

PR_SET_NAME = 15
SWITCH_INTERVAL = 0.001  # seconds; at the default of 5 ms a computing model keeps a cancel from being read for as long


def tie_to_parent() -> socket.socket:
    """The channel's socket, after making sure that the gateway's death is ours."""
    sandbox.tie_to_parent(int(os.environ["GW_PARENT_PID"]))
    fd = int(os.environ.pop("GW_FD"))
    # Or the model's own subprocesses would keep the channel open, and its end never come.
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def harden() -> str:
    """Lay down what a program loses when it becomes another one: the rest was, before this one, by `sandbox_start.py`.

    Returns why the model must not be loaded: its sandbox cannot be had.
    """
    refusal = os.environ.pop("GW_REFUSAL", "")
    memory.hide()  # after what needs the files of /proc
    sandbox.tie_to_parent(int(os.environ.pop("GW_PARENT_PID")))  # again: it does not outlive a change of credentials
    return refusal


def be_named() -> str:
    """Show the model's name, which the command line ends with, in `top` too; the model's code sees neither."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    del sys.argv[1:]
    if sys.platform == "linux":
        libc().prctl(PR_SET_NAME, f"gw:{name}".encode(), 0, 0, 0)  # the kernel keeps 15 bytes
    return name


async def run(sock: socket.socket, refusal: str, foreign: set[int]) -> int:
    """Serve. The descriptors of `foreign` were there before ours."""
    from .server import Server

    server = Server(asyncio.get_running_loop(), refusal)
    return await server.serve(sock, foreign)


def new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # in an environment of the model's own
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def main() -> None:
    sock = tie_to_parent()
    foreign = forks.open_descriptors() - {sock.fileno()}
    refusal = harden()
    terminal.begin(be_named())
    # Ctrl-C goes to the whole terminal; the gateway decides. Handled and not ignored: the model's child processes would
    # inherit that, and many a server is asked to end by this signal.
    signal.signal(signal.SIGINT, lambda number, frame: None)
    sys.setswitchinterval(SWITCH_INTERVAL)
    # Never closed, for that would wait for every thread of the model's; nor may they hold up the end.
    code = asyncio.Runner(loop_factory=new_loop).run(run(sock, refusal, foreign))
    gc.disable()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a model may have closed it
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
