"""A YAML document as a value, and the error of one that cannot be read. `safe_yaml.py` reads it.

Apart from that, because the import of PyYAML takes time, and a model without config.yaml does not need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 1_000_000

Key = tuple[Any, ...]  # ("runtime", "predict_concurrency"), ("weights", 0, "source")


class YAMLError(ValueError):
    """A document that cannot be read. `line` counts from 1; 0 means unknown."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """The value, the line of each key, and the keys that occur twice (the last one is used)."""

    data: Any
    lines: Mapping[Key, int]
    duplicates: tuple[tuple[str, int], ...] = ()
