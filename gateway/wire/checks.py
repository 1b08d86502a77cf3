"""Checks for answers that decode but could forge or split the HTTP response to a client.

A worker applies them to the output of its model, and the gateway applies them to what a worker sends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .frames import BYTES, DATA, SOCKET, Failure, Req, Resp
from .values import WireError, decode_weighed

MAX_HEAD = 64 * 1024  # bytes of response headers, the same as for requests
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
CONTENT_TYPE = re.compile(r"[\x20-\x7e]{0,255}")
USUAL_TYPES = frozenset(("", "application/json", "application/octet-stream"))  # valid, no check needed


def decode_message(payload: bytes | memoryview) -> tuple[str, Any]:
    """Decode a websocket message: ("send", text or bytes) or ("close", (code, reason)).

    Raises:
        WireError: it is something else.
    """
    match decode_weighed(payload):
        case ["send", str() | bytes() as data]:
            return "send", data
        case ["close", [int(code), str(reason)]] if is_close(code, reason):
            return "close", (code, reason)
    raise WireError("an invalid websocket message")


def is_close(code: int, reason: str) -> bool:
    """Return whether a websocket may be closed with this code and a reason of at most 123 bytes."""
    may_be_sent = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    return may_be_sent and len(reason.encode("utf-8", "replace")) <= 123


def check_resp(head: Resp) -> None:
    """Check the head of an answer.

    Raises:
        WireError: it must not reach a client. An honest worker never sends such a head.
    """
    check_answer(head.status, head.headers)
    if not head.raw and head.status != 200:
        raise WireError(f"status {head.status} without a Response")
    if not CONTENT_TYPE.fullmatch(head.content_type):
        raise WireError("a content type with control characters, or one that is too long")


def check_form(head: Resp, req: Req) -> None:
    """Check that an answer has the form that its call requires. The code that reads it could not handle another.

    Raises:
        WireError: it has another form.
    """
    if req.method == SOCKET:
        if head.raw or head.stream or head.final or head.kind != DATA:
            raise WireError("an answer to a websocket, which has messages")
    elif head.stream == head.final:
        raise WireError("an answer that is neither whole nor a stream")
    elif head.kind != (BYTES if head.raw else req.mode):
        raise WireError("an answer with another kind of values than the call")


def check_failure(failure: Failure) -> None:
    """Check an error.

    Raises:
        WireError: its status is not an error, or its headers are invalid.
    """
    check_answer(failure.status, failure.headers)
    if failure.status < 400:
        raise WireError(f"an error with status {failure.status}")


def check_answer(status: int, headers: list[tuple[str, str]]) -> None:
    """Check the status and headers of an answer.

    Raises:
        WireError: the status is not a final one, or the headers are invalid or too large.
    """
    if not 200 <= status <= 599:
        raise WireError(f"status {status}")
    if not headers:
        return
    if not headers_are_clean(headers):
        raise WireError("a header with control characters")
    if sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEAD:
        raise WireError(f"headers of more than {MAX_HEAD >> 10} KiB")


def headers_are_clean(headers: Iterable[tuple[str, str]]) -> bool:
    """Return whether all names are tokens and all values one line of latin-1: a line break could forge a response."""
    return all(HEADER_NAME.fullmatch(name) and HEADER_VALUE.fullmatch(value) for name, value in headers)
