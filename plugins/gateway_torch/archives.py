"""Read the files inside a program of PyTorch, which is a zip file, in the gateway and in the worker.

Two readers of zip files may see different files in a forged one, so the worker checks what PyTorch's own reader sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from gateway import peek_archive

TABLE = 16 << 20  # bytes of a table of contents; each weight and each module of a program has an entry


class Archive(Protocol):
    @property
    def sizes(self) -> Mapping[str, int]:
        """The files inside and their bytes; names begin behind the directory that all are in."""

    def read(self, name: str, most: int) -> bytes:
        """Return a file.

        Raises:
            OSError: it is missing, or has more than `most` bytes.
        """


class ZipArchive:
    """A program as Python reads it, without PyTorch.

    Raises:
        OSError: it cannot be read, or is not a zip file.
        ValueError: its files are not in one directory, or two have one name.
    """

    def __init__(self, file: Path, table: int = TABLE) -> None:
        self._file = file
        _, found = peek_archive(file, "*version", 1000, table)  # each has one, of a few bytes
        self._root = next(iter(found), "").partition("/")[0]
        self.sizes: dict[str, int] = {}
        for name, size in found.items():
            root, _, rest = name.partition("/")
            if root != self._root or not rest:
                raise ValueError(f"it has a file {name[:80]!a} outside of {self._root[:80]!a}")
            self.sizes[rest] = size

    def read(self, name: str, most: int) -> bytes:
        return peek_archive(self._file, _escaped(f"{self._root}/{name}"), most, TABLE)[0]


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


class TorchArchive:
    """A program as PyTorch itself reads it."""

    def __init__(self, file: Path) -> None:
        import torch

        self._reader: Any = torch._C.PyTorchFileReader(str(file))

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        return {name: self._reader.get_record_size(name) for name in self._reader.get_all_records()}

    def read(self, name: str, most: int) -> bytes:
        if self.sizes.get(name, most + 1) > most:
            raise OSError(f"{name} is missing in it, or has more than {most} bytes")
        return bytes(self._reader.get_record(name))
