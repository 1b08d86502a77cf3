"""The binary extension of the Open Inference Protocol: elements as raw little-endian bytes after the JSON.

Source: github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md. Elements are row-major. BOOL
is a byte, BF16 the upper half of a float32, and each element of BYTES has its length before it, in 4 bytes.
"""

from __future__ import annotations

import struct
from typing import Any

from ...errors import BadRequest, TooLarge
from ...wording import counted

MAX_TEXTS = 1 << 20  # elements of a BYTES tensor: an empty one has four bytes and takes a hundred in memory

_CODES = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "BF16": "H",
    "FP32": "f",
    "FP64": "d",
}
_LENGTH = struct.Struct("<I")


def split(body: bytes, length: bytes | None) -> tuple[bytes, memoryview]:
    """Split a body into the JSON and the bytes after it, uncopied. `length` is its `Inference-Header-Content-Length`.

    Raises:
        BadRequest: the length is invalid or exceeds the body.
    """
    if length is None:
        return body, memoryview(b"")
    if not length.isdigit() or len(length) > 15 or int(length) > len(body):
        shown = length.decode("latin-1")[:32]
        raise BadRequest(f"Inference-Header-Content-Length is '{shown}', and the body has {counted(len(body), 'byte')}")
    return body[: int(length)], memoryview(body)[int(length) :]


def size_of(datatype: str) -> int:
    """Return the bytes of one element. Not for BYTES."""
    return struct.calcsize(f"<{_CODES[datatype]}")


class Packed:
    """Elements that are still bytes. A slice decodes some of them, so that only a few exist as objects at once."""

    def __init__(self, datatype: str, raw: bytes | memoryview) -> None:
        self._raw, self._code, self._size = raw, _CODES[datatype], size_of(datatype)
        self._is_half = datatype == "BF16"

    def __len__(self) -> int:
        return len(self._raw) // self._size

    def __getitem__(self, which: slice) -> list[Any]:
        start, stop, _ = which.indices(len(self))
        raw, count = self._raw[start * self._size : stop * self._size], stop - start
        if self._is_half:
            wide = b"".join([b"\0\0" + raw[at : at + 2] for at in range(0, len(raw), 2)])
            return list(struct.unpack(f"<{count}f", wide))
        return list(struct.unpack(f"<{count}{self._code}", raw))


def unpack(where: str, datatype: str, count: int, raw: bytes | memoryview) -> list[Any] | Packed:
    """Return the elements of a tensor.

    Raises:
        BadRequest: their number is wrong, or a text is not UTF-8.
        TooLarge: there are too many texts.
    """
    if datatype == "BYTES":
        if count > MAX_TEXTS:
            raise TooLarge(f"'{where}' has more than {MAX_TEXTS} strings; send it in several requests", param=where)
        return _unpack_texts(where, count, raw)
    if len(raw) != count * size_of(datatype):
        raise BadRequest(
            f"'{where}' has {counted(len(raw), 'byte')} of data; for {counted(count, 'element')} of {datatype} it "
            f"needs {count * size_of(datatype)}",
            param=where,
        )
    return Packed(datatype, raw)


def _unpack_texts(where: str, count: int, raw: bytes | memoryview) -> list[str]:
    found: list[str] = []
    at = 0
    while at < len(raw) and len(found) <= count:
        size = _LENGTH.unpack_from(raw, at)[0] if at + 4 <= len(raw) else len(raw)
        at += 4
        if at + size > len(raw):
            raise BadRequest(f"'{where}' ends within element {len(found)}", param=where)
        try:
            found.append(str(raw[at : at + size], "utf-8"))
        except UnicodeDecodeError as error:
            raise BadRequest(
                f"element {len(found)} of '{where}' is not UTF-8; predict gets JSON: send bytes as base64", param=where
            ) from error
        at += size
    if len(found) != count:
        many = counted(len(found), "element") if len(found) < count else f"more than {counted(count, 'element')}"
        raise BadRequest(f"'{where}' holds {many}; its shape needs {count}", param=where)
    return found


def pack(datatype: str, data: list[Any]) -> bytes:
    """Return the bytes of an output's elements."""
    if datatype == "BYTES":
        texts = [item if isinstance(item, bytes) else item.encode() for item in data]
        return b"".join([part for text in texts for part in (_LENGTH.pack(len(text)), text)])
    return struct.pack(f"<{len(data)}{_CODES[datatype]}", *data)
