"""uvicorn with our protocol and settings. Its sockets and signals belong to `gateway/lifetime.py`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from .operators import Operators
from .protocol import GuardedProtocol
from .tls import Certificate
from .tls_handshakes import Handshakes
from .turns import Turns
from .websocket_protocol import WebSocketProtocol

if TYPE_CHECKING:
    from ..settings.schema import Settings
    from ..telemetry.histogram import Histogram

TICK = 0.1  # seconds, as in uvicorn's main loop
CLOSING = 10  # ticks between two checks for closed connections whose clients have not read the buffered data
LAST_RESORT = 3600  # seconds; uvicorn's limit would cut streams without ending them, so the gateway's own comes first


class GatewayServer(uvicorn.Server):
    """A server that ignores signals: its caller decides when it ends, and with which status."""

    def __init__(
        self, config: uvicorn.Config, admin: socket.socket | None = None, certificate: Certificate | None = None
    ) -> None:
        super().__init__(config)
        self._admin, self.certificate = admin, certificate
        self._handshakes: Handshakes | None = None
        self._operators: Operators | None = None
        self._lag: Histogram = config.app.lag  # type: ignore[union-attr]
        self._due = 0.0
        self.accepting = asyncio.Event()
        self.closing = asyncio.Event()  # set when the listener and idle connections are closed

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets if self.certificate is None else [])
        if self.certificate is not None:
            self._handshakes = self._begin_tls(self.certificate, sockets or [])
        if self._admin is not None:
            self._operators = Operators(self._admin, self._protocol, self._guarded.refused)
        self.accepting.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._operators is not None:
            await self._operators.close()
        if self._handshakes is not None:
            await self._handshakes.close()
        else:
            for sock in sockets or ():
                await self._accept_rest(sock)
        # uvicorn closes everything before its first await, so this runs afterwards
        asyncio.get_running_loop().call_soon(self.closing.set)
        await super().shutdown(sockets)

    def _begin_tls(self, certificate: Certificate, sockets: list[socket.socket]) -> Handshakes:
        protocol = self._guarded
        handshakes = Handshakes(
            certificate.context,
            self._protocol,
            self.server_state.connections,
            max_connections=protocol.max_connections,
            timeout=protocol.head_timeout,
            refused=protocol.refused,
        )
        for sock in sockets:
            handshakes.listen(sock)
        return handshakes

    async def _accept_rest(self, sock: socket.socket) -> None:
        """Accept the connections that the kernel has already accepted. Closing the listener would reset them."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = sock.accept()
            except OSError:  # no more connections
                return
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                await loop.connect_accepted_socket(self._protocol, connection)

    @property
    def _guarded(self) -> type[GuardedProtocol]:
        return self.config.http_protocol_class  # type: ignore[return-value]

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def on_tick(self, counter: int) -> bool:
        now = asyncio.get_running_loop().time()
        if counter:
            self._lag.add(max(0.0, now - self._due))
        self._due = now + TICK
        if not counter % CLOSING:
            for connection in self.server_state.connections:
                if connection.transport.is_closing():
                    connection.watch_rest()  # type: ignore[union-attr]
        return await super().on_tick(counter)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # uvicorn's own raises the signal again after serve(): exit status -15, and no code after it runs


def make_server(app: Any, settings: Settings, admin: socket.socket | None = None) -> GatewayServer:
    """Return the server of the app. `admin` is a second listener, for operators.

    Raises:
        ConfigError: the certificate cannot be used.
    """
    gateway = settings.gateway
    certificate = Certificate(gateway.tls_cert, gateway.tls_key) if gateway.tls_cert is not None else None
    turns = Turns()
    protocol = type(
        "Protocol",
        (GuardedProtocol,),
        {
            "head_timeout": gateway.head_timeout,
            "body_timeout": gateway.body_timeout,
            "send_timeout": gateway.send_timeout,
            "max_connections": gateway.max_connections or default_connections(),
            "begin": staticmethod(app.begin),
            "refused": app.refused,
            "turns": turns,
        },
    )
    websocket = {"send_timeout": gateway.send_timeout, "refused": app.refused, "turns": turns}
    config = uvicorn.Config(
        app,
        http=protocol,
        ws=type("WebSocket", (WebSocketProtocol,), websocket),
        ws_max_size=gateway.limits.max_message,
        ws_per_message_deflate=False,  # a few compressed bytes may become gigabytes
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(gateway.keep_alive),
        timeout_graceful_shutdown=LAST_RESORT,
    )
    return GatewayServer(config, admin, certificate)


def default_connections() -> int:
    """Return a quarter of the open files limit, at most 1024. The rest is for workers, logs and health checks."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(1024, soft // 4) if soft > 0 else 1024
