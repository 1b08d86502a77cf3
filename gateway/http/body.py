"""Reading and decoding request bodies, bounded in size, time and number of pieces."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from ..call import ClientLeft
from ..errors import BadRequest, InvalidJSON, SlowBody, TooLarge
from ..wording import counted
from .protocol import DIGITS

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MAX_EVENTS, MIN_MEAN = 4096, 256  # more pieces than this, smaller than that on average, are a flood
MAX_DEPTH = 64
TOO_DEEP = f"the body is nested more than {MAX_DEPTH} levels deep"
MAX_ITEMS, MAX_TEXTS = 1 << 17, 1 << 20  # arrays and objects, and texts, of a JSON body
MAX_KEYS = 1 << 18  # a key takes the time of several texts
MAX_IDS = 1 << 20  # values of a body that holds token ids; each is looked at, which a plain number is not
MOST_IDS = 1 << 22  # however long a context is that a model declares: about a second
MAX_DEAR, LONG_NUMBER = 1 << 15, 100  # numbers that take microseconds each; so many digits make one of them
MAX_EXPONENTS = 1 << 21  # numbers of two digits in the exponent, of which a few take half a microsecond
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
        read_on(cycle)
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
        if message.get("more_body", False):
            body = await self._rest(receive, body, limit)
        elif len(body) > limit:
            raise too_large(limit)
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

    async def _rest(self, receive: Any, body: bytes, limit: int) -> bytes:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._total
        whole = BytesIO()  # whose value is taken without a copy, which would take a turn of the loop for a large one
        whole.write(body)
        parts, size, more = 1, len(body), True
        while more:
            try:
                async with asyncio.timeout_at(min(end, loop.time() + self._idle)):
                    message = await receive()
            except TimeoutError:
                raise slow_body("body_timeout" if loop.time() >= end else "body_idle_timeout") from None
            if message["type"] == "http.disconnect":
                raise ClientLeft
            part = message.get("body", b"")
            size += len(part)
            whole.write(part)
            parts += 1
            more = message.get("more_body", False)
            if size > limit:
                raise too_large(limit)
            if parts > MAX_EVENTS and size / parts < MIN_MEAN:
                raise BadRequest("the body comes in too many tiny chunks", headers={"connection": "close"})
        return whole.getvalue()


def read_on(cycle: RequestResponseCycle) -> None:
    """Read on where a large body has paused that: the end of the connection would not be seen before the answer."""
    if cycle.flow.read_paused:
        cycle.flow.resume_reading()


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {counted(limit, 'byte')}", headers={"connection": "close"})


def slow_body(limit: str) -> SlowBody:
    return SlowBody("the body did not arrive in time", headers={"connection": "close"}, cause=limit)


BOM = codecs.BOM_UTF8
_decode = msgspec.json.Decoder().decode


def decode_json(body: bytes, most: int = MAX_ITEMS, values: int | None = None) -> Any:
    """One JSON value, or InvalidJSON or TooLarge and nothing else, whatever the bytes are.

    Strict: UTF-8, no NaN or Infinity, at most 64 levels, numbers that fit 64 bits. Of duplicate keys the last wins.
    """
    items = body.count(b"[") + body.count(b"{")
    _check_amount(body, most, values)
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


def _check_amount(body: bytes, most: int, values: int | None) -> None:
    """Refuse JSON that would take far more time and memory than it has bytes: what is cheap to send is dear to read.

    `most` is how many arrays and objects there may be, `values` how many values of any kind where that is bounded.

    Raises:
        TooLarge: there are more, or too many texts or keys, or numbers that are dear.
    """
    if len(body) <= min(2 * most, 2 * MAX_TEXTS, 6 * MAX_DEAR):
        return  # each is so many bytes at least
    bare = body
    if b"\\" in body:
        bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # no quote is left but those around texts
    if bare.count(b'"') > 2 * MAX_TEXTS:
        raise TooLarge(f"the body holds more than {MAX_TEXTS} texts; send it in several requests")
    outside = b"".join(bare.split(b'"')[::2])
    if outside.count(b"[") + outside.count(b"{") > most:
        raise TooLarge(f"the body holds more than {most} arrays and objects; send it in several requests")
    if outside.count(b":") > MAX_KEYS:
        raise TooLarge(f"the body holds more than {MAX_KEYS} keys of objects; send it in several requests")
    if values is not None and outside.count(b",") >= values:
        text = f"the body holds more than {values} token ids and other values"
        bound = ", the most that any model may be sent at once" if values == MOST_IDS else ""
        raise TooLarge(f"{text}{bound}; send it in several requests")
    if _has_dear_numbers(outside):
        raise TooLarge(
            f"the body holds more than {MAX_DEAR} numbers with large exponents or very many digits, which take long to "
            "read; send it in several requests"
        )


# Most numbers take the decoder nanoseconds. One that is far from 1, or near the middle between two that a float can be,
# takes it 20 microseconds, such as 1e308: a megabyte of those would be four seconds.
_DIGITS = bytes.maketrans(b"123456789.E", b"1111111111e")
_ALIKE = bytes.maketrans(b"0123456789.", b"0" * 11)
_far = re.compile(rb"e(?:0*1[01]{2}|(?<=[01]{20}e)0*1[01])").finditer
_rather_far = re.compile(rb"e0*1[01]").finditer


def _has_dear_numbers(outside: bytes) -> bool:
    """Whether there are more of them than can be read in a second, in JSON without its texts."""
    if outside.translate(_ALIKE).count(b"0" * LONG_NUMBER) > MAX_DEAR:
        return True
    if outside.count(b"e") + outside.count(b"E") <= MAX_DEAR:
        return False
    numbers = outside.translate(_DIGITS, b"+-")
    return _are_more(_far(numbers), MAX_DEAR) or _are_more(_rather_far(numbers), MAX_EXPONENTS)


def _are_more(found: Iterator[object], most: int) -> bool:
    return next(islice(found, most, None), None) is not None


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


def decode_object(body: bytes, most: int = MAX_ITEMS, values: int | None = None) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InvalidJSON: not JSON, or not an object.
        TooLarge: it holds too much.
    """
    value = decode_json(body, most, values)
    if not isinstance(value, dict):
        raise InvalidJSON(f"the body must be a JSON object, not {_json_name(value)}")
    return value


def _json_name(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
