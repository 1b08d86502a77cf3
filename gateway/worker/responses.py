"""Response objects that a method returns: Starlette's and its subclasses, played as the ASGI apps they are."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

from ..wire import MAX_HEAD, MAX_PAYLOAD, WireError, check_answer
from .failures import Unserializable
from .request import Cancellation

MAX_BODY = MAX_PAYLOAD - 2 * MAX_HEAD  # bytes, behind their head


def is_response(value: Any) -> bool:
    starlette = sys.modules.get("starlette.responses")
    if starlette is not None and isinstance(value, starlette.Response):
        return True
    httpx = sys.modules.get("httpx")
    return httpx is not None and isinstance(value, httpx.Response)


def check(status: int, headers: list[tuple[str, str]]) -> None:
    """Refuse a response that cannot go out.

    Raises:
        Unserializable: its status is none, or a header would end the head.
    """
    try:
        check_answer(status, headers)
    except WireError as error:
        raise Unserializable(f"the Response has {error}") from error


def check_size(size: int) -> None:
    """Refuse what the gateway does not take in one piece.

    Raises:
        Unserializable: it says how many bytes it may be.
    """
    if size > MAX_BODY:
        raise Unserializable(f"{size} bytes cannot be sent at once, {MAX_BODY} at most; yield them in parts")


def as_plain(response: Any) -> tuple[int, list[tuple[str, str]], bytes] | None:
    """Status, headers and body of one that is complete already, else None."""
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
    """Run a streaming response; its own rules for the client's leaving apply, through `receive`."""

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
    skip = {"content-encoding", "transfer-encoding", "connection"}  # the body is decoded already
    return [(name, value) for name, value in response.headers.items() if name.lower() not in skip]
