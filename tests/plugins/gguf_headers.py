"""The beginnings of GGUF files, as tests of what is found need them: a header, and tensors of eight numbers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

Value = str | bool | int | list[str]


def gguf(path: Path, tensors: int = 1, **said: Value) -> Path:
    """A file with these keys; `_` in a name is a dot."""
    return write(path, {key.replace("_", "."): value for key, value in said.items()}, tensors)


def write(path: Path, said: dict[str, Value], tensors: int | Sequence[str] = 1) -> Path:
    names = [f"t{at}" for at in range(tensors)] if isinstance(tensors, int) else tensors
    keys = b"".join(_text(name) + _value(given) for name, given in said.items())
    table = b"".join(_text(name) + struct.pack("<IQIQ", 1, 8, 0, 32 * at) for at, name in enumerate(names))
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(names), len(said)) + keys + table
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + bytes(-len(header) % 32 + 32 * len(names)))
    return path


def model(path: Path) -> Path:
    return gguf(path, general_architecture="llama", general_tags=["a", "b"], tokenizer_ggml_model="gpt2")


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def _value(given: Value) -> bytes:
    if isinstance(given, bool):
        return struct.pack("<I?", 7, given)
    if isinstance(given, int):
        return struct.pack("<II", 4, given)
    if isinstance(given, str):
        return struct.pack("<I", 8) + _text(given)
    return struct.pack("<IIQ", 9, 8, len(given)) + b"".join(map(_text, given))
