"""Truss-style predict: bytes are passed to the worker and back without parsing.

If the body arrives with the head, `fast_predict.py` answers without a task, with the same result.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...errors import GatewayError, InvalidOutput, UnsupportedMedia
from ...runners.call import Call
from ...wire.frames import BYTES, HTTPScope, Req, Resp
from ..answering import NO_BODY, UNBUFFERED
from ..body import BodyReader
from ..credentials import without_keys
from ..exchange import Exchange
from ..headers import checked, is_ours
from ..self_calls import look_at
from .wait_for_model import until_ready

if TYPE_CHECKING:
    from ...hosting.catalog import Catalog
    from ...hosting.model import HostedModel

_DIGITS = re.compile(r"[0-9]{1,15}").fullmatch
ANYTHING = b"*/*"
OCTETS = b"application/octet-stream"
LINES = "application/x-ndjson"


class Predict:
    """The predict URLs of every model."""

    def __init__(self, catalog: Catalog, reader: BodyReader) -> None:
        self._catalog, self._reader = catalog, reader

    async def __call__(self, exchange: Exchange) -> None:
        """Answer within a task: the body is still arriving, or something wraps the protocol."""
        model = self.model(exchange)
        body = await exchange.body(self._reader, model.spec.limits.max_body)
        await answer_bytes(exchange, model, "predict", body)

    def model(self, exchange: Exchange) -> HostedModel:
        """Return the model that a predict is for."""
        model = self._catalog.find(exchange.named, exchange.sees)
        exchange.counted_for = model.name
        exchange.strict = model.spec.parity == "strict"
        check_encoding(exchange)
        return model


async def answer_bytes(exchange: Exchange, model: HostedModel, method: str, body: bytes) -> None:
    """Call a method of the model. The worker parses the body and writes the result."""
    if model.state != "ready":
        await until_ready(exchange, model, body)
    with model.call(request_of(exchange, model, method), body, exchange.patience()) as call:
        exchange.watch(call)
        if not call.has_slot:
            look_at(exchange, model, call)
        head = await call.first()
        exchange.measure()
        await pass_response(exchange, call, head)


def request_of(exchange: Exchange, model: HostedModel, method: str) -> Req:
    """Return the request to send to the worker."""
    headers = exchange.headers
    accept = headers.get(b"accept", ANYTHING)
    return Req(
        method,
        BYTES,
        False,
        headers.get(b"content-type", b"").decode("latin-1"),
        exchange.request_id,
        accept == b"application/json" and b"openai" not in headers.get(b"user-agent", b"").lower(),
        None,
        http_scope(exchange, model) if method in model.request_methods else None,
        exchange.route,
        accept != ANYTHING and accept.lower().find(b"text/event-stream") >= 0,  # `in` raises an error internally
    )


async def pass_response(exchange: Exchange, call: Call, head: Resp) -> None:
    """Send the worker's bytes unchanged, whole or streamed."""
    if head.stream:
        await _stream(exchange, call, head)
        return
    headers = _headers(head)
    content_type = next((value for name, value in headers if name == b"content-type"), head.content_type.encode())
    headers = [(name, value) for name, value in headers if name != b"content-type"]
    if content_type:
        await exchange.reply(head.status, call.reply, content_type, headers)
        return
    # A user's Response without a content type; the gateway adds none.
    headers.append((b"content-length", str(len(call.reply)).encode()))
    await exchange.start(head.status, headers)
    await exchange.write(call.reply, last=True)


async def _stream(exchange: Exchange, call: Call, head: Resp) -> None:
    """Send items as they arrive, each as an HTTP chunk. A failure breaks the connection off."""
    headers = _headers(head)
    if not head.raw:
        headers.append((b"content-type", head.content_type.encode() or OCTETS))
    is_sse = any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
    is_lines = not head.raw and head.content_type == LINES  # written by the worker; a Response may be in mid-line
    left = _length(head)
    if all(name.lower() != UNBUFFERED[0] for name, _ in headers):
        headers.append(UNBUFFERED)
    if left is not None:
        headers.append((b"content-length", str(left).encode()))
    if left == 0 or head.status in NO_BODY:
        exchange.unwatch()  # the client has everything with the head; if it leaves, the background task continues
    await exchange.start(head.status, headers)
    try:
        while (items := await call.take()) is not None:
            if left is None:
                await exchange.write_each(items)
                continue
            for item in items:
                if (left := left - len(item)) < 0:
                    raise InvalidOutput("the Response is longer than its content-length")
                if left == 0:
                    exchange.unwatch()
                if item:
                    await exchange.write(item)
        if left and head.status not in NO_BODY:
            raise InvalidOutput("the Response is shorter than its content-length")
    except GatewayError as error:
        if (is_sse or is_lines) and left is None and not exchange.strict:
            from ..errors import body_of, explained

            body = body_of(explained(error, exchange), "truss", exchange.request_id)
            await exchange.write(body + b"\n" if is_lines else b"event: error\ndata: " + body + b"\n\n")
        exchange.break_off()
        raise
    except Exception:  # a worker may send anything, and the client must not wait for the rest
        exchange.break_off()
        raise
    await exchange.write(b"", last=True)


def _headers(head: Resp) -> list[tuple[bytes, bytes]]:
    """Return the allowed headers of a user's Response. Only the server sets headers that frame the body."""
    if not head.raw:
        return []
    given = (checked(name, value) for name, value in head.headers if not is_ours(name))
    pairs = [pair for pair in given if pair is not None]
    if head.status >= 300:
        pairs += [(b"x-baseten-error-source", b"04"), (b"x-baseten-error-code", b"700")]
    return pairs


def _length(head: Resp) -> int | None:
    """Return the content-length of a user's Response, if it is valid.

    A Response of a file, or with a background task, declares it. Its client then does not wait until the task has
    ended.
    """
    given = [value for name, value in head.headers if name.lower() == "content-length"] if head.raw else []
    return int(given[0]) if len(given) == 1 and _DIGITS(given[0]) else None


def check_encoding(exchange: Exchange) -> None:
    """Refuse compressed bodies: a few bytes may decompress to gigabytes."""
    encoding = exchange.headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise UnsupportedMedia(f"content-encoding '{encoding.decode('latin-1')[:64]}' is not supported; send it plain")


def seen_by(model: HostedModel, exchange: Exchange) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return the headers and the query that a model may see: without keys of a gateway, unless it is to get them."""
    headers, query = exchange.scope["headers"], exchange.scope.get("query_string", b"")
    if model.spec.forward_credentials:
        return headers, query
    return without_keys(headers, query, exchange.credential, exchange.own_key)


def http_scope(exchange: Exchange, model: HostedModel) -> HTTPScope:
    """Return the request head for a method that takes the Request, without keys of a gateway."""
    scope = exchange.scope
    headers, query = seen_by(model, exchange)
    return HTTPScope(
        exchange.method,
        exchange.path,
        query,
        headers,
        scope.get("client"),
        scope.get("server"),
        scope.get("scheme", "http"),
    )
