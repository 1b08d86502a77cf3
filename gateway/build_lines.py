"""The lines that uv gets in the place of a model's: what they include is among them, and directories are copies."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from .local_projects import Mirror, sources
from .local_requirements import Local, lines_of, local, read


class Lines:
    """Of one model, whose uv is started in `start` with `variables`. The copies go below `rest`."""

    def __init__(self, start: Path, beside: Path, variables: Mapping[str, str], rest: Path) -> None:
        self._start, self._beside, self._variables, self._rest = start, beside, variables, rest
        self.copies = rest / "tree"
        self._constraining: set[Path] = set()

    def rewritten(self, lines: Iterable[str], aside: Path) -> list[str]:
        """The copies are made, but of what is `aside`. Raises `ConfigError` for a file that cannot be read."""
        lines = list(lines)
        mirror = Mirror(self.copies, aside)
        built = (sources(place.path, False) for place in self._places(lines) if place.kind == "built")
        mirror.fill(path for found in built for path, is_editable in found.items() if not is_editable)
        return list(self._for_uv(lines, self._beside, mirror, set()))

    def in_place(self, lines: Iterable[str]) -> dict[Path, bool]:
        """The directories that are built where they lie → whether each is editable."""
        found: dict[Path, bool] = {}
        for place in self._places(lines):
            if place.kind == "editable":
                found |= sources(place.path, True)
            elif place.kind == "built":
                found |= {path: True for path, is_editable in sources(place.path, False).items() if is_editable}
        return found

    def _places(self, lines: Iterable[str]) -> Iterator[Local]:
        for _, found in read(lines, self._start, self._beside, self._variables):
            if found is not None and found.path.is_dir():
                yield found

    def _for_uv(self, lines: Iterable[str], beside: Path, mirror: Mirror, known: set[Path]) -> Iterator[str]:
        """What is `known` is among them already, and is not included again."""
        for line in lines:
            found = local(line, self._start, beside, self._variables)
            if found is None:
                yield line
            elif found.kind in ("requirements", "constraints"):
                yield from self._included(found, mirror, known)
            elif found.kind == "built" and found.path.is_dir():
                yield f"{found.head}file://{quote(str(mirror.of(found.path)))}{found.rest}{found.tail}"
            elif found.kind == "links" and found.path.exists():  # our file with the lines lies elsewhere
                yield f"--find-links file://{quote(str(found.path))}{found.tail}"
            else:
                yield line

    def _included(self, found: Local, mirror: Mirror, known: set[Path]) -> Iterator[str]:
        """The lines of the file; those of constraints are in a file of ours. For one that is not there, uv says so."""
        path = found.path
        if not path.is_file():
            yield f"-{found.kind[0]} {path}"
        elif found.kind == "requirements" and path not in known:
            known.add(path)
            yield from self._for_uv(lines_of(path), path.parent, mirror, known)
        elif found.kind == "constraints" and path not in self._constraining:
            self._constraining.add(path)
            own = lines_of(path)
            inner = list(self._for_uv(own, path.parent, mirror, {path}))
            yield f"-c {path if inner == own else self._kept(inner)}"

    def _kept(self, lines: list[str]) -> Path:
        text = "\n".join(lines) + "\n"
        path = self._rest / f"constraints-{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
        path.write_text(text)
        return path
