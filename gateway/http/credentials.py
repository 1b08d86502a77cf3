"""Remove the keys of a request from what its model sees: headers and parameters that contain one.

A key is also found if it is percent-encoded, with "+" for a blank or not, or in base64 of either alphabet, with blanks
and line breaks in it and behind any other characters, and in up to LAYERS of these one in the other. It is not found in
other encodings, such as hexadecimal digits or JSON's escapes. What would take more than MOST to search is removed too.
`guards.py` decides whether a key is valid.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

Pair = tuple[bytes, bytes]
# headers that a plugin may use for authorization
HEADERS = frozenset(
    {b"authorization", b"x-api-key", b"cookie", b"proxy-authorization", b"api-key", b"x-goog-api-key", b"x-auth-token"}
)
LAYERS = 3
MOST = 1 << 21  # bytes decoded for one head, which has 64 KiB: some hundredths of a second
PERCENT = 32  # bytes of base64 are decoded in the time of a percent sign
SHORTEST = 48  # bytes of what looks like a key of a gateway
_KEY = re.compile(rb"gw_[0-9a-z]{1,16}_[A-Za-z0-9_-]{43}").search
_BASE64 = re.compile(rb"[A-Za-z0-9+/]{4,}").findall
_PLAIN_ALPHABET = bytes.maketrans(b"-_", b"+/")


def without_keys(
    headers: Iterable[Pair], query: bytes, credential: bytes | None, own_key: bytes = b""
) -> tuple[list[Pair], bytes]:
    """Return the headers and the query without those that contain a key: a given one, or what looks like a gateway's.

    The whole query is left out if a key spans several of its parameters.

    `credential` is the key that let the request in, or None if it needed none. It is empty if a plugin let it in, which
    does not say by which header: then none of `HEADERS` is left. `own_key` is the configured key of the gateway.
    """
    keys = [key for key in (credential, own_key) if key]
    unknown, budget = credential == b"", Budget()
    left = [
        pair
        for pair in headers
        if not (unknown and pair[0] in HEADERS)
        and not holds_key(pair[1], keys, budget)
        and not holds_key(pair[0], keys, budget)
    ]
    if query:
        query = b"&".join(part for part in query.split(b"&") if not holds_key(part, keys, budget))
        across = [key for key in keys if b"&" in key]  # written as it is, it is several parameters
        if across and holds_key(query, across, budget):
            query = b""
    return left, query


class Budget:
    """The work that may still be done for one head. Percent signs that encode nothing stay in every layer."""

    def __init__(self) -> None:
        self.left = MOST

    def pay(self, value: bytes) -> None:
        """
        Raises:
            _TooMuch: there is not enough left to decode a value.
        """
        self.left -= len(value) + PERCENT * value.count(b"%")
        if self.left < 0:
            raise _TooMuch


class _TooMuch(Exception):
    pass


def holds_key(value: bytes, keys: Iterable[bytes], budget: Budget) -> bool:
    """Whether a value contains one of these keys, or what looks like one of a gateway, or takes too much to search."""
    least = min([SHORTEST, *map(len, keys)])
    if len(value) < least:
        return False
    try:
        return any(_KEY(form) is not None or any(key in form for key in keys) for form in _forms(value, least, budget))
    except _TooMuch:
        return True


def holds_encoded_key(value: bytes, keys: Iterable[bytes]) -> bool:
    """Whether a value contains a key percent-encoded. Cheaper than `holds_key`, for every line of a log."""
    for _ in range(LAYERS):
        value = unquote_to_bytes(value)
        if _KEY(value) is not None or any(key in value for key in keys):
            return True
    return False


def _forms(value: bytes, least: int, budget: Budget) -> Iterator[bytes]:
    """Yield a value and what it may encode, if that has so many bytes."""
    seen: set[bytes] = set()
    level = {value}
    for _ in range(LAYERS + 1):
        yield from level
        seen |= level
        level = {form for each in level for form in _decoded(each, least, budget) if len(form) >= least} - seen


def _decoded(value: bytes, least: int, budget: Budget) -> Iterator[bytes]:
    if b"%" in value:
        budget.pay(value)
        yield unquote_to_bytes(value)
    if b"+" in value:
        budget.pay(value)
        yield unquote_to_bytes(value.replace(b"+", b" "))
    for text in _BASE64(value.translate(_PLAIN_ALPHABET, b" \t\r\n")):
        if len(text) * 3 // 4 >= least:
            for start in range(4):  # it may stand behind characters of its own alphabet
                budget.pay(text)
                yield _from_base64(text[start:])


def _from_base64(text: bytes) -> bytes:
    rest = len(text) % 4
    if rest == 1:  # of no byte
        text, rest = text[:-1], 0
    return binascii.a2b_base64(text + b"=" * (-rest % 4))
