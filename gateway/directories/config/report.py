"""Collect the problems of a config.yaml, each with its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...spec import Problem


class Report:
    """The problems of one file. `lines` has the line of each key, by the key's path."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.lines: Mapping[tuple[Any, ...], int] = {}

    def error(
        self, what: str, at: tuple[Any, ...] = (), *, line: int = 0, fix: str = "", code: str = "invalid_config"
    ) -> None:
        self.problems.append(Problem(where=self._where(at, line), what=what, fix=fix, code=code))

    def warn(
        self, what: str, at: tuple[Any, ...] = (), *, line: int = 0, fix: str = "", code: str = "odd_config"
    ) -> None:
        self.problems.append(Problem(where=self._where(at, line), what=what, fix=fix, code=code, level="warning"))

    def _where(self, at: tuple[Any, ...], line: int) -> str:
        while at and not line:
            line, at = self.lines.get(at, 0), at[:-1]
        return f"{self.file}:{line}" if line else str(self.file)


def path_of(at: tuple[Any, ...]) -> str:
    """Return a key as written in messages: weights[0].auth"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at)
    return text.removeprefix(".")


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
