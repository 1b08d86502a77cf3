"""Request heads: their size limits, and parts that two parsers could read differently."""

from __future__ import annotations

import re

Headers = list[tuple[bytes, bytes]]
MAX_HEAD = 64 * 1024  # bytes of the request line and headers together
MAX_HEADERS = 100
MAX_URL = 8 * 1024
DIGITS = 20  # digits of a valid content-length; leading zeros have no limit, and int() refuses very long texts

_AUTHORITY = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)").match


def length_in(headers: Headers) -> int:
    """Return the body length that the head declares, or 0 if there is none or it is invalid."""
    lengths = (value for name, value in headers if name == b"content-length" and value.isdigit())
    return int(next(lengths, b"0")[-DIGITS:])


def has_body(headers: Headers) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t") != b"")
        for name, value in headers
    )


def take_host_of(url: bytes, headers: Headers, version: str) -> None:
    """Use the host of an absolute-form request target instead of the Host header (RFC 9112, 3.2.2).

    Otherwise a host would be used that the guard has not checked.
    """
    found = _AUTHORITY(url)
    if found is None:
        return
    headers[:] = [(name, found[1] if name == b"host" else value) for name, value in headers]
    if version == "1.0" and all(name != b"host" for name, _ in headers):
        headers.append((b"host", found[1]))
