"""Render errors as bytes in the format of the route: OpenAI, Anthropic, Truss or Open Inference Protocol."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from ..dialects.anthropic import errors as anthropic_errors
from ..dialects.base import client_message, error_body
from ..dialects.responses import errors as responses_errors
from ..errors import MODEL_RAISED, Draining, GatewayError, Overloaded, Unauthorized, Unavailable
from .exchange import Exchange
from .headers import checked, is_ours

log = logging.getLogger("gateway.http")
Shape = Literal["openai", "responses", "anthropic", "truss", "oip"]
_encode = msgspec.json.encode
TEXT, GAVE_UP = b"text/plain; charset=utf-8", b"Internal Server Error"  # Truss's answer if a model exits
_TRUSS_PATHS = frozenset({"/hot-reload", "/invocations", "/ping"})
_TRUSS_ROOTS = ("/models/", "/v1/models/")
_COHERE = "/v2/rerank"  # the only path below /v2 that is not part of the Open Inference Protocol
_TRUSS_ENDINGS = ("/predict", ":predict", ":predict_binary", "/loaded", "/schema", "/hot-reload", "/status")
_TRUSS_NAMES_OF_ONE = ("/ping", "/invocations")  # below /models/{id} only


def shape_of(path: str, headers: dict[bytes, bytes]) -> Shape:
    """Return the error format that clients of a path expect, also for paths that do not exist."""
    if path in _TRUSS_PATHS or (path.startswith(_TRUSS_ROOTS) and path.endswith(_TRUSS_ENDINGS)):
        return "truss"
    if path.startswith("/models/") and path.endswith(_TRUSS_NAMES_OF_ONE):
        return "truss"
    if path == "/v2" or (path.startswith("/v2/") and path != _COHERE):
        return "oip"
    if path.startswith("/models/"):
        path = "/v1/" + path.partition("/v1/")[2]
    if path.startswith("/v1/messages"):
        return "anthropic"
    if path.startswith("/v1/responses"):
        return "responses"
    if path.startswith("/v1/models") and b"anthropic-version" in headers:
        return "anthropic"
    return "openai"


def anthropic(error: GatewayError, request_id: str) -> dict[str, Any]:
    return {"type": "error", "error": anthropic_errors.described(error), "request_id": request_id}


def truss(error: GatewayError) -> dict[str, Any]:
    if error.truss_message is not None:
        return {"error": error.truss_message}
    detail = getattr(error, "detail", None)
    return {"error": error.message if detail is None else detail}


def headers_of(error: GatewayError, shape: Shape) -> list[tuple[bytes, bytes]]:
    given: Iterable[tuple[str, str]] = error.headers.items()
    if error.by_model:
        given = [(name, value) for name, value in given if not is_ours(name) and name.lower() != "content-type"]
    headers = [pair for name, value in given if (pair := checked(name, value)) is not None]
    if (wait := _retry_after(error)) is not None:
        headers.append((b"retry-after", str(max(1, math.ceil(wait))).encode()))
    if isinstance(error, Draining):
        headers.append((b"connection", b"close"))
    should_retry = error.should_retry
    if should_retry is None and error.status in (401, 403) and all(name != b"x-should-retry" for name, _ in headers):
        should_retry = False  # otherwise agents would retry forever with the same key
    if should_retry is not None:
        headers.append((b"x-should-retry", b"true" if should_retry else b"false"))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    if shape == "truss":
        headers.append((b"x-baseten-error-source", b"04"))
        headers.append((b"x-baseten-error-code", str(error.truss_code or GatewayError.truss_code).encode()))
    return headers


def _retry_after(error: GatewayError) -> float | None:
    """Return seconds until the next try. Capacity errors always have a value."""
    if error.retry_after is None and isinstance(error, Overloaded | Unavailable) and error.should_retry is not False:
        return None if any(name.lower() == "retry-after" for name in error.headers) else 1
    return error.retry_after


def body_of(error: GatewayError, shape: Shape, request_id: str) -> bytes:
    if shape == "truss":
        return _encode(truss(error))
    if shape == "oip":
        return _encode({"error": client_message(error)})
    if shape == "responses":
        return _encode(responses_errors.described(error))
    return _encode(anthropic(error, request_id) if shape == "anthropic" else error_body(error))


async def answer(exchange: Exchange, error: GatewayError, shape: Shape | None = None) -> None:
    """Send the error as a whole answer."""
    error = explained(error, exchange)
    shape = shape or ("truss" if exchange.strict else shape_of(exchange.path, exchange.headers))
    if shape == "truss" and exchange.strict and not error.truss_code:
        await exchange.reply(error.status, GAVE_UP, TEXT, [(b"connection", b"close")])
        return
    await exchange.reply(error.status, body_of(error, shape, exchange.request_id), headers=headers_of(error, shape))


def explained(error: GatewayError, exchange: Exchange) -> GatewayError:
    """Say how to find an exception of the model in its log. With strict parity, keep Truss's words."""
    if exchange.strict or not exchange.counted_for or error.code != "model_error":
        return error
    if not error.message.startswith(MODEL_RAISED):
        return error
    name, more = exchange.counted_for, error.message[len(MODEL_RAISED) :]  # with `debug` the exception follows
    how = f"`gateway logs {name}` shows it under the request id {exchange.request_id}"
    told = copy.copy(error)
    told.message = f"model '{name}' raised an error; {how}{'.' if more else ''}{more}"
    return told


def broke_off(error: BaseException, exchange: Exchange) -> GatewayError:
    """Log an answer that failed after its head was sent. Return the error with the message that the client may get."""
    fields = {"request_id": exchange.request_id, "error": error.code if isinstance(error, GatewayError) else None}
    if isinstance(error, GatewayError):
        error = explained(error, exchange)
        log.warning("request %s broke off: %s", exchange.request_id, error.message, extra=fields)
    else:
        log.error("request %s failed", exchange.request_id, exc_info=error, extra=fields)
        error = unexpected(error)
    exchange.error, exchange.cause = error.code, error.cause
    return error


def unexpected(error: BaseException) -> GatewayError:
    """Return the error for a failure of the gateway itself. The details go to the log, not to the client."""
    return GatewayError("the gateway failed on this request; its log has the details under this request's id")


def log_unexpected(error: BaseException, request_id: str, what: str) -> None:
    log.error("request %s failed: %s", request_id, what, exc_info=error, extra={"request_id": request_id})
