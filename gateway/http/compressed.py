"""Compressed bodies of requests, unpacked to no more than a plain body may have."""

from __future__ import annotations

import asyncio
import zlib

from ..errors import BadRequest, UnsupportedMedia
from .body import too_large
from .exchange import Exchange

AT_ONCE = 4 << 10  # bytes that are unpacked in the loop, which may become a thousand times as many; more go to a thread
PIECE = 4 << 10  # bytes at a time: what is behind the end of a member is copied, and a body may have very many members


async def plain_body(exchange: Exchange, body: bytes, limit: int) -> bytes:
    """A body without its `Content-Encoding`, which may be gzip or deflate.

    Raises:
        UnsupportedMedia: it is another.
        BadRequest: it is broken.
        TooLarge: it unpacks to more than `limit` bytes.
    """
    encoding = exchange.header(b"content-encoding").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedMedia(f"content-encoding '{encoding[:64]}' is not supported; send gzip, deflate or plain")
    if len(body) <= AT_ONCE:
        return unpacked(body, encoding, limit)
    return await asyncio.to_thread(unpacked, body, encoding, limit)


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """deflate is zlib's format by the standard; some send it without zlib's head."""
    is_bare = encoding == "deflate" and not (body[:1] == b"\x78" and int.from_bytes(body[:2], "big") % 31 == 0)
    wbits = -zlib.MAX_WBITS if is_bare else zlib.MAX_WBITS if encoding == "deflate" else zlib.MAX_WBITS | 16
    parts: list[bytes] = []
    size = at = 0
    while True:
        stream = zlib.decompressobj(wbits)
        while not stream.eof:
            piece = body[at : at + PIECE]
            if not piece:
                raise BadRequest(f"the body is not whole: its {encoding} has no end")
            try:
                part = stream.decompress(piece, limit + 1 - size)
            except zlib.error as error:
                raise BadRequest(f"the body is not {encoding}: {error}") from error
            size += len(part)
            if size > limit:
                raise too_large(limit)
            parts.append(part)
            at += len(piece) - len(stream.unused_data)
        if at == len(body):
            return b"".join(parts)
        if encoding == "deflate":  # gzip may have several members
            raise BadRequest("the body goes on behind the end of its deflate")
