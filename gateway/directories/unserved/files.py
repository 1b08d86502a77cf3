"""Recognise models in single files by their names and beginnings; also helpers for the other modules here.

The kinds are rows of `kinds.py`, and of `code.py` for programs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ...files import archives, ordinary
from ...wording import few
from .code import PROGRAMS
from .companions import companions
from .file_headers import BEGINNING, begin_of
from .kinds import COMPRESSED, FILES, NO_MODEL, TORCH, WEIGHTS, Kind
from .kinds_by_content import BEGINNINGS, PACKED
from .tables import table
from .torch import torch_kind

LARGEST = 1 << 20  # bytes of a JSON file that are read: a config has a few thousand
BESIDE = r"(?i)(readme|license|notice)\b"  # common files next to a model
UNSERVED = "unserved"  # code of the problem that no plugin serves a model
TOO_DEEP = "too_deep"  # code of the problem that a directory is too deep to be searched


@dataclass(frozen=True, slots=True)
class Unserved:
    what: str
    fix: str
    is_sure: bool = True  # False: such files may be in any directory, above directories with models
    tells_depth: bool = False  # its content is too deep to be searched
    files: tuple[str, ...] = ()  # the files that it describes, if it is about files
    is_whole: bool = True  # False: directories below may be independent of it


UNFINISHED = (".incomplete", ".crdownload", ".aria2", "-partial")
MAYBE_UNFINISHED = (".part", ".partial", ".download")  # for files that would be models
INCOMPLETE = re.compile(r"(?i)(?<![a-z0-9])incomplete(?![a-z0-9])")  # in the names of such files
ARCHIVES = tuple(".tar.gz .tgz .tar .zip .tar.bz2 .tar.xz .tar.zst .txz .7z .rar .gguf.gz .gguf.zst .bin.gz".split())


ROWS = (*PROGRAMS, *FILES)


MOST_NAMES = 4000  # of a directory: a sharded checkpoint has hundreds, a directory of images may have a million
TELLING = re.compile(r"(?i)(adapter_|config|meta|mlmodel|model|modules|pytorch_|saved_|tokenizer|\.meta)")


def likeliest(path: Path) -> frozenset[str]:
    """Return the names in a directory: all, or of very many those that describe a model, then those that may be one.

    A directory that cannot be read has none.
    """
    try:
        names = os.listdir(path)
    except OSError:
        return frozenset()
    if len(names) <= MOST_NAMES:
        return frozenset(names)
    return frozenset(sorted(_likely(names), key=lambda name: not TELLING.match(name))[:MOST_NAMES])


def single_files(path: Path, names: frozenset[str]) -> Unserved | None:
    found = _single_files(path, names - companions(path, names))
    if found is None or found.fix != TORCH:
        return found
    kinds = {name: kind for name in found.files[:MOST] if (kind := torch_kind(path / name, begin_of(path / name)))}
    kind = next(iter(kinds.values()), None)
    return listed(kind, [name for name in kinds if kinds[name] == kind], is_sure=False) if kind else found


def _single_files(path: Path, names: frozenset[str]) -> Unserved | None:
    if found := unfinished(names):
        return _of_one(found, "an unfinished download", "download the file again")
    if known := first(ROWS, path, names, is_sure=False):
        return known
    lasting = [name for name in names if not name.startswith(".") and not re.match(BESIDE, name)]
    if model := next((kind for name in sorted(lasting) if (kind := packed_model(path / name))), None):
        return model
    all_are = all(name.lower().endswith(ARCHIVES) for name in lasting)
    if listed := sorted(
        name for name in lasting if name.lower().endswith(ARCHIVES) and (all_are or name.startswith("model"))
    ):
        return _of_one(listed[0], "an archive", "unpack it here")
    if packed := sorted(name for name in lasting if _is_compressed(name)):
        return _of_one(packed[0], "a compressed file", "unpack it here, then check again")
    return _by_beginning(path, names)


def _is_compressed(name: str) -> bool:
    """Return whether the name without its compression suffix is one that files with weights have."""
    inner = name.rpartition(".")[0].lower()
    if suffix(name) not in COMPRESSED or suffix(inner) == "tar":
        return False
    by_name = any(not kind.holds and not kind.goes_with for kind in _files_called(inner))
    return by_name or inner.startswith("model") or suffix(inner) in WEIGHTS


def _of_one(name: str, what: str, fix: str) -> Unserved:
    return Unserved(f"{what} ({name})", fix, is_sure=False, files=(name,))


def packed_model(file: Path) -> Unserved | None:
    """Return the kind of a model in a zip file, by the names in the archive."""
    if suffix(file.name) not in ("zip", "mlnet"):
        return None
    try:
        names = [name.lower() for name in archives.names(file)]
    except OSError:
        return None
    kind = next((kind for kind in PACKED if any(is_called(name, kind) for name in names)), None)
    return None if kind is None else listed(kind, [file.name], is_sure=False)


MOST = 64  # files to open to read their beginning


def _by_beginning(path: Path, names: frozenset[str]) -> Unserved | None:
    """Recognise a model whose name reveals nothing by its content."""
    begins = {name: begin for name in _likely(names)[:MOST] if (begin := begin_of(path / name, 512))}
    for kind in BEGINNINGS:
        if found := [name for name, begin in begins.items() if _may_be(name, begin) and re.search(kind.holds, begin)]:
            return listed(kind, found, is_sure=False)
    return None


def _likely(names: Iterable[str]) -> list[str]:
    """Sort by name, with unlikely kinds of files last."""
    return sorted(names, key=lambda name: (name.startswith(".") or suffix(name) in NO_MODEL, name))


def weights_among(path: Path, names: Iterable[str]) -> list[str]:
    """Return the files that hold weights, by their names, and by the beginnings of the first few."""
    looks = MOST
    found = []
    for name in _likely(names):
        if looks == 0 and suffix(name) in NO_MODEL:  # there may be many thousands
            continue
        called = _files_called(name.lower())
        if any(kind.goes_with and not kind.holds for kind in called):
            continue
        rows = [kind for kind in called if not kind.goes_with]
        is_one = any(not kind.holds for kind in rows) or _is_compressed(name) or unfinished([name]) is not None
        if not is_one and looks > 0:
            looks -= 1
            begin = begin_of(path / name, BEGINNING if rows else 512)
            kinds = (*rows, *BEGINNINGS) if _may_be(name, begin) else rows
            is_one = any(re.search(kind.holds, begin) for kind in kinds) or packed_model(path / name) is not None
        if is_one or (name.startswith("model") and name.lower().endswith(ARCHIVES)):
            found.append(name)
    return found


def _may_be(name: str, begin: bytes) -> bool:
    return begin[:1] == b"\x80" or not (name.startswith(".") or suffix(name) in NO_MODEL)


def suffix(name: str) -> str:
    stem, _, end = name.rpartition(".")
    return end.lower() if stem else ""


def unfinished(names: Iterable[str]) -> str | None:
    for name in sorted(names):
        inner = name.rpartition(".")[0] if name.endswith(MAYBE_UNFINISHED) else name
        is_maybe = inner != name or INCOMPLETE.search(name)
        if name.endswith(UNFINISHED) or (is_maybe and any(not kind.holds for kind in _files_called(inner.lower()))):
            return name
    return None


def first(kinds: tuple[Kind, ...], path: Path, names: frozenset[str], *, is_sure: bool) -> Unserved | None:
    """Return the first row that matches any file, with all files that it matches. Each file is read at most once."""
    known = table(kinds)
    best, found = len(kinds), list[str]()
    for name in sorted(names):
        begin: bytes | None = None
        for row in known.rows(name.lower()):
            if row > best:
                break
            if holds := kinds[row].holds:
                begin = begin_of(path / name) if begin is None else begin
                if not re.search(holds, begin):
                    continue
            best, found = (best, found) if row == best else (row, [])
            found.append(name)
            break
    return listed(kinds[best], found, is_sure=is_sure) if found else None


def listed(kind: Kind, names: list[str], *, is_sure: bool) -> Unserved:
    files = tuple(names)
    is_whole = is_sure and "*" not in kind.names and not kind.is_flat
    return Unserved(f"{kind.what} ({few(names)})", kind.fix, is_sure, kind.tells_depth, files, is_whole)


def _files_called(name: str) -> list[Kind]:
    """Return the rows of `FILES` for a file name in lower case."""
    return [FILES[row] for row in table(FILES).rows(name)]


def is_called(name: str, kind: Kind) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in kind.names.split())


def json_of(path: Path) -> Mapping[str, Any]:
    return read_json(path)[0]


def read_json(path: Path) -> tuple[Mapping[str, Any], str | None]:
    """Return the object in the file, and an error message if there is none."""
    try:
        with ordinary.opened(path) as file:
            data = ordinary.parse_json(file.read(LARGEST))
    except OSError as error:
        return {}, f"cannot be read: {error.strerror}"
    except ValueError as error:
        return {}, f"is not JSON ({error})"
    return (data, None) if isinstance(data, dict) else ({}, "does not contain a JSON object")
