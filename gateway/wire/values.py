"""Encode values for the channel: msgpack with extensions for arrays and Pydantic instances.

Invalid values, and values that would cost much more memory than their size, raise `WireError`.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from typing import Any

import msgspec

from .weighing import TooHeavy, weigh

MAX_DIMENSIONS = 32  # of an array; the limit of NumPy 1
MAX_ROWS = 1 << 16  # of one Text
ARRAY_EXT, STRUCTURED_EXT, TEXT_EXT = 1, 2, 3  # msgpack extension codes
_WIDTH = struct.Struct("<I")
_LARGEST = (b"\x7f", b"\xff")  # the last byte of infinities and NaN, and of the largest finite float32


class WireError(Exception):
    """The peer broke the protocol; the channel cannot be used any more."""


class Array:
    """A numeric array for the gateway: packed bytes, never a list of Python floats.

    `data` is little-endian float32 in row-major order, `shape` the dimensions. Not a dataclass, because msgspec would
    encode that as a map.
    """

    __slots__ = ("data", "shape")

    def __init__(self, shape: tuple[int, ...], data: bytes) -> None:
        self.shape, self.data = shape, data

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and (self.shape, self.data) == (other.shape, other.data)

    __hash__ = None  # type: ignore[assignment]  # a dict of such keys could be made to take for ever

    def __repr__(self) -> str:
        return f"Array(shape={self.shape})"


class Text:
    """Vectors as JSON text, one text for each vector, which the gateway copies into its answer.

    `width` is the number of dimensions. A text contains no line break.
    """

    __slots__ = ("rows", "width")

    def __init__(self, width: int, rows: list[bytes]) -> None:
        self.width, self.rows = width, rows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Text) and (self.width, self.rows) == (other.width, other.rows)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Text(width={self.width}, rows={len(self.rows)})"


class Structured:
    """A Pydantic instance for the gateway: its set fields, and its JSON.

    The route decides which of the two is used: a delta, or the answer to a response_format.
    """

    __slots__ = ("fields", "json")

    def __init__(self, fields: dict[str, Any], json: str) -> None:
        self.fields, self.json = fields, json

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structured) and (self.fields, self.json) == (other.fields, other.json)

    __hash__ = None  # type: ignore[assignment]  # as above


def _encode_extension(value: Any) -> Any:
    if isinstance(value, Array):
        shape = struct.pack(f"<B{len(value.shape)}I", len(value.shape), *value.shape)
        return msgspec.msgpack.Ext(ARRAY_EXT, shape + value.data)
    if isinstance(value, Text):
        return msgspec.msgpack.Ext(TEXT_EXT, _WIDTH.pack(value.width) + b"\n".join(value.rows))
    if isinstance(value, Structured):
        return msgspec.msgpack.Ext(STRUCTURED_EXT, encode([value.fields, value.json]))
    raise NotImplementedError(f"{type(value).__name__} cannot travel over the channel")


def _decode_extension(code: int, view: memoryview) -> Any:
    if code == STRUCTURED_EXT:
        return Structured(*_decode_structured(view))
    if code == TEXT_EXT and len(view) >= _WIDTH.size:
        rows = bytes(view[_WIDTH.size :]).split(b"\n", MAX_ROWS)
        if len(rows) > MAX_ROWS:
            raise WireError(f"more than {MAX_ROWS} vectors at once")
        return Text(int.from_bytes(view[: _WIDTH.size], "little"), rows)
    if code != ARRAY_EXT or not len(view):
        raise WireError(f"unknown msgpack extension {code}")
    dimensions = view[0]
    if dimensions > MAX_DIMENSIONS:
        raise WireError(f"array of {dimensions} dimensions")
    start = 1 + 4 * dimensions
    if len(view) < start:
        raise WireError("array extension too short")
    shape = struct.unpack_from(f"<{dimensions}I", view, 1)
    data = bytes(view[start:])
    expected = 4
    for n in shape:
        expected *= n
    if len(data) != expected or not data:  # an empty dimension would allow a claim of four billion rows
        raise WireError(f"array of shape {shape} with {len(data)} bytes")
    return Array(shape, data)


BROKEN = (msgspec.DecodeError, struct.error, UnicodeDecodeError, RecursionError)  # exceptions of decoding

_encoder = msgspec.msgpack.Encoder(enc_hook=_encode_extension)
encode = _encoder.encode
encode_into = _encoder.encode_into


def is_finite(packed: bytes) -> bool:
    """Whether little-endian float32 numbers are all finite. Looks at the bytes of the exponents first."""
    highest = packed[3::4]
    if not any(byte in highest for byte in _LARGEST):
        return True
    return all(map(math.isfinite, memoryview(packed).cast("f")))


def decoder_of(cls: Any) -> Callable[[bytes | memoryview], Any]:
    """Return a decoder for this type. It raises one of `BROKEN`."""
    return msgspec.msgpack.Decoder(cls, ext_hook=_decode_extension).decode


decode_raw = decoder_of(Any)
_decode_structured = decoder_of(tuple[dict[str, Any], str])


def decode(payload: bytes | memoryview) -> Any:
    """Decode one msgpack value from a trusted sender, or one that was checked with `check_weight`.

    Raises:
        WireError: it is not one.
    """
    return decode_by(decode_raw, payload, "msgpack")


def decode_weighed(payload: bytes | memoryview) -> Any:
    """Decode one msgpack value from a worker.

    Raises:
        WireError: it is not one, or costs too much.
    """
    check_weight(payload)
    return decode_by(decode_raw, payload, "msgpack")


def check_weight(payload: bytes | memoryview) -> None:
    """Check that a msgpack value would not cost too much.

    Raises:
        WireError: it would. An honest worker checks before it sends.
    """
    try:
        weigh(payload, STRUCTURED_EXT)
    except TooHeavy as error:
        raise WireError(str(error)) from error


def decode_by(decoder: Callable[[Any], Any], payload: bytes | memoryview, what: str) -> Any:
    """Call the decoder.

    Raises:
        WireError: it is not a `what`.
    """
    try:
        return decoder(payload)
    except BROKEN as error:
        raise WireError(f"bad {what}: {fault_of(error)}") from error


def fault_of(error: Exception) -> str:
    """Return what is wrong, without the value that is: it comes from a worker, and may be or contain a secret."""
    if not isinstance(error, msgspec.ValidationError):
        return str(error)
    place = re.search(r"`\$[^`]*`\Z", str(error))
    return f"an invalid value at {place[0] if place else '`$`'}"
