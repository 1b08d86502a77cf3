"""Decompress request bodies, to at most the size that an uncompressed body may have."""

from __future__ import annotations

import zlib

from ..errors import BadRequest, UnsupportedMedia
from .collected_body import MAX_READS, MIN_MEAN, too_large
from .exchange import Exchange

AT_ONCE = 4 << 10  # bytes of a plain body decoded on the loop; larger ones and all compressed ones go to a thread
PIECE = 4 << 10  # bytes at a time: zlib copies what follows a member, and a body may have many members


def encoding_of(exchange: Exchange) -> str:
    """Return the `Content-Encoding` of a body: gzip, x-gzip or deflate; "" for none.

    Raises:
        UnsupportedMedia: another encoding.
    """
    encoding = exchange.header(b"content-encoding").strip().lower()
    if encoding in ("", "identity"):
        return ""
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise UnsupportedMedia(f"content-encoding '{encoding[:64]}' is not supported; send gzip, deflate or plain")
    return encoding


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """Return the decompressed body. By the standard deflate is the zlib format; some clients omit the zlib header.

    Raises:
        BadRequest: it is broken, or has very many tiny members, each of which takes long.
        TooLarge: it decompresses to more than `limit` bytes.
    """
    is_bare = encoding == "deflate" and not (body[:1] == b"\x78" and int.from_bytes(body[:2], "big") % 31 == 0)
    wbits = -zlib.MAX_WBITS if is_bare else zlib.MAX_WBITS if encoding == "deflate" else zlib.MAX_WBITS | 16
    whole = bytearray()
    at = members = 0
    while True:
        members += 1
        if members > MAX_READS and at / members < MIN_MEAN:
            raise BadRequest(f"the body is {encoding} in too many tiny members")
        stream = zlib.decompressobj(wbits)
        while not stream.eof:
            piece = body[at : at + PIECE]
            if not piece:
                raise BadRequest(f"the body is incomplete: its {encoding} data has no end")
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
            raise BadRequest("the body has more data after the end of its deflate stream")
