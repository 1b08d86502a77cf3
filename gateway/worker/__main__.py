"""Start of a worker: tie its life to the gateway's, shake hands, load, serve until the channel ends."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1
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


async def run(sock: socket.socket) -> int:
    from .server import Server

    server = Server(asyncio.get_running_loop())
    return await server.serve(sock)


def main() -> None:
    sock = tie_to_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole terminal; the gateway decides
    sys.setswitchinterval(SWITCH_INTERVAL)
    try:
        import uvloop
    except ImportError:
        code = asyncio.run(run(sock))
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(run(sock))
    gc.disable()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of the model must not hold up the end


if __name__ == "__main__":
    main()
