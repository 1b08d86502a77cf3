"""Rewrite a model's requirement lines for uv: included files are inlined, and local paths lead to copies.

The copies match the content that identifies the environment, or nothing is built. Not copied are editable projects,
directories of `--find-links`, and large files inside copies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from ..errors import ConfigError
from .identity import Asked
from .local_projects import Mirror, sources
from .local_requirements import Local, local, read


class Lines:
    """The lines of `asked`, for uv started in `start` with `variables`. The copies are created below `rest`."""

    def __init__(self, asked: Asked, start: Path, beside: Path, variables: Mapping[str, str], rest: Path) -> None:
        self._asked = asked
        self._start, self._beside, self._variables, self._rest = start, beside, variables, rest
        self.copies = rest / "tree"
        self._constraining: set[Path] = set()

    def rewritten(self, aside: Path) -> list[str]:
        """Create the copies, except of `aside`, and return the lines.

        Raises `ConfigError` for a file that cannot be read or has changed.
        """
        mirror = Mirror(self.copies, self._rest / "files", aside, self._asked.known)
        built = (sources(place.path, False) for place in self._places() if place.kind == "built")
        mirror.fill(path for found in built for path, is_editable in found.items() if not is_editable)
        return list(self._for_uv(self._asked.lines, self._beside, mirror, set()))

    def in_place(self) -> dict[Path, bool]:
        """Return the directories that are built in place, and whether each is editable."""
        found: dict[Path, bool] = {}
        for place in self._places():
            if place.kind == "editable":
                found |= sources(place.path, True)
            elif place.kind == "built":
                found |= {path: True for path, is_editable in sources(place.path, False).items() if is_editable}
        return found

    def _places(self) -> Iterator[Local]:
        included = self._asked.included
        for _, found in read(self._asked.lines, self._start, self._beside, self._variables, included):
            if found is not None and found.path.is_dir():
                yield found

    def _for_uv(self, lines: Iterable[str], beside: Path, mirror: Mirror, known: set[Path]) -> Iterator[str]:
        """Yield the lines for uv. Files in `known` are already included, and are not included again."""
        for line in lines:
            found = local(line, self._start, beside, self._variables)
            if found is None:
                yield line
            elif found.kind in ("requirements", "constraints"):
                yield from self._included(found, mirror, known)
            elif found.kind == "built" and found.path.exists():
                copy = mirror.of(found.path) if found.path.is_dir() else mirror.copied(found.path)
                yield f"{found.head}file://{quote(str(copy))}{found.rest}{found.tail}"
            elif found.kind == "links" and found.path.exists():  # our file with the lines is in another directory
                yield f"--find-links file://{quote(str(found.path))}{found.tail}"
            else:
                yield line

    def _included(self, found: Local, mirror: Mirror, known: set[Path]) -> Iterator[str]:
        """Yield the lines of an included file; constraints are put in a file of our own."""
        path = found.path
        if (own := self._asked.included.lines_of(path)) is None:
            raise ConfigError(f"{path}: does not exist, but requirements include it")
        if found.kind == "requirements" and path not in known:
            known.add(path)
            yield from self._for_uv(own, path.parent, mirror, known)
        elif found.kind == "constraints" and path not in self._constraining:
            self._constraining.add(path)
            yield f"-c {self._kept(list(self._for_uv(own, path.parent, mirror, {path})))}"

    def _kept(self, lines: list[str]) -> Path:
        text = "\n".join(lines) + "\n"
        path = self._rest / f"constraints-{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
        path.write_text(text)
        return path
