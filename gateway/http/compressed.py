"""Compressed bodies of requests, unpacked to no more than a plain body may have."""

from __future__ import annotations

import zlib

from ..errors import BadRequest, UnsupportedMedia
from .body import MAX_EVENTS, MIN_MEAN, too_large
from .exchange import Exchange

AT_ONCE = 4 << 10  # bytes of a plain body that are looked at in the loop; more, and all that is packed, go to a thread
PIECE = 4 << 10  # bytes at a time: what is behind the end of a member is copied, and a body may have very many members


def encoding_of(exchange: Exchange) -> str:
    """What a body is packed with by its `Content-Encoding`: gzip, x-gzip or deflate; "" for nothing.

    Raises:
        UnsupportedMedia: it is another.
    """
    encoding = exchange.header(b"content-encoding").strip().lower()
    if encoding in ("", "identity"):
        return ""
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedMedia(f"content-encoding '{encoding[:64]}' is not supported; send gzip, deflate or plain")
    return encoding


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its packing. deflate is zlib's format by the standard; some send it without zlib's head.

    Raises:
        BadRequest: it is broken, or in very many tiny pieces, each of which takes long.
        TooLarge: it unpacks to more than `limit` bytes.
    """
    is_bare = encoding == "deflate" and not (body[:1] == b"\x78" and int.from_bytes(body[:2], "big") % 31 == 0)
    wbits = -zlib.MAX_WBITS if is_bare else zlib.MAX_WBITS if encoding == "deflate" else zlib.MAX_WBITS | 16
    whole = bytearray()
    at = members = 0
    while True:
        members += 1
        if members > MAX_EVENTS and at / members < MIN_MEAN:
            raise BadRequest(f"the body is {encoding} in too many tiny members")
        stream = zlib.decompressobj(wbits)
        while not stream.eof:
            piece = body[at : at + PIECE]
            if not piece:
                raise BadRequest(f"the body is not whole: its {encoding} has no end")
            try:
                part = stream.decompress(piece, limit + 1 - len(whole))
            except zlib.error as error:
                raise BadRequest(f"the body is not {encoding}: {error}") from error
            whole += part
            if len(whole) > limit:
                raise too_large(limit)
            at += len(piece) - len(stream.unused_data)
        if at == len(body):
            return bytes(whole)
        if encoding == "deflate":  # gzip may have several members
            raise BadRequest("the body goes on behind the end of its deflate")
