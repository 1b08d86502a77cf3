"""uvicorn, started by us: our sockets, our signals, our exit code."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from ..errors import ConfigError
from ..settings import is_loopback
from .protocol import GuardedProtocol

if TYPE_CHECKING:
    from ..settings import Settings

BACKLOG = 2048
LAST_RESORT = 3600  # seconds; uvicorn's own limit would cut streams without ending them, ours comes first


class GatewayServer(uvicorn.Server):
    """A server whose `serve` returns, so that the code after it runs and the exit status is ours."""

    def __init__(self, config: uvicorn.Config, on_signal: Callable[[int], None]) -> None:
        super().__init__(config)
        self._on_signal = on_signal

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own re-raises the signal after serve(): exit -15, and nothing after it runs.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def make_server(app: Any, settings: Settings, on_signal: Callable[[int], None]) -> GatewayServer:
    gateway = settings.gateway
    protocol = type(
        "Protocol",
        (GuardedProtocol,),
        {
            "head_timeout": gateway.head_timeout,
            "max_connections": gateway.max_connections or default_connections(),
            "begin": staticmethod(app.begin),
        },
    )
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(gateway.keep_alive),
        timeout_graceful_shutdown=LAST_RESORT,
    )
    return GatewayServer(config, on_signal)


def default_connections() -> int:
    """A quarter of the files we may open, at most 1024: the rest is for workers, logs and health."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(1024, soft // 4) if soft > 0 else 1024


def bind(host: str, port: int) -> list[socket.socket]:
    """The listening sockets, bound before any worker is spawned; on loopback both families, as far as there are.

    Raises:
        ConfigError: the address is taken or is not ours.
    """
    hosts = ["127.0.0.1", "::1"] if host in ("127.0.0.1", "localhost") else [host]
    sockets: list[socket.socket] = []
    for number, name in enumerate(hosts):
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            continue
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((name, port))
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            if number > 0:  # no IPv6 here, or somebody else has that port there
                continue
            for other in sockets:
                other.close()
            hint = "another process listens there; choose one with --port" if error.errno == 98 else str(error)
            raise ConfigError(f"cannot listen on {name}:{port}: {hint}") from error
        sock.setblocking(False)
        port = port or sock.getsockname()[1]
        sockets.append(sock)
    return sockets


def url_of(host: str, port: int) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{'127.0.0.1' if is_loopback(host) and host == 'localhost' else shown}:{port}"
