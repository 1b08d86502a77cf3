"""Reading and decoding request bodies, bounded in size, time and number of pieces."""

from __future__ import annotations

import asyncio
import codecs
from typing import TYPE_CHECKING, Any

import msgspec

from ..call import ClientLeft
from ..errors import BadRequest, InvalidJSON, SlowBody, TooLarge
from .protocol import DIGITS

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MAX_EVENTS, MIN_MEAN = 4096, 256  # more pieces than this, smaller than that on average, are a flood
MAX_DEPTH = 64
TOO_DEEP = f"the body is nested more than {MAX_DEPTH} levels deep"
MAX_ITEMS, MAX_TEXTS = 1 << 17, 1 << 20  # arrays and objects, and texts, of a JSON body
IDLE_TIMEOUT, TOTAL_TIMEOUT = 15.0, 60.0  # seconds; the settings may change them


class BodyReader:
    """Reads bodies by the settings of one gateway."""

    def __init__(self, idle_timeout: float = IDLE_TIMEOUT, total_timeout: float = TOTAL_TIMEOUT) -> None:
        self._idle, self._total = idle_timeout, total_timeout

    @staticmethod
    def take(cycle: RequestResponseCycle, limit: int) -> bytes:
        """A body that came together with its head, out of uvicorn's cycle."""
        whole = bytes(cycle.body)
        if len(whole) > limit:
            raise too_large(limit)
        cycle.body = bytearray()
        return whole

    async def read(
        self, receive: Any, length: bytes | None, limit: int, cycle: RequestResponseCycle | None = None
    ) -> bytes:
        """The whole body.

        Raises:
            TooLarge: over `limit` bytes; before reading when the head says so.
            SlowBody: no progress, or not done in time.
            ClientLeft: it hung up in the middle.
        """
        if length is not None and length.isdigit() and int(length[-DIGITS:]) > limit:
            raise too_large(limit)
        if cycle is not None and not cycle.more_body and not cycle.disconnected:
            return self.take(cycle, limit)
        message = await self._first(receive)
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            if len(body) > limit:
                raise too_large(limit)
            return body
        return await self._rest(receive, body, limit)

    async def _first(self, receive: Any) -> Any:
        try:
            async with asyncio.timeout(self._idle):
                message = await receive()
        except TimeoutError:
            raise slow_body() from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        return message

    async def _rest(self, receive: Any, body: bytes, limit: int) -> bytes:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._total
        parts, size, more = [body], len(body), True
        while more:
            try:
                async with asyncio.timeout_at(min(end, loop.time() + self._idle)):
                    message = await receive()
            except TimeoutError:
                raise slow_body() from None
            if message["type"] == "http.disconnect":
                raise ClientLeft
            part = message.get("body", b"")
            size += len(part)
            parts.append(part)
            more = message.get("more_body", False)
            if size > limit:
                raise too_large(limit)
            if len(parts) > MAX_EVENTS and size / len(parts) < MIN_MEAN:
                raise BadRequest("the body comes in too many tiny chunks", headers={"connection": "close"})
        return b"".join(parts)


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit} bytes", headers={"connection": "close"})


def slow_body() -> SlowBody:
    return SlowBody("the body did not arrive in time", headers={"connection": "close"})


BOM = codecs.BOM_UTF8
_decode = msgspec.json.Decoder().decode


def decode_json(body: bytes, most: int = MAX_ITEMS) -> Any:
    """One JSON value, or InvalidJSON or TooLarge and nothing else, whatever the bytes are.

    Strict: UTF-8, no NaN or Infinity, at most 64 levels, numbers that fit 64 bits. Of duplicate keys the last wins.
    """
    items = body.count(b"[") + body.count(b"{")
    _check_amount(body, items, most)
    if not body:
        raise InvalidJSON("the body is empty; send a JSON object")
    if body.startswith(BOM):  # RFC 8259 lets a reader ignore it; PowerShell and .NET write it
        body = body[len(BOM) :]
    try:
        value = _decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        text = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidJSON(f"the body is not valid JSON: {text}") from error
    if items > MAX_DEPTH and is_deep(body):
        raise InvalidJSON(TOO_DEEP)
    return value


def _check_amount(body: bytes, items: int, most: int) -> None:
    """Refuse JSON that would take far more time and memory than it has bytes: what is cheap to send is dear to read.

    `items` are the brackets that open, in texts too; `most` is how many arrays and objects there may be.

    Raises:
        TooLarge: there are more, or too many texts.
    """
    if len(body) <= 2 * min(most, MAX_TEXTS):
        return  # each is two bytes at least
    if items <= most and body.count(b'"') <= 2 * MAX_TEXTS:
        return
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # no quote is left but those around texts
    if bare.count(b'"') > 2 * MAX_TEXTS:
        raise TooLarge(f"the body holds more than {MAX_TEXTS} texts; send it in several requests")
    outside = b"".join(bare.split(b'"')[::2])
    if outside.count(b"[") + outside.count(b"{") > most:
        raise TooLarge(f"the body holds more than {most} arrays and objects; send it in several requests")


_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


def is_deep(body: bytes) -> bool:
    """Whether valid JSON is nested deeper than MAX_DEPTH, by taking its innermost brackets away level by level.

    All of it runs in C: a walk over the decoded value would visit every number of a large body.
    """
    texts = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    brackets = b"".join(texts[::2]).translate(None, _NO_BRACKET)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b".").replace(b"{}", b".").replace(b".", b"")
    return bool(brackets)


def decode_object(body: bytes, most: int = MAX_ITEMS) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidJSON: not JSON, or not an object.
        TooLarge: it holds too much.
    """
    value = decode_json(body, most)
    if not isinstance(value, dict):
        raise InvalidJSON(f"the body must be a JSON object, not {_json_name(value)}")
    return value


def _json_name(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
