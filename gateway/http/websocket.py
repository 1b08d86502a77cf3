"""Websockets of models: the connection is held here and accepted at once, its messages travel as frames.

    /v1/websocket                 the sole model that has a `websocket`, or the default one
    /models/{id}/v1/websocket     that model

A connection takes a slot for as long as it is open. The model's end closes with 1000, its exception with 1011, a model
without the method with 1003: Truss's codes, and under strict parity its reasons. A key that has gone closes it with
1008, one that has made its calls with 1013; each message is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import wire
from ..call import NEVER, Call, ClientLeft
from ..errors import Draining, GatewayError, Overloaded, PermissionDenied, RateLimited, RouteNotSupported, Unauthorized
from .errors import body_of, explained
from .exchange import CLIENT_LEFT, Exchange
from .predict import http_scope
from .waiting import until_ready
from .websocket_protocol import SWITCHED, TERMS, terms_of

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub, Sees
    from ..shares import Shares
    from .access_log import AccessLog
    from .guards import Guard
    from .metrics import Metrics

SHARED, BASE = "/v1/websocket", "/models/"
NORMAL, UNSUPPORTED, POLICY, FAILED, RESTART, LATER = 1000, 1003, 1008, 1011, 1012, 1013
VANISHED = 1006  # of a client that has sent no close, or none that was read
LATER_RETRY = 10  # seconds
MAX_REASON = 123  # bytes of what a close may say
NOT_IMPLEMENTED = "WebSocket is not implemented on this deployment."
MODEL_FAILED = "Internal Server Error (in model/chainlet)."
OVERHEAD = 256  # bytes that a message is counted for beside what is in it
WINDOW, WINDOW_BYTES = 64, 256 * 1024  # messages of the client that the model has not taken yet, if there are several


class WebSockets:
    def __init__(self, hub: Hub, guard: Guard, metrics: Metrics, access: AccessLog | None) -> None:
        self._hub, self._guard, self._metrics, self._access = hub, guard, metrics, access

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection. What is refused before it is accepted is refused as an HTTP status."""
        exchange = Exchange({**scope, "method": "GET"}, receive, send)
        exchange.route = SHARED
        connection = getattr(send, "__self__", None)
        await receive()  # websocket.connect
        try:
            self._guard.check(exchange)
            model = self._find(exchange.path, exchange.sees)
            exchange.model, exchange.strict = model.name, model.spec.parity == "strict"
            exchange.count_in()
            if model.state != "ready":
                async with _leaving(exchange, receive):
                    await until_ready(exchange, model)
            if model.state == "ready" and not _has_method(model):
                exchange.status = SWITCHED
                self._metrics.rejected(exchange, RouteNotSupported(NOT_IMPLEMENTED))
                await send({"type": "websocket.accept"})
                await send({"type": "websocket.close", "code": UNSUPPORTED, "reason": NOT_IMPLEMENTED})
                return
            req = wire.Req("websocket", wire.DATA, True, "", exchange.request_id, route=SHARED)
            req.scope = http_scope(exchange, model)
            with model.call(req, b"") as call:
                farewell = call.limits.gap_timeout
                call.limits = replace(call.limits, gap_timeout=NEVER)  # a connection may be silent
                exchange.watch(call)
                async with _leaving(exchange, receive):
                    await call.first()
                exchange.status = SWITCHED
                await send({"type": "websocket.accept", TERMS: terms_of(model.spec)})
                code, reason = await _Bridge(call, receive, send, exchange, model.shares, farewell).run()
                await _close(send, code, reason)
        except ClientLeft:
            exchange.status = CLIENT_LEFT
        except GatewayError as error:
            exchange.status = error.status
            self._metrics.rejected(exchange, error)
            await _deny(send, scope, error)
        finally:
            if failure := getattr(connection, "failure", ""):  # in tests there may be none of ours
                exchange.error = failure
            exchange.was_lost = not exchange.error and getattr(connection, "was_lost", False)
            exchange.measure()
            exchange.count_out()
            self._metrics.observe(exchange)
            if self._access is not None:
                self._access.note(exchange)

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


@contextlib.asynccontextmanager
async def _leaving(exchange: Exchange, receive: Any) -> AsyncIterator[None]:
    """What is watched hears when the client leaves, which is all that one can say before it is accepted."""

    def heard(task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            exchange.client_left()

    left = asyncio.create_task(receive())
    left.add_done_callback(heard)
    try:
        yield
    finally:
        left.cancel()
        await asyncio.wait([left])


class _Bridge:
    """Messages of one connection, both ways, until one side ends it.

    A model whose client has left is told, and has `farewell` seconds to end before it is cancelled. So long it may take
    nothing, too, until somebody looks whether its client is still there.
    """

    def __init__(
        self, call: Call, receive: Any, send: Any, exchange: Exchange, shares: Shares, farewell: float
    ) -> None:
        self._call, self._receive, self._send, self._farewell = call, receive, send, farewell
        self._connection = getattr(send, "__self__", None)
        self._exchange, self._permits, self._shares = exchange, exchange.permits, shares
        self._sizes: deque[int] = deque()  # of the messages that the model has not taken, oldest first
        self._size = 0
        self._room = asyncio.Event()

    async def run(self) -> tuple[int, str]:
        """The code and the reason to close with."""
        self._call.on_credit = self._taken
        upward = asyncio.create_task(self._from_client())
        try:
            return await self._from_model()
        finally:
            upward.cancel()
            await asyncio.wait([upward])
            self._shares.let_go(self._size)

    def _taken(self, messages: int) -> None:
        for _ in range(min(messages, len(self._sizes))):
            size = self._sizes.popleft()
            self._size -= size
            self._shares.let_go(size)
        self._room.set()

    async def _from_client(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                await self._tell_left(message.get("code"))
                return
            try:
                if self._permits is not None:
                    self._permits.draw(time.monotonic())
            except RateLimited as error:
                self._call.abandon(error)
                return
            data = message.get("text")
            try:
                await self._pass_on(wire.encode(["receive", data if data is not None else message.get("bytes")]))
            except ClientLeft:
                await self._tell_left(VANISHED)
                return
            except TimeoutError:
                text = "models have too many messages to take"
                self._call.abandon(Overloaded(text, retry_after=LATER_RETRY, cause="max_queued_bytes"))
                return

    async def _tell_left(self, code: Any) -> None:
        self._call.send_message(wire.encode(["disconnect", code]))
        await asyncio.sleep(self._farewell)  # this task ends with the call
        self._call.client_left()

    async def _pass_on(self, payload: bytes) -> None:
        """Hand a message to the model when there is room for it; until then its client is not read.

        Raises:
            TimeoutError: all that models hold left none for as long as a call may wait.
            ClientLeft: the model takes nothing, and the client has gone; what it sent last is lost.
        """
        size = len(payload) + OVERHEAD
        while self._sizes and (len(self._sizes) >= WINDOW or self._size + size > WINDOW_BYTES):
            self._room.clear()
            try:
                async with asyncio.timeout(self._farewell):
                    await self._room.wait()
            except TimeoutError:
                if getattr(self._connection, "client_is_gone", False):  # in tests it may be none of ours
                    raise ClientLeft from None
        async with asyncio.timeout(self._call.limits.queue_timeout):
            await self._shares.hold(size)
        self._sizes.append(size)
        self._size += size
        self._call.send_message(payload)

    async def _from_model(self) -> tuple[int, str]:
        try:
            while (items := await self._call.take()) is not None:
                for kind, data in items:
                    if kind == "close":
                        return data[0], data[1]
                    key = "text" if isinstance(data, str) else "bytes"
                    await self._send({"type": "websocket.send", key: data})
        except GatewayError as error:
            self._exchange.error, self._exchange.cause = error.code, error.cause
            return self._told(error)
        return NORMAL, ""

    def _told(self, error: GatewayError) -> tuple[int, str]:
        """The code and the reason to close with, because of an error."""
        if isinstance(error, Draining):
            return RESTART, "the gateway is shutting down"
        if isinstance(error, Overloaded):
            return LATER, _short(f"{error.message}; try again in {math.ceil(error.retry_after or 1)} s")
        if isinstance(error, Unauthorized | PermissionDenied):
            return POLICY, _short(error.message)
        return FAILED, _reason(self._exchange, error)


def _reason(exchange: Exchange, error: GatewayError) -> str:
    """Why the model could not go on; of an exception no more than the way to it, short enough for a close."""
    if exchange.strict:
        return MODEL_FAILED
    if explained(error, exchange) is error:
        return _short(error.message)
    return _short(f"the model raised an error; `gateway logs {exchange.model}` shows request {exchange.request_id}")


def _short(reason: str) -> str:
    return reason.encode()[:MAX_REASON].decode("utf-8", "ignore")


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
