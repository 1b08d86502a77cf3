"""Websockets of models: the connection is held here and accepted at once, its messages travel as frames.

    /v1/websocket                 the sole model that has a `websocket`, or the default one
    /models/{id}/v1/websocket     that model

A connection takes a slot for as long as it is open. The model's end closes with 1000, its exception with 1011, a model
without the method with 1003: Truss's codes and reasons.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import wire
from ..call import NEVER, Call
from ..errors import Draining, GatewayError, RouteNotSupported
from .errors import body_of
from .exchange import Exchange
from .pings import KEY, pings_of
from .predict import http_scope

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub, Sees
    from .guards import Guard

SHARED, BASE = "/v1/websocket", "/models/"
MAX_MESSAGE = 100 * 1024 * 1024  # bytes, as Truss's server takes
NORMAL, UNSUPPORTED, POLICY, FAILED, RESTART = 1000, 1003, 1008, 1011, 1012
NOT_IMPLEMENTED = "WebSocket is not implemented on this deployment."
MODEL_FAILED = "Internal Server Error (in model/chainlet)."
WINDOW = 64  # messages of the client that the model has not taken yet


class WebSockets:
    def __init__(self, hub: Hub, guard: Guard) -> None:
        self._hub, self._guard = hub, guard

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection. What is refused before it is accepted is refused as an HTTP status."""
        exchange = Exchange({**scope, "method": "GET"}, receive, send)
        await receive()  # websocket.connect
        try:
            self._guard.check(exchange)
            model = self._find(exchange.path, exchange.sees)
            exchange.count_in()
            if model.state == "ready" and not _has_method(model):
                await send({"type": "websocket.accept"})
                await send({"type": "websocket.close", "code": UNSUPPORTED, "reason": NOT_IMPLEMENTED})
                return
            req = wire.Req(
                "websocket", wire.DATA, True, "", exchange.request_id, False, None, http_scope(exchange, model)
            )
            with model.call(req, b"") as call:
                call.limits = replace(call.limits, gap_timeout=NEVER)  # a connection may be silent
                await call.first()
                await send({"type": "websocket.accept", KEY: pings_of(model.spec)})
                code, reason = await _Bridge(call, receive, send).run()
                await _close(send, code, reason)
        except GatewayError as error:
            await _deny(send, scope, error)
        finally:
            exchange.count_out()

    def _find(self, path: str, sees: Sees) -> HostedModel:
        """The model that a path means.

        Raises:
            UnknownModel, RouteNotSupported: none, or several.
        """
        if path != SHARED:
            if path.startswith(BASE) and path.endswith(SHARED):
                return self._hub.find(path[len(BASE) : -len(SHARED)], sees)
            raise RouteNotSupported(f"no websocket at {path[:200]}; use /models/NAME{SHARED}")
        models = self._hub.seen(sees)
        found = self._hub.sole([model for model in models if _has_method(model)]) or self._hub.sole(models)
        if found is None:
            have = ", ".join(f"{BASE}{model.name}{SHARED}" for model in models)
            raise RouteNotSupported(f"several models may be meant; use one of {have}")
        return found


def _has_method(model: HostedModel) -> bool:
    return any(method.name == "websocket" for method in model.capabilities.methods)


class _Bridge:
    """Messages of one connection, both ways, until one side ends it."""

    def __init__(self, call: Call, receive: Any, send: Any) -> None:
        self._call, self._receive, self._send = call, receive, send
        self._room = asyncio.Semaphore(WINDOW)

    async def run(self) -> tuple[int, str]:
        """The code and the reason to close with."""
        self._call.on_credit = self._taken
        upward = asyncio.create_task(self._from_client())
        try:
            return await self._from_model()
        finally:
            upward.cancel()

    def _taken(self, messages: int) -> None:
        for _ in range(messages):
            self._room.release()

    async def _from_client(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._call.send_message(wire.encode(["disconnect", message.get("code")]))
                return
            data = message.get("text")
            await self._room.acquire()
            self._call.send_message(wire.encode(["receive", data if data is not None else message.get("bytes")]))

    async def _from_model(self) -> tuple[int, str]:
        try:
            while (items := await self._call.take()) is not None:
                for kind, data in items:
                    if kind == "close":
                        return data[0], data[1]
                    key = "text" if isinstance(data, str) else "bytes"
                    await self._send({"type": "websocket.send", key: data})
        except Draining:
            return RESTART, "the gateway is shutting down"
        except GatewayError:
            return FAILED, MODEL_FAILED
        return NORMAL, ""


async def _close(send: Any, code: int, reason: str) -> None:
    with contextlib.suppress(RuntimeError):  # it is closed already
        await send({"type": "websocket.close", "code": code, "reason": reason})


async def _deny(send: Any, scope: Any, error: GatewayError) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": POLICY})
        return
    body = body_of(error, "openai", "")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
