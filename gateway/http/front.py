"""The outermost layer: guard, dispatch, and the one place where an error becomes an answer.

Paths of models go straight to their handlers, past Litestar's router and wrappers, which cost more than all the rest of
a predict. Everything else, plugins' routes included, goes on to Litestar, inside the same guard.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..call import ClientLeft
from ..errors import GatewayError, PermissionDenied, Unavailable
from . import errors, kin, orders
from .exchange import CLIENT_LEFT, REFUSED, SEES, Exchange, spawn
from .guards import HEALTH, costs
from .protocol import cycle_of
from .stall import SEND_TIMEOUT

if TYPE_CHECKING:
    from ..hub import Hub
    from .access_log import AccessLog
    from .guards import Guard
    from .metrics import Metrics
    from .routing import Routes
    from .websocket import WebSockets

log = logging.getLogger("gateway.http")
Handler = Callable[[Exchange], Awaitable[None]]
PREDICT_ENDINGS = ("/predict", ":predict", ":predict_binary")


class Front:
    """The ASGI app that uvicorn runs."""

    def __init__(
        self,
        hub: Hub,
        inner: Any,
        guard: Guard,
        routes: Routes,
        metrics: Metrics,
        websockets: WebSockets,
        observer: Callable[[Mapping[str, Any]], None] | None = None,
        access: AccessLog | None = None,
    ) -> None:
        self._hub = hub
        self._inner, self._guard, self._routes, self._metrics = inner, guard, routes, metrics
        self._websockets, self._observer, self._access = websockets, observer, access
        self.lag, self.refused = metrics.lag, metrics.refused

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._websockets(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, cycle_of(send))
        try:
            try:
                self._guard.check(exchange)
            except GatewayError as error:
                self._routes.name(exchange)
                if isinstance(error, PermissionDenied):
                    orders.tell_refused(exchange, error)
                raise
            handler = self._routes.find(exchange)
            if exchange.permits is not None and costs(exchange):
                exchange.count_in()
            if exchange.method != "POST":
                await kin.check_question(exchange, self._hub)
            if handler is not None:
                await handler(exchange)
            else:
                await self._hand_inwards(exchange, receive)
        except ClientLeft:
            exchange.status = CLIENT_LEFT
        except Exception as error:
            await self._answer(exchange, error)
        finally:
            self._end(exchange)

    def begin(self, scope: Any, cycle: Any) -> bool:
        """Start a predict whose body is here, to be answered by its worker's frame: no task, no future.

        False: it is none, and goes the way of all others.
        """
        if scope["method"] != "POST" or not scope["path"].endswith(PREDICT_ENDINGS):
            return False
        exchange = Exchange(scope, cycle.receive, cycle.send, cycle)
        try:
            try:
                self._guard.check(exchange)
            except GatewayError:
                self._routes.name(exchange)
                raise
            handler = self._routes.find(exchange)
            if handler is not self._routes.predict:
                return False
            if exchange.permits is not None:
                exchange.count_in()
            self._routes.predict.begin(exchange, self._finish)
        except Exception as error:
            self._finish(exchange, error)
        return True

    def _finish(self, exchange: Exchange, error: BaseException | None) -> None:
        """The end of a request that `begin` started."""
        if error is None:
            self._end(exchange)
        elif isinstance(error, ClientLeft):
            exchange.status = CLIENT_LEFT
            self._end(exchange)
        else:
            spawn(self._refuse(exchange, error))

    async def _refuse(self, exchange: Exchange, error: BaseException) -> None:
        try:
            await self._answer(exchange, error)
        finally:
            self._end(exchange)

    def _end(self, exchange: Exchange) -> None:
        exchange.unwatch()
        if not exchange.has_run:
            exchange.measure()
        if exchange.cycle is not None and exchange.cycle.flow.write_paused:
            spawn(self._close_later(exchange))
        else:
            self._close(exchange)

    async def _close_later(self, exchange: Exchange) -> None:
        """A large answer is held here until its client has taken it: so long it is one of those at once, and how it
        ends is not known."""
        try:
            await exchange.taken()
        finally:
            self._close(exchange)

    def _close(self, exchange: Exchange) -> None:
        connection = exchange.connection
        if connection is not None and connection.stall is not None and connection.stall.has_cut_off:
            exchange.error = SEND_TIMEOUT
        if exchange.permits is not None:
            exchange.count_out()
        if self._metrics.observe(exchange) and self._observer is not None:
            self._observer(record_of(exchange))
        if self._access is not None:
            self._access.note(exchange)

    async def _answer(self, exchange: Exchange, error: BaseException) -> None:
        try:
            await self._say(exchange, error)
        except Exception as failed:
            log.error("request %s failed", exchange.request_id, exc_info=failed, extra=_fields(exchange))
            if exchange.status:
                exchange.break_off()
            else:  # nothing was written yet, and a client whose error has no form waits for one all the same
                await errors.answer(exchange, errors.unexpected(failed))

    async def _say(self, exchange: Exchange, error: BaseException) -> None:
        if exchange.status:  # the answer has begun; whoever began it has ended it too
            errors.broke_off(error, exchange)
            return
        if not isinstance(error, GatewayError):
            log.error("request %s failed", exchange.request_id, exc_info=error, extra=_fields(exchange))
            error = errors.unexpected(error)
        self._metrics.rejected(exchange, error)
        error = errors.explained(error, exchange)
        if error.status >= 500 and not isinstance(error, Unavailable):  # those come as fast as clients ask
            log.warning(
                "request %s to %s: %s", exchange.request_id, exchange.path, error.message, extra=_fields(exchange)
            )
        await errors.answer(exchange, error)

    def _note_refusal(self, exchange: Exchange, error: GatewayError) -> None:
        """Litestar, or a route of a plugin, answers this error."""
        self._metrics.rejected(exchange, error)

    async def _hand_inwards(self, exchange: Exchange, receive: Any) -> None:
        """To Litestar, which answers HEAD as GET: the server leaves the body out."""

        async def with_common_headers(message: Any) -> None:
            if exchange.is_over:
                exchange.break_off()
                return
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", []))
                present = {name.lower() for name, _ in headers}
                headers += [pair for pair in exchange.common if pair[0] not in present]
                message = {**message, "headers": headers}
                exchange.status = message["status"]
            await exchange.send(message)

        method = "GET" if exchange.method == "HEAD" else exchange.method
        scope = {**exchange.scope, "method": method, "gateway.request_id": exchange.request_id, SEES: exchange.sees}
        scope[REFUSED] = partial(self._note_refusal, exchange)
        await self._inner(scope, receive, with_common_headers)
        exchange.route = scope.get("path_template", "")  # Litestar's, which holds no value
        if exchange.status == 503 and exchange.path in HEALTH and not exchange.error:
            exchange.error = Unavailable.code


def record_of(exchange: Exchange) -> dict[str, Any]:
    """What plugins are told of a finished call. `outcome` is ok, client_left, or the code of its error."""
    return {
        "model": exchange.model,
        "route": exchange.route,
        "status": exchange.status,
        "queue": exchange.queued,
        "duration": time.monotonic() - exchange.started,
        "request_id": exchange.request_id,
        "outcome": "client_left"
        if exchange.status == CLIENT_LEFT and not exchange.was_cut_off
        else exchange.error or "ok",
    }


def _fields(exchange: Exchange) -> dict[str, Any]:
    """What a line of the log about a request carries, for machines."""
    return {"request_id": exchange.request_id, "method": exchange.method, "path": exchange.path}
