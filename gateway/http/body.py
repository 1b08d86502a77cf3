"""Read and decode request bodies, with bounds on size, time and number of pieces."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import BadRequest, InvalidJSON, SlowBody, TooLarge
from ..runners.pending import ClientLeft
from ..wording import counted
from .request_heads import DIGITS

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

MAX_EVENTS, MIN_MEAN = 4096, 256  # more pieces than this with a smaller mean size are refused
MAX_DEPTH = 64
TOO_DEEP = f"the body is nested more than {MAX_DEPTH} levels deep"
MAX_ITEMS, MAX_TEXTS = 1 << 17, 1 << 20  # arrays and objects, and strings, in a JSON body
MAX_KEYS = 1 << 18  # a key takes as long to decode as several strings
MAX_IDS = 1 << 20  # values in a body with token ids: each id is checked, unlike other numbers
MOST_IDS = 1 << 22  # an upper bound for any declared context length: about a second
MAX_DEAR, LONG_NUMBER = 1 << 14, 100  # numbers that take microseconds each; this many digits make a number one of them
MAX_EXPONENTS = 1 << 19  # numbers with a two-digit exponent; some of them take half a microsecond
MAX_COST = 300_000_000  # nanoseconds to decode all kinds together: one call, during which nothing else runs
PIECE = 1 << 20  # bytes that are counted in one step
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
        self, receive: Any, length: bytes | None, limit: int, cycle: RequestResponseCycle | None = None
    ) -> bytes:
        """Return the whole body.

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
        whole = BytesIO()  # getvalue() does not copy; copying a large body would block the loop
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
                raise BadRequest("the body arrives in too many tiny chunks", headers={"connection": "close"})
        return whole.getvalue()


def read_on(cycle: RequestResponseCycle) -> None:
    """Resume reading where a large body paused it. Otherwise a disconnect would not be noticed before the answer."""
    if cycle.flow.read_paused:
        cycle.flow.resume_reading()


def too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is larger than {counted(limit, 'byte')}", headers={"connection": "close"})


def slow_body(limit: str) -> SlowBody:
    return SlowBody("the body did not arrive in time", headers={"connection": "close"}, cause=limit)


BOM = codecs.BOM_UTF8
_decode = msgspec.json.Decoder().decode


def decode_json(body: bytes, most: int = MAX_ITEMS, values: int | None = None) -> Any:
    """Decode one JSON value. Whatever the bytes are, it raises only InvalidJSON or TooLarge.

    Strict: UTF-8, no NaN or Infinity, at most 64 levels, numbers that fit in 64 bits. Of duplicate keys the last wins.
    """
    items = body.count(b"[") + body.count(b"{")
    _check_amount(body, most, values)
    if not body:
        raise InvalidJSON("the body is empty; send a JSON object")
    if body.startswith(BOM):  # RFC 8259 allows ignoring it; PowerShell and .NET write it
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
    """Refuse JSON that takes far more time and memory to decode than its size suggests.

    `most` is the maximum number of arrays and objects. `values` is the maximum number of values of any kind, if
    bounded.

    Raises:
        TooLarge: there are more, too many strings, keys or expensive numbers, or all together take too long.
    """
    if len(body) <= min(2 * most, 2 * MAX_TEXTS, 6 * MAX_DEAR, 2 * (MAX_IDS if values is None else values)):
        return  # too short to exceed any of these bounds
    found = _Amount()
    for outside, quotes in _outside(body):
        found.add(outside, quotes)
        if found.quotes > 2 * MAX_TEXTS:
            raise _too_much(f"more than {MAX_TEXTS} strings")
        if found.items > most:
            raise _too_much(f"more than {most} arrays and objects")
        if found.keys > MAX_KEYS:
            raise _too_much(f"more than {MAX_KEYS} keys of objects")
        if values is not None and found.commas >= values:
            bound = ", the limit of a request to any model" if values == MOST_IDS else ""
            raise _too_much(f"more than {values} token ids and other values{bound}")
        if found.dear > MAX_DEAR or found.exponents > MAX_EXPONENTS:
            raise _too_much(
                f"more than {MAX_DEAR} numbers with large exponents or very many digits, which take long to read"
            )
        if found.cost > MAX_COST:
            raise _too_much("strings, numbers with many digits and other values that together take long to read")


def _too_much(what: str) -> TooLarge:
    return TooLarge(f"the body holds {what}; send it in several requests")


def _outside(body: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield what is outside of strings, piece by piece, each with the number of quotes in its piece.

    A single step over a large body would hold the interpreter's lock, and so the event loop, for its whole duration.
    """
    at, inside = 0, False
    while at < len(body):
        end = at + PIECE
        piece = body[at : body.rfind(b",", max(at, end - LONGEST_NUMBER), end) + 1 or end]  # no number is cut in two
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # the last character is escaped by it
            piece = body[at : at + len(piece) + 1]
        at += len(piece)
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")  # only the quotes around strings are left
        texts = piece.split(b'"')
        yield b"".join(texts[inside::2]), len(texts) - 1
        inside ^= len(texts) % 2 == 0


# Most numbers take the decoder nanoseconds. A number far from 1, or close to the midpoint between two floats, takes 20
# microseconds, such as 1e308. A megabyte of those would take four seconds. With a smaller exponent or none, a midpoint
# takes less than a microsecond, but it may be any number of 20 digits, or of 16 before the point.
_DIGITS = bytes.maketrans(b"123456789.E", b"1111111111e")
_ALIKE = bytes.maketrans(b"0123456789.", b"0" * 11)
_WHOLE = bytes.maketrans(b"123456789", b"0" * 9)
_NOT_ZERO = bytes(ord("1") if byte in b"123456789" else byte if byte in b"0." else ord(",") for byte in range(256))
_far = re.compile(rb"e(?:0*1[01]{2}|(?<=[01]{20}e)0*1[01])").findall
_rather_far = re.compile(rb"e0*1[01]").findall
LONGEST_NUMBER = 1 << 10  # bytes; one that is longer may be cut, and is counted twice or not at all
LEADING = 7  # zeros at the beginning of a number as programs write it: they do not count as digits


class _Amount:
    """What a body holds so far, and the nanoseconds that it takes to decode on a usual machine."""

    __slots__ = ("commas", "cost", "dear", "exponents", "items", "keys", "quotes")

    def __init__(self) -> None:
        self.items = self.quotes = self.keys = self.commas = self.dear = self.exponents = self.cost = 0

    def add(self, outside: bytes, quotes: int) -> None:
        """Add a piece, given by what is outside of its strings and the number of its quotes."""
        items, keys = outside.count(b"[") + outside.count(b"{"), outside.count(b":")
        commas, points = outside.count(b","), outside.count(b".")
        dear, exponents = _exponents(outside)
        alike = outside.translate(_ALIKE)
        dear += alike.count(b"0" * LONG_NUMBER)
        self.items, self.quotes, self.keys = self.items + items, self.quotes + quotes, self.keys + keys
        self.commas, self.dear, self.exponents = self.commas + commas, self.dear + dear, self.exponents + exponents
        long = outside.translate(_WHOLE).count(b"0" * 16 + b".") if points else 0
        if b"0" * 20 in alike:
            long += _long(outside)
        self.cost += 150 * items + 20 * quotes + 180 * keys + 8 * commas + 25 * points
        self.cost += 10_000 * dear + 400 * exponents + 600 * long


def _exponents(outside: bytes) -> tuple[int, int]:
    """Return how many numbers are expensive because of a large exponent, and how many have one of two digits."""
    if b"e" not in outside and b"E" not in outside:
        return 0, 0
    numbers = outside.translate(_DIGITS, b"+-")
    if b"e0" not in numbers and b"e1" not in numbers:  # of true and false
        return 0, 0
    far = len(_far(numbers))
    return far, len(_rather_far(numbers))


def _long(outside: bytes) -> int:
    """Return how many numbers have 20 digits, without zeros at the beginning. Very long ones count more than once."""
    numbers = outside.translate(_NOT_ZERO, b".")
    for _ in range(LEADING):
        numbers = numbers.replace(b",0", b",")
    return numbers.translate(_WHOLE).count(b"0" * 20)


_NO_BRACKET = bytes(set(range(256)) - set(b"[]{}"))


def is_deep(body: bytes) -> bool:
    """Whether valid JSON is nested deeper than MAX_DEPTH. It removes the innermost brackets level by level.

    All of it runs in C. A walk over the decoded value would visit every number of a large body.
    """
    brackets = b"".join(outside.translate(None, _NO_BRACKET) for outside, _ in _outside(body))
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
