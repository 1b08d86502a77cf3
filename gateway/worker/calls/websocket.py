"""A websocket in the worker: Starlette's WebSocket on top of `message` frames.

The gateway holds the connection and has already accepted it, as Truss's server does; the model gets a connected object.
Messages are msgpack lists: [kind, data]. The kinds are those of ASGI without their prefix.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from ...wire import frames
from ...wire.checks import is_close
from ...wire.values import decode, encode
from ...wording import counted

RECEIVE, DISCONNECT = "receive", "disconnect"  # from the client
SEND, CLOSE = "send", "close"  # from the model


class Socket:
    """The messages of one connection. The frame reader calls `put`, the model's task the other methods."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]], taken: Callable[[int], None]) -> None:
        self._send, self._taken = send, taken
        self._messages: asyncio.Queue[tuple[list[Any], int]] = asyncio.Queue()
        self.closed = False

    def put(self, payload: bytes) -> None:
        message = decode(payload)
        if message[0] == DISCONNECT:
            self.closed = True  # set here for models that only send
        self._messages.put_nowait((message, len(payload)))

    async def receive(self) -> dict[str, Any]:
        """Return one ASGI message. Its size is reported, so that the gateway reads more from the client."""
        (kind, data), size = await self._messages.get()
        self._taken(size)
        if kind == DISCONNECT:
            return {"type": "websocket.disconnect", "code": data or 1005}
        return {"type": "websocket.receive", **({"text": data} if isinstance(data, str) else {"bytes": data})}

    async def send(self, message: dict[str, Any]) -> None:
        """Send one ASGI message of the model. A second close, or a close after the client has left, is ignored."""
        kind = message["type"]
        if self.closed:
            if kind == "websocket.send":
                raise OSError("the websocket is closed")  # Starlette converts it to WebSocketDisconnect
        elif kind == "websocket.send":
            text = message.get("text")
            data = text if text is not None else message.get("bytes")
            if not isinstance(data, (str, bytes, bytearray, memoryview)):
                raise TypeError(f"a message of a websocket is text or bytes, not {type(data).__name__}")
            await self._send(encode([SEND, data]))
        elif kind == "websocket.close":
            code, reason = int(message.get("code", 1000)), str(message.get("reason") or "")
            if not is_close(code, reason):
                what = "1000 to 1003, 1007 to 1014 or 3000 to 4999 and at most 123 bytes of a reason"
                raise ValueError(
                    f"a websocket is closed with {what}, not with {code} and {counted(len(reason), 'character')}"
                )
            self.closed = True
            await self._send(encode([CLOSE, [code, reason]]))


async def run(method: Callable[[Any], Any], scope: frames.HTTPScope, socket: Socket, request_id: str) -> None:
    """Call the model's `websocket` with a connected WebSocket. A disconnect of the client is not an error."""
    from starlette.websockets import WebSocket, WebSocketDisconnect

    connected = False

    async def receive() -> dict[str, Any]:
        nonlocal connected
        if not connected:
            connected = True
            return {"type": "websocket.connect"}
        return await socket.receive()

    asgi = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "wss" if scope.scheme == "https" else "ws",
        "path": scope.path,
        "raw_path": scope.path.encode(),
        "query_string": scope.query,
        "root_path": "",
        "headers": list(scope.headers),
        "client": scope.client,
        "server": scope.server,
        "subprotocols": [],
        "state": {"request_id": request_id},
    }
    websocket = WebSocket(asgi, receive, cast(Any, socket.send))
    await websocket.accept()
    try:
        await method(websocket)
    except WebSocketDisconnect:
        socket.closed = True
