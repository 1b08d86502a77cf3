"""The outermost layer: the guard, the dispatch, and the single place where an exception becomes an error answer.

Paths of models go directly to their handlers. Litestar's router and wrappers would cost more than the rest of a
predict. Everything else, including routes of plugins, goes to Litestar, inside the same guard.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import GatewayError, Unavailable
from ..runners.pending import ClientLeft
from . import errors, self_calls
from .carried_out import carried_out
from .exchange import CLIENT_LEFT, REFUSED, SEES, Exchange, spawn
from .request_cycle import cycle_of
from .route_table import HEALTH
from .routes.fast_predict import FastPredict
from .slow_clients import SEND_TIMEOUT

if TYPE_CHECKING:
    from ..hosting.catalog import Catalog
    from .access_log import AccessLog
    from .body import BodyReader
    from .later import Later
    from .metrics.requests import Metrics
    from .request_entry import Entrance
    from .routes.predict import Predict
    from .routes.websocket import WebSockets

log = logging.getLogger("gateway.http")


class Dispatcher:
    """The ASGI app that uvicorn runs."""

    def __init__(
        self,
        catalog: Catalog,
        others: Later,
        entrance: Entrance,
        predict: Predict,
        reader: BodyReader,
        metrics: Metrics,
        websockets: WebSockets,
        observer: Callable[[Mapping[str, Any]], None] | None = None,
        access: AccessLog | None = None,
    ) -> None:
        self._catalog = catalog
        self.others, self._admit, self._metrics = others, entrance.admit, metrics
        self._websockets, self._observer, self._access = websockets, observer, access
        self.lag, self.refused = metrics.lag, metrics.refused
        self.begin = FastPredict(entrance, predict, reader, self._answer, self._end).begin

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await self._websockets(scope, receive, send)
            return
        if scope["type"] != "http":
            await self.others(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send, cycle_of(send))
        try:
            try:
                handler = self._admit(exchange)
                if exchange.permits is not None and (exchange.row.costs or exchange.method == "POST"):
                    exchange.task = asyncio.current_task()
                    exchange.count_in()
                if exchange.method != "POST":
                    await self_calls.check_question(exchange, self._catalog)
                if handler is not None:
                    await handler(exchange)
                else:
                    await self._hand_inwards(exchange, receive)
            except ClientLeft as error:
                exchange.status = CLIENT_LEFT
                _let_go(error)
            except Exception as error:
                await self._answer(exchange, error)
                _let_go(error)
        except asyncio.CancelledError:  # also while an error is answered
            await self._answer(exchange, exchange.lost())
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
        """Count a large answer as a running request until its client has read it. How it ends is unknown until then."""
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
            else:  # nothing was written yet: the client still needs an answer although its error could not be rendered
                await errors.answer(exchange, errors.unexpected(failed))

    async def _say(self, exchange: Exchange, error: BaseException) -> None:
        if exchange.status:  # the answer has begun; the code that began it also ended it
            errors.broke_off(error, exchange)
            return
        if not isinstance(error, GatewayError):
            log.error("request %s failed", exchange.request_id, exc_info=error, extra=_fields(exchange))
            error = errors.unexpected(error)
        self._metrics.rejected(exchange, error)
        error = errors.explained(error, exchange)
        if error.status >= 500 and not isinstance(error, Unavailable):  # clients could flood the log with those
            log.warning(
                "request %s to %s: %s", exchange.request_id, exchange.path, error.message, extra=_fields(exchange)
            )
        await errors.answer(exchange, error)

    def _note_refusal(self, exchange: Exchange, error: GatewayError) -> None:
        """Count an error that Litestar or a plugin's route answers."""
        self._metrics.rejected(exchange, error)

    async def _hand_inwards(self, exchange: Exchange, receive: Any) -> None:
        """Pass the request on to Litestar. HEAD becomes GET; the server leaves out the body."""

        async def with_common_headers(message: Any) -> None:
            if exchange.is_over:  # it was broken off, or is answered with the reason
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
        work = self.others(scope, receive, with_common_headers)
        try:
            await (carried_out(work) if exchange.is_order and method != "GET" else work)
        finally:
            exchange.route = scope.get("path_template", "")  # Litestar's template, without values
        exchange.check_permission()
        if exchange.status == 503 and exchange.path in HEALTH and not exchange.error:
            exchange.error = Unavailable.code


def record_of(exchange: Exchange) -> dict[str, Any]:
    """Return what plugins get for a finished call. `outcome` is ok, client_left, or an error code."""
    return {
        "model": exchange.counted_for,
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
    """Return the structured fields of a log line about a request."""
    return {"request_id": exchange.request_id, "method": exchange.method, "path": exchange.path}


def _let_go(error: Exception) -> None:
    """Free what the request held: its call keeps the error, and so the frames, until its code has stopped."""
    error.__traceback__ = None
