"""Look through a body of Arrow IPC before pyarrow reads it, to find out whether it stands for more than it is.

pyarrow allocates what a compressed buffer says that it unpacks to, without any limit, also where the metadata of a
message says how it is compressed. It makes an object of each mention of a part of a schema, copies a dictionary for
each addition to it, and checks it for each batch. So such bodies are refused, and everything else is as large as the
body. Only the fields that tell are read, from the flatbuffers of the format.
"""

from __future__ import annotations

import struct

from gateway import BadRequest

from .arrow_tables import Table, Weight, root

MAGIC = b"ARROW1\0\0"  # of a file, which is a stream with a footer
CONTINUES = b"\xff\xff\xff\xff"
MOST_MESSAGES = 10_000
MOST_FIELDS = 200_000  # columns, and what is in them
LARGEST_SCHEMA = 64 << 20  # bytes of its names and metadata
MOST_CHECKED = 1 << 30  # bytes of dictionaries, once for each batch
SCHEMA, DICTIONARY, RECORDS = 1, 2, 3  # kinds of messages
# Fields by their number: of a message, of a dictionary, of a batch of records.
KIND, HEADER, LENGTH, METADATA = 1, 2, 3, 4
NAME, INNER, ADDS = 0, 1, 2
BUFFERS, COMPRESSION, MORE = 2, 3, 4


def stream_of(body: bytes) -> memoryview:
    """Return the stream in a body: all of it, or what is between the magic number and the footer of a file.

    Raises:
        BadRequest: it is not Arrow IPC, is cut, has very many messages, or may unpack to more than it is.
    """
    view = memoryview(body)
    stream = view[len(MAGIC) :] if body.startswith(MAGIC) else view
    try:
        _Look(stream).through()
    except (struct.error, ValueError) as error:
        what = f"the body is not a stream or file of Arrow IPC, or is cut: {error}"
        raise BadRequest(what, code="invalid_value") from error
    return stream


class _Look:
    def __init__(self, stream: memoryview) -> None:
        self._stream = stream
        self._weight = Weight(MOST_FIELDS, LARGEST_SCHEMA)
        self._dictionaries: dict[int, int] = {}  # bytes by their number
        self._checked = 0

    def through(self) -> None:
        stream, at, count = self._stream, 0, 0
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
            length = self._message(root(stream[at : at + size]))
            at += size
            if not 0 <= length <= len(stream) - at:
                raise ValueError(f"the data at byte {at} is longer than the body")
            at += length

    def _message(self, message: Table) -> int:
        """Return the length of the data behind a message."""
        kind, length, header = message.number(KIND, "<B"), message.number(LENGTH, "<q"), message.table(HEADER)
        if message.length(METADATA):
            raise ValueError("a message has metadata of its own, which only the schema may have")
        if header is None:
            return length
        if kind == SCHEMA:
            self._weight.schema(header)
        elif kind == DICTIONARY:
            if header.number(ADDS, "<B"):
                raise ValueError("a dictionary is added to: write whole dictionaries (emit_dictionary_deltas=False)")
            self._dictionaries[header.number(NAME, "<q")] = length
            if (inner := header.table(INNER)) is not None:
                _check_batch(inner)
        elif kind == RECORDS:
            _check_batch(header)
            self._checked += sum(self._dictionaries.values())
            if self._checked > MOST_CHECKED:
                raise ValueError("it has many batches of large dictionaries: write larger batches")
        return length


def _check_batch(batch: Table) -> None:
    """Refuse a batch that is compressed, or says that a column has more buffers than the batch."""
    if batch.place(COMPRESSION):
        raise BadRequest("the body is compressed: write it with compression=None", code="unsupported_value")
    if any(not 0 <= each <= batch.length(BUFFERS) for each in batch.numbers(MORE)):
        raise ValueError("a column has more buffers than its batch")
