"""Truss-style predict: bytes through to the worker, bytes back, nothing parsed in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..call import Call
from ..errors import GatewayError, RouteNotSupported, UnsupportedMedia
from ..wire import BYTES, HTTPScope, Req, Resp
from .body import BodyReader
from .exchange import Exchange

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub

OCTETS = b"application/octet-stream"
ROUTE = "/v1/models/{model}:predict"


class Predict:
    """The predict URLs of every model."""

    def __init__(self, hub: Hub, reader: BodyReader) -> None:
        self._hub, self._reader = hub, reader

    async def __call__(self, exchange: Exchange) -> None:
        model = self._hub.find(exchange.model)
        exchange.model, exchange.route = model.name, ROUTE
        self._check_method(model)
        check_encoding(exchange)
        body = await exchange.body(self._reader, model.spec.limits.max_body)
        headers = exchange.headers
        req = Req(
            "predict",
            BYTES,
            False,
            exchange.header(b"content-type"),
            exchange.request_id,
            headers.get(b"accept") == b"application/json" and b"openai" not in headers.get(b"user-agent", b"").lower(),
            None,
            http_scope(exchange) if "predict" in model.request_methods else None,
        )
        with model.call(req, body) as call:
            exchange.watch(call.client_left)
            head = await call.first()
            exchange.queued = call.started - call.arrived
            await pass_response(exchange, call, head)

    def _check_method(self, model: HostedModel) -> None:
        methods = model.capabilities.methods
        if methods and all(method.name != "predict" for method in methods):
            have = ", ".join(self._hub.routes(model))
            raise RouteNotSupported(f"`predict` must only be called if model has it. It serves: {have}", param="model")


async def pass_response(exchange: Exchange, call: Call, head: Resp) -> None:
    """The worker's bytes as they are, whole or streamed."""
    if head.stream:
        await _stream(exchange, call, head)
        return
    headers = _headers(head)
    content_type = next((value for name, value in headers if name == b"content-type"), head.content_type.encode())
    headers = [(name, value) for name, value in headers if name != b"content-type"]
    await exchange.reply(head.status, call.reply, content_type, headers)


async def _stream(exchange: Exchange, call: Call, head: Resp) -> None:
    """Items as they come, one HTTP chunk for what is queued; a failure breaks the connection, never ends it well."""
    headers = _headers(head)
    if not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", head.content_type.encode() or OCTETS))
    is_sse = any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
    await exchange.start(head.status, headers)
    try:
        while (items := await call.take()) is not None:
            for item in items:
                if item:
                    await exchange.write(item)
    except GatewayError as error:
        if is_sse:
            from .errors import body_of

            await exchange.write(b"event: error\ndata: " + body_of(error, "truss", exchange.request_id) + b"\n\n")
        exchange.break_off()
        raise
    await exchange.write(b"", last=True)


def _headers(head: Resp) -> list[tuple[bytes, bytes]]:
    """Those of a user's Response. What frames the body is the server's to say."""
    if not head.raw:
        return []
    pairs = [
        (name.lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in head.headers
        if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server")
    ]
    if head.status >= 300:
        pairs += [(b"x-baseten-error-source", b"04"), (b"x-baseten-error-code", b"700")]
    return pairs


def check_encoding(exchange: Exchange) -> None:
    """Refuse compressed bodies: a few bytes of them may be gigabytes."""
    encoding = exchange.headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise UnsupportedMedia(f"content-encoding '{encoding.decode('latin-1')[:64]}' is not supported; send it plain")


def http_scope(exchange: Exchange) -> HTTPScope:
    """What a method that takes the Request gets to see."""
    scope = exchange.scope
    return HTTPScope(
        exchange.method,
        exchange.path,
        scope.get("query_string", b""),
        scope["headers"],
        scope.get("client"),
        scope.get("server"),
        scope.get("scheme", "http"),
    )
