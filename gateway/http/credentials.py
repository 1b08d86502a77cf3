"""Remove the keys of a request from what its model sees: headers and parameters that contain one, in any encoding.

`guards.py` decides whether a key is valid.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

Pair = tuple[bytes, bytes]
# headers that a plugin may use for authorization
HEADERS = frozenset(
    {b"authorization", b"x-api-key", b"cookie", b"proxy-authorization", b"api-key", b"x-goog-api-key", b"x-auth-token"}
)
LAYERS = 3  # how often a value may be percent-encoded
_KEY = re.compile(rb"gw_[0-9a-z]{1,16}_[A-Za-z0-9_-]{43}").search
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{12,}").findall
_URLSAFE = bytes.maketrans(b"-_", b"+/")


def without_key(headers: Iterable[Pair], query: bytes, key: bytes) -> tuple[list[Pair], bytes]:
    """Return the headers and the query without those that contain this key, or whatever looks like one of a gateway.

    `key` is empty if a plugin let the request in, which does not say by which header: then none of `HEADERS` is left.
    """
    left = [
        pair
        for pair in headers
        if not (_has_key(pair[1], key) if key else pair[0] in HEADERS or _has_key(pair[1], b""))
    ]
    if query:
        query = b"&".join(part for part in query.split(b"&") if not _has_key(part, key))
    return left, query


def _has_key(value: bytes, key: bytes) -> bool:
    return any((key and key in form) or _KEY(form) is not None for form in _forms(value))


def _forms(value: bytes) -> Iterator[bytes]:
    """Yield a value as it is, percent-decoded, and what is encoded in it as base64, as for `Basic`."""
    seen = []
    for _ in range(LAYERS + 1):
        seen.append(value)
        yield value
        if b"+" in value:
            yield unquote_to_bytes(value.replace(b"+", b" "))
        if b"%" not in value or (decoded := unquote_to_bytes(value)) == value:
            break
        value = decoded
    for form in seen:
        for text in _BASE64(form):
            whole = text[: len(text) // 4 * 4 + (len(text) % 4 if len(text) % 4 > 1 else 0)]
            with_padding = whole.translate(_URLSAFE) + b"=" * (-len(whole) % 4)
            try:
                yield base64.b64decode(with_padding)
            except (binascii.Error, ValueError):
                continue
