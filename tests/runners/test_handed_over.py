"""Open files that a worker hands over with its bytes: the gateway would close them, which may take long."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.system.socket_peers import take_no_files

from .started import started

pytestmark = pytest.mark.anyio

GIVING = """
    import array, os, socket, stat, struct

    from gateway.wire.frames import HEADER, PING, Ping
    from gateway.wire.values import encode

    class Model:
        def predict(self, x): return x
        async def give(self, x):
            "What becomes of a file that is handed over each socket that leads to the gateway."
            found, ping = {}, encode(Ping(number=1, lag=0.0))
            for fd in map(int, os.listdir("/proc/self/fd")):
                try: is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
                except OSError: continue  # that of the listing
                if not is_socket: continue
                with socket.socket(fileno=os.dup(fd)) as way, open("/dev/null") as file:
                    if way.family != socket.AF_UNIX: continue
                    peer = way.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                    if struct.unpack("3i", peer)[0] != os.getppid(): continue
                    handed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file.fileno()]))]
                    try: way.sendmsg([HEADER.pack(len(ping), PING, 0), ping], handed)
                    except OSError as error: found[str(fd)] = type(error).__name__
                    else: found[str(fd)] = "taken"
            return found
    """


async def test_no_way_to_the_gateway_takes_an_open_file(tmp_path: Path) -> None:
    """But for the channel, where the kernel is older than 6.16."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        can_refuse = take_no_files(ours)
    async with started(tmp_path / "m", GIVING, "give") as found:
        given = await found.ask("give")
        assert list(given.values()) == ["PermissionError" if can_refuse else "taken"], "the channel, and no other"
        assert await found.ask("give") == given, "the worker goes on"
