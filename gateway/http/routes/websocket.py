"""Websockets of models: the connection is accepted and held here, and its messages are sent to the worker as frames.

    /v1/websocket                 the sole model that has a `websocket`, or the default one
    /models/{id}/v1/websocket     that model

A connection holds a slot while it is open. The close codes are Truss's: 1000 if the model ends, 1011 for an exception,
1003 for a model without the method. With strict parity the reasons are Truss's too. A revoked key closes the connection
with 1008, a key over its limit with 1013; each message counts as a call.
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

from ...errors import Draining, GatewayError, Overloaded, PermissionDenied, RateLimited, RouteNotSupported, Unauthorized
from ...runners.call import Call
from ...runners.pending import NEVER, ClientLeft
from ...telemetry.redaction import cut
from ...wire import frames
from ...wire.values import encode
from ..errors import body_of, explained
from ..exchange import CLIENT_LEFT, Exchange
from ..guards import check_scope
from ..request_cycle import COPIED
from ..route_table import answered_by
from ..websocket_protocol import GOES_ON, ROOM, SWITCHED, TAKEN, TERMS, terms_of
from .predict import http_scope
from .wait_for_model import until_ready

if TYPE_CHECKING:
    from ...admission.messages import Messages
    from ...hosting.catalog import Catalog, Sees
    from ...hosting.model import HostedModel
    from ..access_log import AccessLog
    from ..guards import Guard
    from ..metrics.requests import Metrics

ROUTE = answered_by("websockets")
SHARED, BASE = ROUTE.template, "/models/"
NORMAL, UNSUPPORTED, POLICY, FAILED, RESTART, LATER = 1000, 1003, 1008, 1011, 1012, 1013
VANISHED = 1006  # the client sent no close frame, or none that was read
MAX_REASON = 123  # maximum bytes of a close reason
NOT_IMPLEMENTED = "WebSocket is not implemented on this deployment."
MODEL_FAILED = "Internal Server Error (in model/chainlet)."
OVERHEAD = 256  # bytes added to the size of a message for its overhead
WINDOW, WINDOW_BYTES = 64, 256 * 1024  # maximum messages, and bytes, that the model has not taken yet


class WebSockets:
    def __init__(self, catalog: Catalog, guard: Guard, metrics: Metrics, access: AccessLog | None) -> None:
        self._catalog, self._guard, self._metrics, self._access = catalog, guard, metrics, access

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one connection. Refusals before it is accepted are HTTP statuses."""
        exchange = Exchange({**scope, "method": "GET"}, receive, send)
        exchange.route = ROUTE.route
        connection = getattr(send, "__self__", None)
        await receive()  # websocket.connect
        try:
            self._guard.check(exchange)
            if exchange.permits is not None:
                exchange.row = ROUTE
                check_scope(exchange)
            model = self._find(exchange.path, exchange.sees)
            exchange.counted_for, exchange.strict = model.name, model.spec.parity == "strict"
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
            req = frames.Req("websocket", frames.DATA, True, "", exchange.request_id, route=SHARED)
            req.scope = http_scope(exchange, model)
            with model.call(req, b"") as call:
                farewell = call.limits.gap_timeout
                call.limits = replace(call.limits, gap_timeout=NEVER)  # a connection may be silent for any time
                exchange.watch(call)
                async with _leaving(exchange, receive):
                    await call.first()
                exchange.status = SWITCHED
                room = model.shares.messages, call.limits.queue_timeout
                await send({"type": "websocket.accept", TERMS: terms_of(model.spec), ROOM: room})
                code, reason = await _Bridge(call, receive, send, exchange, room[0], farewell).run()
                await _close(send, code, reason)
        except ClientLeft:
            exchange.status = CLIENT_LEFT
        except GatewayError as error:
            exchange.status = error.status
            self._metrics.rejected(exchange, error)
            await _deny(send, scope, error)
        finally:
            if failure := getattr(connection, "failure", ""):  # tests may use another protocol class
                exchange.error, exchange.cause = failure, getattr(connection, "cause", "")
            exchange.was_lost = not exchange.error and getattr(connection, "was_lost", False)
            exchange.measure()
            exchange.count_out()
            self._metrics.observe(exchange)
            if self._access is not None:
                self._access.note(exchange)

    def _find(self, path: str, sees: Sees) -> HostedModel:
        """Return the model for a path.

        Raises:
            UnknownModel, RouteNotSupported: no model, or several.
        """
        if path != SHARED:
            if path.startswith(BASE) and path.endswith(SHARED):
                return self._catalog.find(path[len(BASE) : -len(SHARED)], sees)
            raise RouteNotSupported(f"no websocket at {cut(path, 200)}; use /models/NAME{SHARED}")
        models = self._catalog.seen(sees)
        found = self._catalog.sole([model for model in models if _has_method(model)]) or self._catalog.sole(models)
        if found is None:
            have = ", ".join(f"{BASE}{model.name}{SHARED}" for model in models)
            raise RouteNotSupported(f"several models match; use one of {have}")
        return found


def _has_method(model: HostedModel) -> bool:
    return any(method.name == "websocket" for method in model.capabilities.methods)


@contextlib.asynccontextmanager
async def _leaving(exchange: Exchange, receive: Any) -> AsyncIterator[None]:
    """Notify the watched call if the client disconnects, the only event before a connection is accepted."""

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
    """Passes messages of one connection both ways, until one side ends it.

    If the client leaves, the model is notified and has `farewell` seconds to end before it is cancelled. If the model
    takes no messages for that long, the bridge checks whether the client is still connected.
    """

    def __init__(
        self, call: Call, receive: Any, send: Any, exchange: Exchange, messages: Messages, farewell: float
    ) -> None:
        self._call, self._receive, self._send, self._farewell = call, receive, send, farewell
        self._connection = getattr(send, "__self__", None)
        self._exchange, self._permits, self._messages = exchange, exchange.permits, messages
        self._sizes: deque[int] = deque()  # sizes of messages that the model has not taken, oldest first
        self._size = 0
        self._room = asyncio.Event()

    async def run(self) -> tuple[int, str]:
        """Run until the end. Return the close code and reason."""
        self._call.on_credit = self._taken
        upward = asyncio.create_task(self._from_client())
        try:
            return await self._from_model()
        finally:
            upward.cancel()
            await asyncio.wait([upward])
            self._messages.let_go(self._size)

    def _taken(self, messages: int) -> None:
        for _ in range(min(messages, len(self._sizes))):
            size = self._sizes.popleft()
            self._size -= size
            self._messages.let_go(size)
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
            payload = encode(["receive", data if data is not None else message.get("bytes")])
            self._messages.add(len(payload) + OVERHEAD)
            message.get(TAKEN, _nothing)()
            del message, data  # otherwise they would be held beside the payload
            try:
                await self._pass_on(payload)
            except ClientLeft:
                await self._tell_left(VANISHED)
                return

    async def _tell_left(self, code: Any) -> None:
        self._call.send_message(encode(["disconnect", code]))
        await asyncio.sleep(self._farewell)  # cancelled when the call ends
        self._call.client_left()

    async def _pass_on(self, payload: bytes) -> None:
        """Send a message, which is counted, to the model when there is room. Until then the client is not read.

        Raises:
            ClientLeft: the model takes no messages and the client has left; its last message is lost.
        """
        size, is_sent = len(payload) + OVERHEAD, False
        try:
            while self._sizes and (len(self._sizes) >= WINDOW or self._size + size > WINDOW_BYTES):
                self._room.clear()
                try:
                    async with asyncio.timeout(self._farewell):
                        await self._room.wait()
                except TimeoutError:
                    if getattr(self._connection, "client_is_gone", False):  # tests may use another protocol class
                        raise ClientLeft from None
            is_sent = True
        finally:
            if not is_sent:
                self._messages.let_go(size)
        self._sizes.append(size)
        self._size += size
        self._call.send_message(payload)

    async def _from_model(self) -> tuple[int, str]:
        try:
            while (items := await self._call.take()) is not None:
                for kind, data in items:
                    self._exchange.check_permission()
                    if kind == "close":
                        return data[0], data[1]
                    await self._hand_over(data)
            self._exchange.check_permission()  # its end is not that of a model which has said all
        except GatewayError as error:
            self._exchange.error, self._exchange.cause = error.code, error.cause
            return self._told(error)
        return NORMAL, ""

    async def _hand_over(self, data: str | bytes) -> None:
        """Send a message, a large one in parts. Between two parts other connections get their turn.

        Raises:
            GatewayError: the caller has lost its permission.
        """
        key = "text" if isinstance(data, str) else "bytes"
        if len(data) <= COPIED or not getattr(self._connection, "sends_parts", False):  # tests may use another class
            await self._send({"type": "websocket.send", key: data})
            return
        whole = memoryview(data.encode() if isinstance(data, str) else data)
        for start in range(0, len(whole), COPIED):
            self._exchange.check_permission()
            goes_on = start + COPIED < len(whole)
            await self._send({"type": "websocket.send", key: whole[start : start + COPIED], GOES_ON: goes_on})
            await asyncio.sleep(0)

    def _told(self, error: GatewayError) -> tuple[int, str]:
        """Return the close code and reason for an error."""
        if isinstance(error, Draining):
            return RESTART, "the gateway is shutting down"
        if isinstance(error, Overloaded):
            return LATER, _short(f"{error.message}; try again in {math.ceil(error.retry_after or 1)} s")
        if isinstance(error, Unauthorized | PermissionDenied):
            return POLICY, _short(error.message)
        return FAILED, _reason(self._exchange, error)


def _nothing() -> None:
    """Messages of another protocol class are counted nowhere else."""


def _reason(exchange: Exchange, error: GatewayError) -> str:
    """Return why the model failed, short enough for a close frame. An exception is replaced by where to find it."""
    if exchange.strict:
        return MODEL_FAILED
    if explained(error, exchange) is error:
        return _short(error.message)
    return _short(
        f"the model raised an error; `gateway logs {exchange.counted_for}` shows request {exchange.request_id}"
    )


def _short(reason: str) -> str:
    return reason.encode()[:MAX_REASON].decode("utf-8", "ignore")


async def _close(send: Any, code: int, reason: str) -> None:
    with contextlib.suppress(RuntimeError):  # already closed
        await send({"type": "websocket.close", "code": code, "reason": reason})


async def _deny(send: Any, scope: Any, error: GatewayError) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": POLICY})
        return
    body = body_of(error, "openai", "")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "websocket.http.response.start", "status": error.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
