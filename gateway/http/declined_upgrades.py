"""Read the body of a request whose `Upgrade` header is ignored. Java's client sends one with every first request.

The parser ends such a message at its head and takes the body for data of the new protocol. It reports where the head
ends, so that no byte has to be searched for or changed: a second parser, which knows the length of the body,
continues from there.
"""

from __future__ import annotations

from typing import Any

import httptools

_FRAMING = (b"content-length", b"transfer-encoding")


def parser_of_body(protocol: Any) -> httptools.HttpRequestParser:
    """Return a parser for the body of the request whose headers `protocol` has, and for the requests after it."""
    calls = _Calls(protocol)
    parser = httptools.HttpRequestParser(calls)
    lines = [b"%b: %b\r\n" % pair for pair in protocol.headers if pair[0] in _FRAMING]
    parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(lines))
    calls.is_told = True
    return parser


class _Calls:
    """The callbacks of the second parser: those of the protocol, except for the head that only declares the body."""

    def __init__(self, protocol: Any) -> None:
        self._protocol, self.is_told = protocol, False
        self.on_body, self.on_message_complete = protocol.on_body, protocol.on_message_complete

    def on_message_begin(self) -> None:
        if self.is_told:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self.is_told:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.is_told:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.is_told:
            self._protocol.on_headers_complete()
