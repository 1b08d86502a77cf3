"""uvicorn's websocket protocol with the pings that a model's config.yaml asks for.

`runtime.transport.ping_interval_seconds` and `.ping_timeout_seconds`, as under Truss's server, which passes them to
uvicorn; there they hold for the whole server, here for the connections of one model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from ..spec import ModelSpec

KEY = "pings"  # of our accept message: the seconds between two pings, and those that a pong may take


def pings_of(spec: ModelSpec) -> tuple[float | None, float | None]:
    """The two times of a model; None, or 0 as under Truss, leaves uvicorn's own."""
    transport = (spec.config.get("runtime") or {}).get("transport") or {}
    return transport.get("ping_interval_seconds"), transport.get("ping_timeout_seconds")


class PingingProtocol(WebSocketsSansIOProtocol):
    async def send(self, message: Any) -> None:
        interval, timeout = message.get(KEY, (None, None))
        self.ping_interval = interval or self.ping_interval
        self.ping_timeout = timeout or self.ping_timeout
        await super().send(message)
