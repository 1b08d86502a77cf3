"""Read the header of a GGUF file: its metadata, and the positions of its tensors. Converts nothing."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway import ConfigError

from .files import ARRAY, SCALARS, STRING

UNNAMED = "unknown"  # transformers' name for the architecture of a file without one
BIG_ENDIAN = (2 << 24, 3 << 24)  # the versions as read in the wrong byte order
# Limits for one header. The largest vocabularies have some hundred thousand tokens, with a score, a type and two merges
# each.
MOST_VALUES = 4_000_000
MOST_BYTES = 64 << 20  # of strings
MOST_TENSORS = 100_000
MOST_KEYS = 10_000
MOST_DIMENSIONS = 64  # ggml has four: fewer than this are checked elsewhere
MOST_IN_LIST = 4096  # values of a list outside the tokenizer


@dataclass(frozen=True, slots=True)
class TensorInfo:
    name: str
    shape: tuple[int, ...]
    type: int
    offset: int  # from the start of the file
    part: int = 0  # index of the file that contains it


@dataclass(frozen=True, slots=True)
class Header:
    """The header of a file, or of all parts of a model together: the first part has the metadata."""

    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]

    @property
    def architecture(self) -> str:
        return self.metadata.get("general.architecture", UNNAMED)


def read_headers(maps: Sequence[mmap.mmap], names: Sequence[str]) -> Header:
    """Return the header of a model in these files. Raises `ConfigError` if they cannot be read."""
    headers = [read_header(data, name) for data, name in zip(maps, names, strict=True)]
    metadata = headers[0].metadata
    count, total = metadata.get("split.count", 1), metadata.get("split.tensors.count")
    if count not in (0, len(maps)):
        raise ConfigError(f"it is one of {count} parts, which are called NAME-00001-of-{count:05}.gguf and so on")
    tensors = tuple(replace(info, part=part) for part, header in enumerate(headers) for info in header.tensors)
    found = len({info.name for info in tensors})
    if len(maps) > 1 and (found < len(tensors) or total not in (None, found)):
        raise ConfigError(f"its {len(maps)} parts do not belong together ({found} tensors of {total}): get them again")
    return Header(metadata, tensors)


def read_header(data: mmap.mmap, name: str) -> Header:
    """Return the metadata and the tensor table of one file; long values that are not needed are skipped."""
    try:
        return _parse(data)
    except _TooMuch as error:
        raise ConfigError(f"the header of {name} has {error}, which no model has: get the file again") from error
    except (struct.error, KeyError, OverflowError, MemoryError, RecursionError, ZeroDivisionError, TypeError) as error:
        raise ConfigError(f"the header of {name} breaks off or is damaged: get the file again") from error


class _TooMuch(Exception):
    """Something exceeds what any model has."""


def _parse(data: mmap.mmap) -> Header:
    magic, version, tensor_count, key_count = struct.unpack_from("<4sIQQ", data)
    if magic == b"GGUF" and version in BIG_ENDIAN:
        raise ConfigError("it is a big-endian file, for other processors: get the little-endian one")
    if magic != b"GGUF" or version not in (2, 3):
        raise ConfigError(f"it is not a GGUF file of version 2 or 3: it starts with {magic!r}, version {version}")
    for count, most, what in ((tensor_count, MOST_TENSORS, "tensors"), (key_count, MOST_KEYS, "keys")):
        if count > len(data):
            raise struct.error
        if count > most:
            raise _TooMuch(f"more than {most:,} {what}")
    reader = _Reader(data)
    metadata = {}
    for _ in range(key_count):
        key = reader.text()
        (kind,) = reader.take("I")
        if reader.is_asked_for(key, kind):
            metadata[key] = reader.value(kind)
        else:
            reader.skip(kind)
    tensors = []
    for _ in range(tensor_count):
        name = reader.text()
        (dimensions,) = reader.take("I")
        if dimensions > MOST_DIMENSIONS:
            raise _TooMuch(f"a tensor of {dimensions} dimensions")
        shape = reader.take(f"{dimensions}Q")[::-1]  # the file lists the fastest dimension first
        tensors.append((name, shape, *reader.take("IQ")))
    alignment = metadata.get("general.alignment", 32)
    start = (reader.at + alignment - 1) // alignment * alignment
    infos = (TensorInfo(name, shape, kind, start + offset) for name, shape, kind, offset in tensors)
    return Header(metadata, tuple(infos))


class _Reader:
    """Reads values one by one, up to a limit for their number and for the bytes of strings.

    A file may contain far more of both than its size suggests.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._values, self._bytes = MOST_VALUES, MOST_BYTES
        self.at = 24

    def count(self, values: int) -> None:
        """Count values before they are read. Raises `_TooMuch`."""
        if values > len(self._data):
            raise struct.error
        self._values -= values
        if self._values < 0:
            raise _TooMuch(f"more than {MOST_VALUES:,} values")

    def is_asked_for(self, key: str, kind: int) -> bool:
        """Return whether a value is needed: tokenizers have long lists, other lists are short."""
        if kind != ARRAY or key.startswith("tokenizer."):
            return True
        (count,) = struct.unpack_from("<Q", self._data, self.at + 4)
        return bool(count <= MOST_IN_LIST)

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{form}", self._data, self.at)
        self.at += struct.calcsize(f"<{form}")
        return values

    def text(self) -> str:
        (size,) = self.take("Q")
        if size > len(self._data) - self.at:
            raise struct.error
        self._bytes -= size
        if self._bytes < 0:
            raise _TooMuch(f"more than {MOST_BYTES:,} bytes of texts")
        self.at += size
        return self._data[self.at - size : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.take(SCALARS[kind])[0]
        kind, count = self.take("IQ")
        self.count(count)
        if kind in SCALARS:
            return list(self.take(f"{count}{SCALARS[kind]}"))
        return [self.value(kind) for _ in range(count)]

    def skip(self, kind: int) -> None:
        """Skip an array, or a value in one."""
        if kind == STRING:
            (size,) = self.take("Q")
            self.at += size
        elif kind != ARRAY:
            self.at += struct.calcsize(f"<{SCALARS[kind]}")
        else:
            kind, count = self.take("IQ")
            if kind in SCALARS:
                self.at += count * struct.calcsize(f"<{SCALARS[kind]}")
                return
            self.count(count)
            for _ in range(count):
                self.skip(kind)
