"""Start of a worker: tie its life to the gateway's, shake hands, load, serve until the channel ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import signal
import socket
import sys
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
OOM_SCORE = "500"  # when memory runs out, a worker goes before the gateway
SWITCH_INTERVAL = 0.001  # seconds; at the default of 5 ms a computing model keeps a cancel from being read for as long


def tie_to_parent() -> socket.socket:
    """The channel's socket, after making sure that the gateway's death is ours."""
    parent = int(os.environ.pop("GW_PARENT_PID"))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before prctl
    fd = int(os.environ.pop("GW_FD"))
    # Or the model's own subprocesses would keep the channel open, and its end never come.
    os.set_inheritable(fd, False)
    return socket.socket(fileno=fd)


def limit_accidents() -> None:
    """No core dumps of weights and prompts, no new privileges; no boundary against a model that means harm."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)


async def run(sock: socket.socket) -> int:
    from .server import Server

    server = Server(asyncio.get_running_loop())
    return await server.serve(sock)


def new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # in an environment of the model's own
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def main() -> None:
    sock = tie_to_parent()
    limit_accidents()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole terminal; the gateway decides
    sys.setswitchinterval(SWITCH_INTERVAL)
    # Never closed, for that would wait for every thread of the model's; nor may they hold up the end.
    code = asyncio.Runner(loop_factory=new_loop).run(run(sock))
    gc.disable()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a model may have closed it
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
