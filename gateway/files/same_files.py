"""Detect several names for one file: two links to the same weights count as one model."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path


def distinct(files: Iterable[Path]) -> list[Path]:
    """Return the files, with only the first of several names for one file (symbolic or hard links)."""
    found: dict[Hashable, Path] = {}
    for file in files:
        found.setdefault(_identity(file), file)
    return list(found.values())


def _identity(file: Path) -> Hashable:
    try:
        about = file.stat()
    except OSError:  # a dangling link, or a missing part
        return file
    return about.st_dev, about.st_ino
