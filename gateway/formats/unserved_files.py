"""What single files say of the model that they hold, by their names and beginnings; with what the other looks share.

The kinds are rows of `unserved_kinds`, and of `unserved_code` for programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .. import archives, ordinary
from ..wording import few
from .unserved_beginnings import BEGINNING, begin_of
from .unserved_code import PROGRAMS
from .unserved_companions import companions
from .unserved_kinds import COMPRESSED, FILES, NO_MODEL, TORCH, WEIGHTS, Kind
from .unserved_nameless import BEGINNINGS, PACKED
from .unserved_tables import table
from .unserved_torch import torch_kind

LARGEST = 1 << 20  # bytes of a JSON file that is looked at: a config is a few thousand
BESIDE = r"(?i)(readme|license|notice)\b"  # what lies beside a model
UNSERVED = "unserved"  # the code of the problem that a directory with a model is nobody's
TOO_DEEP = "too_deep"  # that of the problem that something lies too deep to be searched


@dataclass(frozen=True, slots=True)
class Unserved:
    what: str
    fix: str
    is_sure: bool = True  # False: files that may lie about, above directories with models in them
    tells_depth: bool = False  # that what is in it lies too deep to be searched
    files: tuple[str, ...] = ()  # those that it says this of, where it says it of files
    is_whole: bool = True  # False: files of their own, which may lie above directories that are no parts of it


UNFINISHED = (".incomplete", ".crdownload", ".aria2", "-partial")
MAYBE_UNFINISHED = (".part", ".partial", ".download")  # of files that would be models
INCOMPLETE = re.compile(r"(?i)(?<![a-z0-9])incomplete(?![a-z0-9])")  # in the names of such files
ARCHIVES = tuple(".tar.gz .tgz .tar .zip .tar.bz2 .tar.xz .tar.zst .txz .7z .rar .gguf.gz .gguf.zst .bin.gz".split())


ROWS = (*PROGRAMS, *FILES)


def single_files(path: Path, names: frozenset[str]) -> Unserved | None:
    found = _single_files(path, names - companions(path, names))
    if found is None or found.fix != TORCH:
        return found
    kinds = {name: kind for name in found.files[:MOST] if (kind := torch_kind(path / name, begin_of(path / name)))}
    kind = next(iter(kinds.values()), None)
    return listed(kind, [name for name in kinds if kinds[name] == kind], is_sure=False) if kind else found


def _single_files(path: Path, names: frozenset[str]) -> Unserved | None:
    if found := unfinished(names):
        return _of_one(found, "a download that is not finished", "get the file again")
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
        return _of_one(packed[0], "a compressed file", "unpack it here; this line then says what it is")
    return _by_beginning(path, names)


def _is_compressed(name: str) -> bool:
    """Whether its name, but for how it was compressed, is one that files with weights have."""
    inner = name.rpartition(".")[0].lower()
    if suffix(name) not in COMPRESSED or suffix(inner) == "tar":
        return False
    by_name = any(not kind.holds and not kind.goes_with for kind in _files_called(inner))
    return by_name or inner.startswith("model") or suffix(inner) in WEIGHTS


def _of_one(name: str, what: str, fix: str) -> Unserved:
    return Unserved(f"{what} ({name})", fix, is_sure=False, files=(name,))


def packed_model(file: Path) -> Unserved | None:
    """A model that is a zip file, by what is in it."""
    if suffix(file.name) not in ("zip", "mlnet"):
        return None
    try:
        names = [name.lower() for name in archives.names(file)]
    except OSError:
        return None
    kind = next((kind for kind in PACKED if any(is_called(name, kind) for name in names)), None)
    return None if kind is None else listed(kind, [file.name], is_sure=False)


MOST = 64  # files that are opened to see what they begin with


def _by_beginning(path: Path, names: frozenset[str]) -> Unserved | None:
    """A model by a name that tells nothing."""
    begins = {name: begin for name in _likely(names)[:MOST] if (begin := begin_of(path / name, 512))}
    for kind in BEGINNINGS:
        if found := [name for name, begin in begins.items() if _may_be(name, begin) and re.search(kind.holds, begin)]:
            return listed(kind, found, is_sure=False)
    return None


def _likely(names: Iterable[str]) -> list[str]:
    """By name, but those last that are seldom a model."""
    return sorted(names, key=lambda name: (name.startswith(".") or suffix(name) in NO_MODEL, name))


def weights_among(path: Path, names: Iterable[str]) -> list[str]:
    """Those of the files that hold weights, as far as their names tell, and the beginnings of few."""
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
    """What the first row tells that any of the files is for, with all files that it is for. Reads each once at most."""
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
    """The rows of `FILES` that are for files of that name, which is in small letters."""
    return [FILES[row] for row in table(FILES).rows(name)]


def is_called(name: str, kind: Kind) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in kind.names.split())


def json_of(path: Path) -> Mapping[str, Any]:
    return read_json(path)[0]


def read_json(path: Path) -> tuple[Mapping[str, Any], str | None]:
    """The object in the file, and why there is none."""
    try:
        with ordinary.opened(path) as file:
            data = ordinary.parse_json(file.read(LARGEST))
    except OSError as error:
        return {}, f"cannot be read: {error.strerror}"
    except ValueError as error:
        return {}, f"is no JSON ({error})"
    return (data, None) if isinstance(data, dict) else ({}, "holds no JSON object")
