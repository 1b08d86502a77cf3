"""Response objects that a method returns: Starlette's and its subclasses are run as the ASGI apps they are."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

from ...wire.checks import MAX_HEAD, check_answer
from ...wire.frames import MAX_PAYLOAD
from ...wire.values import WireError
from .failures import Unserializable
from .request import Cancellation

MAX_BODY = MAX_PAYLOAD - 2 * MAX_HEAD  # bytes; the head takes the rest


def is_response(value: Any) -> bool:
    starlette = sys.modules.get("starlette.responses")
    if starlette is not None and isinstance(value, starlette.Response):
        return True
    httpx = sys.modules.get("httpx")
    return httpx is not None and isinstance(value, httpx.Response)


def check(status: int, headers: list[tuple[str, str]]) -> None:
    """Check that a response can be sent.

    Raises:
        Unserializable: its status or a header is invalid.
    """
    try:
        check_answer(status, headers)
    except WireError as error:
        raise Unserializable(f"the Response has {error}") from error


def check_size(size: int) -> None:
    """Check that the gateway accepts a body of this size in one piece.

    Raises:
        Unserializable: with the maximum in bytes.
    """
    if size > MAX_BODY:
        raise Unserializable(f"{size} bytes cannot be sent at once, {MAX_BODY} at most; yield them in parts")


def as_plain(response: Any) -> tuple[int, list[tuple[str, str]], bytes] | None:
    """Return the status, headers and body of a complete response, otherwise None."""
    httpx = sys.modules.get("httpx")
    if httpx is not None and isinstance(response, httpx.Response):
        return response.status_code, _httpx_headers(response), response.content
    body = getattr(response, "body", None)
    if body is None or hasattr(response, "body_iterator") or hasattr(response, "path") or response.background:
        return None
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.raw_headers]
    return response.status_code, headers, bytes(body)


async def play(
    response: Any,
    cancellation: Cancellation,
    send_head: Callable[[int, list[tuple[str, str]]], Awaitable[None]],
    send_chunk: Callable[[bytes], Awaitable[None]],
) -> None:
    """Run a streaming response. It learns through `receive` that the client has disconnected."""

    async def receive() -> dict[str, Any]:
        await cancellation.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            pairs = message.get("headers", [])
            headers = [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in pairs]
            await send_head(message["status"], headers)
        elif message["type"] == "http.response.body" and message.get("body"):
            await send_chunk(bytes(message["body"]))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "headers": [],
        "state": {},
        "extensions": {},
    }
    await response(scope, receive, send)


def _httpx_headers(response: Any) -> list[tuple[str, str]]:
    skip = {"content-encoding", "transfer-encoding", "connection"}  # the body is already decoded
    return [(name, value) for name, value in response.headers.items() if name.lower() not in skip]
