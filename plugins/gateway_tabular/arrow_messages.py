"""Look through a body of Arrow IPC before pyarrow reads it: how many messages there are, and whether one is compressed.

pyarrow allocates what a compressed buffer says that it unpacks to, without any limit. So compressed bodies are refused,
and everything else is as large as the body. Only the fields that tell are read, from the flatbuffers of the format.
"""

from __future__ import annotations

import struct

from gateway import BadRequest

MAGIC = b"ARROW1\0\0"  # of a file, which is a stream with a footer
CONTINUES = b"\xff\xff\xff\xff"
MOST_MESSAGES = 10_000
DICTIONARY, RECORDS = 2, 3  # kinds of messages with data
# Fields by their number: of a message, of a dictionary, of a batch of records.
KIND, HEADER, LENGTH = 1, 2, 3
INNER = 1
COMPRESSION = 3


def stream_of(body: bytes) -> memoryview:
    """Return the stream in a body: all of it, or what is between the magic number and the footer of a file.

    Raises:
        BadRequest: it is not Arrow IPC, is cut, has very many messages, or is compressed.
    """
    view = memoryview(body)
    stream = view[len(MAGIC) :] if body.startswith(MAGIC) else view
    try:
        _look_through(stream)
    except (struct.error, ValueError) as error:
        what = f"the body is not a stream or file of Arrow IPC, or is cut: {error}"
        raise BadRequest(what, code="invalid_value") from error
    return stream


def _look_through(stream: memoryview) -> None:
    at = count = 0
    while at < len(stream):
        if bytes(stream[at : at + 4]) != CONTINUES:
            raise ValueError(f"there is no message at byte {at}")
        (size,) = struct.unpack_from("<i", stream, at + 4)
        at += 8
        if size == 0:  # the end; a file has its footer behind it
            return
        if not 0 < size <= len(stream) - at:
            raise ValueError(f"a message at byte {at} is longer than the body")
        if (count := count + 1) > MOST_MESSAGES:
            raise ValueError(f"it has more than {MOST_MESSAGES:,} messages: write larger batches")
        length = _message(stream[at : at + size])
        at += size
        if not 0 <= length <= len(stream) - at:
            raise ValueError(f"the data at byte {at} is longer than the body")
        at += length


def _message(found: memoryview) -> int:
    """Return the length of the data behind a message. Raises `BadRequest` if it is compressed."""
    table = _offset(found, 0)
    place = _field(found, table, KIND)
    kind = found[place] if place else 0
    place = _field(found, table, LENGTH)
    length = struct.unpack_from("<q", found, place)[0] if place else 0
    place = _field(found, table, HEADER)
    if kind in (DICTIONARY, RECORDS) and place:
        batch = _offset(found, place)
        if kind == DICTIONARY:
            place = _field(found, batch, INNER)
            batch = _offset(found, place) if place else -1
        if batch >= 0 and _field(found, batch, COMPRESSION):
            raise BadRequest("the body is compressed: write it with compression=None", code="unsupported_value")
    return int(length)


def _offset(found: memoryview, place: int) -> int:
    """Return the place of the table that an offset names."""
    (offset,) = struct.unpack_from("<I", found, place)
    return _within(found, place + int(offset))


def _field(found: memoryview, table: int, number: int) -> int:
    """Return the place of a field of a table; 0 if it is not there."""
    (back,) = struct.unpack_from("<i", found, table)
    names = _within(found, table - int(back))
    (size,) = struct.unpack_from("<H", found, names)
    entry = 4 + 2 * number
    if entry + 2 > size:
        return 0
    (offset,) = struct.unpack_from("<H", found, names + entry)
    return _within(found, table + int(offset)) if offset else 0


def _within(found: memoryview, place: int) -> int:
    if not 0 <= place < len(found):
        raise ValueError("a message names a place outside of it")
    return place
