"""uvicorn's state of one request: the fastest ways to make it, and to write its whole answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

# Bytes of an answer that are passed to TLS at once. More would fill its buffer and block the loop until encrypted.
PIECE = HIGH_WATER_LIMIT + 1
COPIED = 1 << 20  # maximum size of a body that is copied behind its head, or written, at once
Cycle = RequestResponseCycle  # uvicorn's state of one request
STATUS = {int(status): f"HTTP/1.1 {int(status)} {status.phrase}\r\n".encode() for status in HTTPStatus}


class UnmeasuredCycle(RequestResponseCycle):
    """A request in HTTP/1.0, which has no chunked encoding: an answer without a length ends with the connection."""

    _is_measured = True

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self._is_measured = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if not self._is_measured:
                self.chunked_encoding = False
        elif not self._is_measured:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


def cycle_of_head(protocol: HttpToolsProtocol) -> RequestResponseCycle:
    """Return the state of the request whose head was read, and complete its scope.

    It does what uvicorn's `on_headers_complete` does for a request without an upgrade, in two thirds of the time: that
    passes each argument by name, and has options that are never set here (`root_path`, `limit_concurrency`).

    Raises:
        ValueError: it is of a version that this server does not speak: others may frame its body in another way.
    """
    parser, scope = protocol.parser, protocol.scope
    url, version = httptools.parse_url(protocol.url), parser.get_http_version()
    path = url.path.decode("ascii")
    scope["method"] = parser.get_method().decode("ascii")
    scope["path"] = unquote(path) if "%" in path else path
    scope["raw_path"], scope["query_string"] = url.path, url.query or b""
    cycle = RequestResponseCycle
    if version != "1.1":
        if version != "1.0":
            raise ValueError(version)
        scope["http_version"], cycle = version, UnmeasuredCycle
    return cycle(
        scope,
        protocol.transport,
        protocol.flow,
        protocol.logger,
        protocol.access_logger,
        protocol.access_log,
        protocol.server_state.default_headers,
        asyncio.Event(),
        protocol.expect_100_continue,
        version != "1.0" and parser.should_keep_alive(),
        protocol.on_response_complete,
    )


def cycle_of(send: Any) -> RequestResponseCycle | None:
    """Return the request's cycle if `send` is uvicorn's own, else None."""
    cycle = getattr(send, "__self__", None)
    return cycle if isinstance(cycle, RequestResponseCycle) else None


def write_whole(cycle: RequestResponseCycle, head: bytes, body: bytes | memoryview) -> None:
    """Write a complete response at once. It does the work of two `send` calls, without their checks of headers.

    `head` is everything from the status line to the last header, without the blank line. Over TLS the body has at most
    PIECE bytes, otherwise at most COPIED.
    """
    if cycle.disconnected:
        return
    cycle.response_started = cycle.response_complete = True
    end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
    if len(body) > PIECE:
        cycle.transport.writelines((head + end, body))  # without a copy of the body
    else:
        cycle.transport.write(b"".join((head, end, body)))
    cycle.message_event.set()
    if not cycle.keep_alive:
        connection: Any = cycle.scope.get("gateway.connection")
        if cycle.more_body and connection is not None:
            connection.linger()
        else:
            cycle.transport.close()
    cycle.on_response()


def write_chunks(cycle: RequestResponseCycle, parts: Sequence[bytes]) -> None:
    """Write parts of a body in the chunked encoding, each as a chunk, at once. It does the work of a `send` for each.

    The head has been sent, and the client is not slow. The parts have at most PIECE bytes.
    """
    if not cycle.disconnected:
        cycle.transport.write(b"".join([b"%x\r\n%b\r\n" % (len(part), part) for part in parts if part]))
