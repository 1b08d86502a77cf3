"""Read and decode request bodies, with bounds on size, time and number of pieces."""

from __future__ import annotations

import asyncio
import codecs
from typing import TYPE_CHECKING, Any

import msgspec

from .. import json_costs
from ..errors import InvalidJSON, SlowBody, TooLarge
from ..runners.pending import ClientLeft
from .collected_body import Parts, too_large
from .request_heads import DIGITS

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

    from .collected_body import CollectingProtocol

MAX_DEPTH = 64
TOO_DEEP = f"the body is nested more than {MAX_DEPTH} levels deep"
MAX_ITEMS, MAX_TEXTS = 1 << 17, 1 << 20  # arrays and objects, and strings, in a JSON body
MAX_KEYS = 1 << 18  # a key takes as long to decode as several strings
MAX_IDS = 1 << 20  # values in a body with token ids: each id is checked, unlike other numbers
MOST_IDS = 1 << 22  # an upper bound for any declared context length: about a second
MAX_COST = 300_000_000  # nanoseconds to decode all kinds together: one call, during which nothing else runs
IDLE_TIMEOUT, TOTAL_TIMEOUT = 15.0, 60.0  # seconds; defaults of the settings


class BodyReader:
    """Reads request bodies with the timeouts of one gateway."""

    def __init__(self, idle_timeout: float = IDLE_TIMEOUT, total_timeout: float = TOTAL_TIMEOUT) -> None:
        self._idle, self._total = idle_timeout, total_timeout

    @staticmethod
    def take(cycle: RequestResponseCycle, limit: int) -> bytes:
        """Return a body that arrived together with its head, from uvicorn's cycle."""
        whole = bytes(cycle.body)
        if len(whole) > limit:
            raise too_large(limit)
        cycle.body = bytearray()
        read_on(cycle)
        return whole

    async def read(
        self,
        receive: Any,
        length: bytes | None,
        limit: int,
        cycle: RequestResponseCycle | None = None,
        connection: CollectingProtocol | None = None,
    ) -> bytes:
        """Return the whole body. `cycle` and `connection` are given if they are the server's own.

        Raises:
            TooLarge: over `limit` bytes; raised before reading if the head declares the length.
            SlowBody: no progress, or not complete in time.
            ClientLeft: the client disconnected before the end.
        """
        if length is not None and length.isdigit() and int(length[-DIGITS:]) > limit:
            raise too_large(limit)
        if cycle is not None and not cycle.more_body and not cycle.disconnected:
            return self.take(cycle, limit)
        message = await self._first(receive)
        body: bytes = message.get("body", b"")
        if len(body) > limit:
            raise too_large(limit)
        if message.get("more_body", False):
            if cycle is not None and connection is not None:
                with connection.collecting(cycle, body, limit) as parts:
                    body = await self._rest(receive, parts)
            else:
                body = await self._rest(receive, Parts(body, limit, asyncio.get_running_loop().time()))
        if cycle is not None:
            read_on(cycle)
        return body

    async def _first(self, receive: Any) -> Any:
        try:
            async with asyncio.timeout(self._idle):
                message = await receive()
        except TimeoutError:
            raise slow_body("body_idle_timeout") from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        return message

    async def _rest(self, receive: Any, parts: Parts) -> bytes:
        loop = asyncio.get_running_loop()
        end, more = loop.time() + self._total, True
        while more:
            try:
                async with asyncio.timeout_at(min(end, parts.last + self._idle)):
                    message = await receive()
            except TimeoutError:
                self._check_progress(parts, end, loop.time())
                continue
            if message["type"] == "http.disconnect":
                raise ClientLeft
            parts.add(message.get("body", b""))
            parts.read(loop.time())
            parts.check()
            more = message.get("more_body", False)
        return parts.joined()

    def _check_progress(self, parts: Parts, end: float, now: float) -> None:
        """Raise `SlowBody` if the rest of a body must have come by now, or some of it."""
        if now >= end:
            raise slow_body("body_timeout")
        if now >= parts.last + self._idle:
            raise slow_body("body_idle_timeout")


def read_on(cycle: RequestResponseCycle) -> None:
    """Resume reading where a large body paused it. Otherwise a disconnect would not be noticed before the answer."""
    if cycle.flow.read_paused:
        cycle.flow.resume_reading()


def slow_body(limit: str) -> SlowBody:
    return SlowBody("the body did not arrive in time", headers={"connection": "close"}, cause=limit)


BOM = codecs.BOM_UTF8


def decode_json(body: bytes, most: int = MAX_ITEMS, values: int | None = None) -> Any:
    """Decode one JSON value. Whatever the bytes are, it raises only InvalidJSON or TooLarge.

    Strict: UTF-8, no NaN or Infinity, at most 64 levels, numbers that fit in 64 bits. Of duplicate keys the last wins.
    """
    items = body.count(b"[") + body.count(b"{")
    amount = amount_of(body, most, values)
    if not body:
        raise InvalidJSON("the body is empty; send a JSON object")
    if body.startswith(BOM):  # RFC 8259 allows ignoring it; PowerShell and .NET write it
        body = body[len(BOM) :]
    try:
        value = json_costs.decode(body, amount)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidJSON(f"the body is not valid JSON: {text}") from error
    if items > MAX_DEPTH and is_deep(body):
        raise InvalidJSON(TOO_DEEP)
    return value


def amount_of(body: bytes, most: int, values: int | None = None) -> json_costs.Amount | None:
    """Return what a body contains, or None if it is too short to contain much.

    Refuse JSON that takes far more time and memory to decode than its size suggests. `most` is the maximum number of
    arrays and objects. `values` is the maximum number of values of any kind, if bounded.

    Raises:
        TooLarge: there are more, too many strings or keys, or all together take too long.
    """
    if len(body) <= min(2 * most, json_costs.QUICK, 2 * (MAX_IDS if values is None else values)):
        return None
    found = None
    for found in json_costs.amounts(body):
        if found.quotes > 2 * MAX_TEXTS:
            raise _too_much(f"more than {MAX_TEXTS} strings")
        if found.items > most:
            raise _too_much(f"more than {most} arrays and objects")
        if found.keys > MAX_KEYS:
            raise _too_much(f"more than {MAX_KEYS} keys of objects")
        if values is not None and found.commas >= values:
            bound = ", the limit of a request to any model" if values == MOST_IDS else ""
            raise _too_much(f"more than {values} token ids and other values{bound}")
        if found.cost > MAX_COST:
            raise _too_much("strings, numbers with many digits and other values that together take long to read")
    return found


def _too_much(what: str) -> TooLarge:
    return TooLarge(f"the body holds {what}; send it in several requests")


_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


def is_deep(body: bytes) -> bool:
    """Whether valid JSON is nested deeper than MAX_DEPTH. It removes the innermost brackets level by level.

    All of it runs in C. A walk over the decoded value would visit every number of a large body.
    """
    brackets = b"".join(outside.translate(None, _NO_BRACKET) for outside, _ in json_costs.outside_strings(body))
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b".").replace(b"{}", b".").replace(b".", b"")
    return bool(brackets)


def decode_object(body: bytes, most: int = MAX_ITEMS, values: int | None = None) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        InvalidJSON: not JSON, or not an object.
        TooLarge: it contains too much.
    """
    value = decode_json(body, most, values)
    if not isinstance(value, dict):
        raise InvalidJSON(f"the body must be a JSON object, not {_json_name(value)}")
    return value


def _json_name(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
