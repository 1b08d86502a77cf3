"""The header of a GGUF file: its metadata, and where its tensors are. Converts nothing."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway_lm_gguf_files import ARRAY, SCALARS, STRING

from gateway import ConfigError

UNNAMED = "unknown"  # as transformers calls the architecture of a file that names none
BIG_ENDIAN = (2 << 24, 3 << 24)  # the versions, as they are read in the other order


@dataclass(frozen=True, slots=True)
class TensorInfo:
    name: str
    shape: tuple[int, ...]
    type: int
    offset: int  # from the start of the file
    part: int = 0  # which of the files it is in


@dataclass(frozen=True, slots=True)
class Header:
    """That of a file, or of all parts of one together: the first of them has the metadata."""

    metadata: Mapping[str, Any]
    tensors: tuple[TensorInfo, ...]

    @property
    def architecture(self) -> str:
        return self.metadata.get("general.architecture", UNNAMED)


def read_headers(maps: Sequence[mmap.mmap], names: Sequence[str]) -> Header:
    """The header of a model whose files these are. Raises `ConfigError` when they are none that we can read."""
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
    """The metadata and the table of tensors of one file."""
    try:
        return _parse(data)
    except (struct.error, KeyError, OverflowError, MemoryError, RecursionError, ZeroDivisionError, TypeError) as error:
        raise ConfigError(f"the header of {name} breaks off or is damaged: get the file again") from error


def _parse(data: mmap.mmap) -> Header:
    magic, version, tensor_count, key_count = struct.unpack_from("<4sIQQ", data)
    if magic == b"GGUF" and version in BIG_ENDIAN:
        raise ConfigError("it is a big-endian file, for other processors: get the little-endian one")
    if magic != b"GGUF" or version not in (2, 3):
        raise ConfigError(f"it is no GGUF file of version 2 or 3: it starts with {magic!r}, version {version}")
    at = 24

    def take(form: str) -> tuple[Any, ...]:
        nonlocal at
        values = struct.unpack_from(f"<{form}", data, at)
        at += struct.calcsize(f"<{form}")
        return values

    def text() -> str:
        nonlocal at
        (size,) = take("Q")
        at += size
        return data[at - size : at].decode("utf-8", "replace")

    def value(kind: int) -> Any:
        if kind == STRING:
            return text()
        if kind != ARRAY:
            return take(SCALARS[kind])[0]
        kind, count = take("IQ")
        return list(take(f"{count}{SCALARS[kind]}")) if kind in SCALARS else [value(kind) for _ in range(count)]

    metadata = {}
    for _ in range(key_count):
        key = text()
        metadata[key] = value(take("I")[0])
    tensors = []
    for _ in range(tensor_count):
        name = text()
        (dimensions,) = take("I")
        shape = take(f"{dimensions}Q")[::-1]  # the file counts the fastest first
        tensors.append((name, shape, *take("IQ")))
    alignment = metadata.get("general.alignment", 32)
    start = (at + alignment - 1) // alignment * alignment
    infos = (TensorInfo(name, shape, kind, start + offset) for name, shape, kind, offset in tensors)
    return Header(metadata, tuple(infos))
