"""One file by several names: two links to the same weights are one model, and are counted once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path


def distinct(files: Iterable[Path]) -> list[Path]:
    """The files, of several names of one the first, whether they are symbolic links or hard ones."""
    found: dict[Hashable, Path] = {}
    for file in files:
        found.setdefault(_identity(file), file)
    return list(found.values())


def _identity(file: Path) -> Hashable:
    try:
        about = file.stat()
    except OSError:  # a link to nothing, or a part that is missing
        return file
    return about.st_dev, about.st_ino
