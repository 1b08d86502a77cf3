"""Truss-style predict: bytes through to the worker, bytes back, nothing parsed in between."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..call import Call
from ..errors import GatewayError, InvalidOutput, UnsupportedMedia
from ..wire import BYTES, HTTPScope, Req, Resp
from .body import BodyReader
from .exchange import NO_BODY, UNBUFFERED, Exchange, spawn
from .headers import checked, is_ours
from .kin import look_at
from .waiting import until_ready

if TYPE_CHECKING:
    from ..hosted import HostedModel
    from ..hub import Hub

Finish = Callable[[Exchange, BaseException | None], None]
_DIGITS = re.compile(r"[0-9]{1,15}").fullmatch
# where a plugin may have looked
CREDENTIALS = frozenset(
    {b"authorization", b"x-api-key", b"cookie", b"proxy-authorization", b"api-key", b"x-goog-api-key", b"x-auth-token"}
)
ANYTHING = b"*/*"
OCTETS = b"application/octet-stream"
LINES = "application/x-ndjson"
ROUTE = "/v1/models/{model}:predict"


class Predict:
    """The predict URLs of every model."""

    def __init__(self, hub: Hub, reader: BodyReader) -> None:
        self._hub, self._reader = hub, reader

    async def __call__(self, exchange: Exchange) -> None:
        """Answer from within a task: the body is still on its way, or something stands around the protocol."""
        model = self._model(exchange)
        body = await exchange.body(self._reader, model.spec.limits.max_body)
        await answer_bytes(exchange, model, "predict", body)

    def begin(self, exchange: Exchange, finish: Finish) -> None:
        """Start a call that answers itself: its reply is written when the worker's frame is read.

        `finish` is called when it was answered, or with the error that it ended in.
        """
        model = self._model(exchange)
        assert exchange.cycle is not None
        body = self._reader.take(exchange.cycle, model.spec.limits.max_body)
        if model.state != "ready":
            spawn(_begin_later(exchange, finish, model, body))
            return
        call = model.call(_request(exchange, model, "predict"), body, exchange.patience())
        exchange.watch(call)
        if not call.has_slot:
            look_at(exchange, model, call)
        call.on_ready = partial(_answer, exchange, finish)

    def _model(self, exchange: Exchange) -> HostedModel:
        model = self._hub.find(exchange.model, exchange.sees)
        exchange.model = model.name
        exchange.strict = model.spec.parity == "strict"
        check_encoding(exchange)
        return model


async def answer_bytes(exchange: Exchange, model: HostedModel, method: str, body: bytes) -> None:
    """Have a method of the model answer, its body read and its result written in the worker."""
    if model.state != "ready":
        await until_ready(exchange, model, body)
    with model.call(_request(exchange, model, method), body, exchange.patience()) as call:
        exchange.watch(call)
        if not call.has_slot:
            look_at(exchange, model, call)
        head = await call.first()
        exchange.measure()
        await pass_response(exchange, call, head)


def _request(exchange: Exchange, model: HostedModel, method: str) -> Req:
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
        accept != ANYTHING and accept.lower().find(b"text/event-stream") >= 0,  # `in` makes an error, and drops it
    )


def _answer(exchange: Exchange, finish: Finish, call: Call) -> None:
    """The call has something to say: its whole reply, the start of a stream, or an error."""
    try:
        if call.has_slot:  # else `measure` finds out at the end
            exchange.queued, exchange.has_run = call.queued, True
        head = call.head
        if call.error is not None and not call.items:
            finish(exchange, call.error)
        elif head is None:
            finish(exchange, InvalidOutput("the model ended the call without an answer"))
        elif head.stream or head.raw or not exchange.reply_now(head.status, call.reply, head.content_type.encode()):
            spawn(_answer_later(exchange, finish, call, head))
        else:
            finish(exchange, None)
    except Exception as error:  # in the channel's reader it would break the replica
        finish(exchange, error)


async def _begin_later(exchange: Exchange, finish: Finish, model: HostedModel, body: bytes) -> None:
    error: BaseException | None = None
    try:
        await answer_bytes(exchange, model, "predict", body)
    except Exception as raised:
        error = raised
    finish(exchange, error)


async def _answer_later(exchange: Exchange, finish: Finish, call: Call, head: Resp) -> None:
    error: BaseException | None = None
    try:
        with call:
            await pass_response(exchange, call, head)
    except Exception as raised:
        error = raised
    finish(exchange, error)


async def pass_response(exchange: Exchange, call: Call, head: Resp) -> None:
    """The worker's bytes as they are, whole or streamed."""
    if head.stream:
        await _stream(exchange, call, head)
        return
    headers = _headers(head)
    content_type = next((value for name, value in headers if name == b"content-type"), head.content_type.encode())
    headers = [(name, value) for name, value in headers if name != b"content-type"]
    if content_type:
        await exchange.reply(head.status, call.reply, content_type, headers)
        return
    # A user's Response that does not say what it is; nor do we.
    headers.append((b"content-length", str(len(call.reply)).encode()))
    await exchange.start(head.status, headers)
    await exchange.write(call.reply, last=True)


async def _stream(exchange: Exchange, call: Call, head: Resp) -> None:
    """Items as they come, one HTTP chunk for what is queued; a failure breaks the connection, never ends it well."""
    headers = _headers(head)
    if not head.raw:
        headers.append((b"content-type", head.content_type.encode() or OCTETS))
    is_sse = any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
    is_lines = not head.raw and head.content_type == LINES  # ours; a Response may have begun a line
    left = _length(head)
    if all(name.lower() != UNBUFFERED[0] for name, _ in headers):
        headers.append(UNBUFFERED)
    if left is not None:
        headers.append((b"content-length", str(left).encode()))
    if left == 0 or head.status in NO_BODY:
        exchange.unwatch()  # with the head the client has all of it; when it leaves, the background task goes on
    await exchange.start(head.status, headers)
    try:
        while (items := await call.take()) is not None:
            for item in items:
                if left is not None and (left := left - len(item)) < 0:
                    raise InvalidOutput("the Response is longer than its content-length")
                if left == 0:
                    exchange.unwatch()
                if item:
                    await exchange.write(item)
        if left and head.status not in NO_BODY:
            raise InvalidOutput("the Response is shorter than its content-length")
    except GatewayError as error:
        if (is_sse or is_lines) and left is None and not exchange.strict:
            from .errors import body_of, explained

            body = body_of(explained(error, exchange), "truss", exchange.request_id)
            await exchange.write(body + b"\n" if is_lines else b"event: error\ndata: " + body + b"\n\n")
        exchange.break_off()
        raise
    except Exception:  # a worker may send anything, and no client may be left waiting for the rest
        exchange.break_off()
        raise
    await exchange.write(b"", last=True)


def _headers(head: Resp) -> list[tuple[bytes, bytes]]:
    """Those of a user's Response. What frames the body is the server's to say."""
    if not head.raw:
        return []
    given = (checked(name, value) for name, value in head.headers if not is_ours(name))
    pairs = [pair for pair in given if pair is not None]
    if head.status >= 300:
        pairs += [(b"x-baseten-error-source", b"04"), (b"x-baseten-error-code", b"700")]
    return pairs


def _length(head: Resp) -> int | None:
    """What the Response of a file, or one with a background task, says of itself: then its client is not kept waiting
    for an end that comes after the task."""
    given = [value for name, value in head.headers if name.lower() == "content-length"] if head.raw else []
    return int(given[0]) if len(given) == 1 and _DIGITS(given[0]) else None


def check_encoding(exchange: Exchange) -> None:
    """Refuse compressed bodies: a few bytes of them may be gigabytes."""
    encoding = exchange.headers.get(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise UnsupportedMedia(f"content-encoding '{encoding.decode('latin-1')[:64]}' is not supported; send it plain")


def http_scope(exchange: Exchange, model: HostedModel) -> HTTPScope:
    """What a method that takes the Request gets to see: the head, without what let it into the gateway."""
    scope = exchange.scope
    headers, query = scope["headers"], scope.get("query_string", b"")
    if (credential := exchange.credential) is not None and not model.spec.forward_credentials:
        if credential:
            headers = [pair for pair in headers if credential not in pair[1]]
            query = query.replace(credential, b"***")
        else:  # a plugin does not say where it looked
            headers = [pair for pair in headers if pair[0] not in CREDENTIALS]
    return HTTPScope(
        exchange.method,
        exchange.path,
        query,
        headers,
        scope.get("client"),
        scope.get("server"),
        scope.get("scheme", "http"),
    )
