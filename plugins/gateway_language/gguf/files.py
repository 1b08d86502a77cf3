"""Find the GGUF file of a directory that is the model, and all of its parts.

Files next to it that are not language models are recognised by `kinds` and by their names; without a language model,
one for vectors or ratings is the model. Reads names and the first
keys of a header; imports nothing.
"""

from __future__ import annotations

import os
import re
import struct
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway import ConfigError, distinct, opened, placeholder

from .kinds import ADAPTER, DRAFT, MATRIX, NAMELESS, PROJECTOR, UNFINISHED, Other, Task, kind_of

Chosen = Callable[[str], bool]
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
PART_NAME = "NAME-{:05}-of-{:05}.gguf"
PEEK = 1 << 16  # bytes of a header that contain its first keys
MOST_KEYS = 512  # keys; the longest headers have some hundred
MOST_FILES = 256  # models in one directory: the largest repositories have half as many
MOST_LOOKED_AT = 20_000  # files and folders among which patterns choose
REMEMBERED = 512  # files whose first keys are cached
SETTLED = 2.0  # seconds: a write within one clock tick of the last one would not change the times
MOST_NAMES = 64  # names of tensors to read if the keys do not identify the model
INCOMPLETE = re.compile(r"(?i)(?<![a-z0-9])incomplete(?![a-z0-9])")  # GPT4All uses it in the name of a partial download

# What a file is by a word in its name, if its header is not that of a complete language model.
NAMED = {
    "mmproj": PROJECTOR,
    "imatrix": MATRIX,
    "lora": ADAPTER,
    **dict.fromkeys("draft drafter mtp nextn eagle eagle2 eagle3 medusa speculator dflash".split(), DRAFT),
}


def find(place: Path, names: Collection[str] = (), chosen: Chosen | None = None) -> Path | None:
    """Return the GGUF file of a model in `place`, its first part if it has several; None if there is none.

    `names` are those of the model's directory: of several files, one with such a name is chosen. `chosen` returns
    whether the patterns of the weights select a file. Raises `ConfigError` if several files remain, or if a part is
    missing.
    """
    if not place.is_dir():
        return parts(place)[0] if place.suffix.lower() == ".gguf" else None
    there = {file: beside(file) for file in models(place, chosen)}
    writing = [file for file, other in there.items() if other is None]
    files = _without_parts(place, writing or [file for file, other in there.items() if other and other.task])
    wanted = {name.casefold() for name in (*names, place.name)}
    called = _apart(file for file in files if model_name(file).casefold() in wanted)
    found = called if len(called) == 1 else _apart(file for file in files if not is_draft(file)) or _apart(files)
    if len(found) > 1:
        listed = ", ".join(file.name for file in found[:3]) + (" …" if len(found) > 3 else "")
        call = f"it to {place.name}.gguf"
        if part := PART.fullmatch(found[0].name):
            call = f"all of its parts to {place.name}-…-of-{part[3]}.gguf"
        here = f"- source: file://{found[0].name}, or rename {call}"
        there = f"next to its source, allow_patterns: [{found[0].relative_to(place)}]"
        raise ConfigError(
            f"{place}: several GGUF files ({listed}); one directory holds one model: name the one to serve in "
            f"config.yaml, weights: {here if not names or place.name in names else there}"
        )
    for part in parts(found[0]) if found else ():
        if stand_in := placeholder(part):
            raise ConfigError(f"{place}: {part.name} {stand_in.what}: {stand_in.fix}")
    if found and (unfinished := next((part for part in parts(found[0]) if has_gaps(part)), None)):
        raise ConfigError(f"{place}: {unfinished.name} is incomplete: aria2 has not finished the download")
    return found[0] if found else None


def _without_parts(place: Path, files: list[Path]) -> list[Path]:
    """Return the files that are not parts with wrong names. Raises `ConfigError` if all are."""
    renamed = {file: said for file in files if (said := _renamed(file))}
    if whole := [file for file in files if file not in renamed]:
        return whole
    if renamed:
        calls = ", ".join(f"{file.name} to {PART_NAME.format(*said)}" for file, said in renamed.items())
        rest = "; download the missing ones" if len(renamed) < max(count for _, count in renamed.values()) else ""
        what = f"renamed parts of a model ({', '.join(file.name for file in renamed)})"
        raise ConfigError(f"{place}: {what}: rename {calls}, with the same NAME for parts of one model{rest}")
    return files


def _renamed(file: Path) -> tuple[int, int] | None:
    """Return the part number and count in a file's header, if they are not in its name."""
    if PART.fullmatch(file.name):
        return None
    number, count = map(first_keys(file).said.get, ("split.no", "split.count"))
    return (number + 1, count) if isinstance(number, int) and isinstance(count, int) and count > 1 else None


def _apart(files: Iterable[Path]) -> list[Path]:
    """Return one name for each file, in order; real files are preferred to links to them."""
    return sorted(distinct(sorted(files, key=Path.is_symlink)))


def models(place: Path, chosen: Chosen | None = None) -> list[Path]:
    """Return the GGUF files of a directory; of models in parts the first part, even if it does not exist.

    Hidden files are ignored. Raises `ConfigError` for too many files.
    """
    if chosen is None:
        files = list(place.iterdir())
    else:  # possibly in a subdirectory of a repository
        files = [file for file in _below(place) if chosen(file.relative_to(place).as_posix())]
    found = (file for file in files if file.suffix.lower() == ".gguf" and not file.name.startswith("."))
    firsts = sorted({first_part(file) for file in found if file.is_file()})
    if len(firsts) > MOST_FILES:
        what = f"more than {MOST_FILES} GGUF files, none of which was read; one directory holds one model"
        raise ConfigError(f"{place}: {what}: move the one to serve into its own directory")
    return firsts


def _below(place: Path) -> Iterator[Path]:
    """Yield the files in a folder and in those below it, except behind links to folders.

    Raises `ConfigError` for a folder with far more than a repository has, such as a disk.
    """
    seen = 0
    for directory, names, files in os.walk(place):
        seen += len(names) + len(files)
        if seen > MOST_LOOKED_AT:
            what = f"more than {MOST_LOOKED_AT:,} files and folders to which patterns apply, so they are not searched"
            raise ConfigError(f"{place}: {what}: name the folder of the model in its source")
        yield from (Path(directory, name) for name in files)


def say_others(place: Path, chosen: Chosen | None = None) -> None:
    """Raise `ConfigError` if a directory has GGUF files and no checkpoint, and none of them is a language model."""
    if not place.is_dir() or (place / "config.json").exists():
        return
    if others := list(map(_told, _apart(models(place, chosen)))):
        raise ConfigError(f"{place}: no GGUF file here is a language model: {'; '.join(others)}")


def say_passed_over(place: Path, served: Path | None, chosen: Chosen | None = None) -> str | None:
    """Describe the GGUF files next to the file or checkpoint that is served."""
    if served is None and not (place / "config.json").exists():
        return None  # nothing is served: `say_others` describes them
    others = [_told(file) for file in _apart(models(place, chosen)) if not served or len(distinct([file, served])) > 1]
    return f"ignored next to {served.name if served else 'the checkpoint'}: {'; '.join(others)}" if others else None


def _told(file: Path) -> str:
    other = beside(file) or (DRAFT if is_draft(file) else _another(file))
    return f"{file.name} is {other.what}: {other.fix}"


def _another(file: Path) -> Other:
    if part := _renamed(file):
        return Other(f"part {part[0]} of {part[1]} of a model", f"rename it to {PART_NAME.format(*part)}")
    return Other("another model", "move it into its own directory")


def has_gaps(file: Path) -> bool:
    """Return whether aria2 is still writing the file, which has its final size from the start."""
    return file.with_name(f"{file.name}.aria2").exists()


def model_name(file: Path) -> str:
    match = PART.fullmatch(file.name)
    return match[1] if match else file.stem


def first_part(file: Path) -> Path:
    match = PART.fullmatch(file.name)
    return file.with_name(f"{match[1]}-00001-of-{match[3]}{file.suffix}") if match else file


def parts(file: Path) -> list[Path]:
    """Return all files of the model that this file is, or is one part of. Raises `ConfigError` for missing ones."""
    match = PART.fullmatch(file.name)
    if match is None or not (count := int(match[3])):
        return [file]
    names = [f"{match[1]}-{number:05}-of-{match[3]}{file.suffix}" for number in range(1, count + 1)]
    try:
        there = set(os.listdir(file.parent))  # a name may say that there are very many
    except OSError:
        there = set(names)
    if missing := [name for name in names if name not in there or not file.with_name(name).is_file()]:
        listed = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        is_or_are = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"{file.parent}: {listed} {is_or_are} missing; {model_name(file)} has {count} parts")
    return list(map(file.with_name, names))


def beside(file: Path) -> Other | None:
    """Return what the file is if not a language model; None if it is one. The header takes precedence over its name."""
    if INCOMPLETE.search(file.name):
        return UNFINISHED
    peeked = first_keys(file)
    if kind := kind_of(peeked.said, peeked.tensors, peeked.names):
        return kind
    return None if _is_whole(peeked) else named(file) or (NAMELESS if peeked.is_nameless else None)


def _is_whole(peeked: Peeked) -> bool:
    """Return whether the header is that of a complete language model: with a vocabulary, and enough tensors."""
    said = peeked.said
    layers, tensors = said.get(f"{said.get('general.architecture')}.block_count"), said.get("split.tensors.count")
    if "tokenizer.ggml.model" not in said or "general.architecture" not in said:
        return False
    count = max(peeked.tensors, tensors if isinstance(tensors, int) else 0)
    return not isinstance(layers, int) or count >= layers


def task_of(file: Path) -> Task:
    """Return what the file's header says that it is for; chat if it says nothing."""
    other = beside(file)
    return (other and other.task) or "chat"


def named(file: Path) -> Other | None:
    """Return what the file's name says it is, if that is something other than a model."""
    words = _words(file)
    return next((what for word, what in NAMED.items() if word in words), None)


def is_draft(file: Path) -> bool:
    """Return whether the name marks a complete model as a draft for another; headers do not tell.

    Words in names of ordinary models (Eagle, Medusa, MTP) do not count: the headers of such drafts identify them.
    """
    return bool({"draft", "drafter"} & {*_words(file)})


def _words(file: Path) -> list[str]:
    return re.split(r"[^a-z0-9]+", file.stem.lower())


@dataclass(frozen=True, slots=True)
class Peeked:
    """The beginning of a header."""

    said: Mapping[str, str | int]  # strings and integers among the first keys; arrays by their length
    tensors: int = -1  # number of tensors; -1 if unknown
    names: tuple[str, ...] = ()  # names of the first tensors, if all keys were read

    @property
    def is_nameless(self) -> bool:
        """Return whether it seems to have no architecture, and is not a later part of a model."""
        return bool(self.names) and not self.said.keys() & {"general.architecture", "split.count"}


def first_keys(file: Path) -> Peeked:
    """Return the first keys of the header, and the names of tensors after them; nothing if the file cannot be read.

    Results are cached by file, whatever its name.
    """
    try:
        with opened(file) as weights:
            about = os.fstat(weights.fileno())
            key = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
            if (known := _known.get(key)) is not None:
                return known
            found = _peek(weights.read(PEEK))
    except OSError:
        return Peeked({})
    if time.time() - about.st_ctime > SETTLED:
        with _changing:
            _known[key] = found
            if len(_known) > REMEMBERED:
                del _known[next(iter(_known))]
    return found


_known: dict[tuple[int, ...], Peeked] = {}
_changing = threading.Lock()  # models are examined in threads


def _peek(data: bytes) -> Peeked:
    found: dict[str, str | int] = {}
    names: list[str] = []
    tensors = -1
    try:
        magic, _, count_of_tensors, count = struct.unpack_from("<4sIQQ", data)
        if magic == b"GGUF":
            tensors = count_of_tensors
        at = 24
        for _ in range(min(count, MOST_KEYS) if magic == b"GGUF" else 0):
            key, at = _text(data, at)
            (kind,) = struct.unpack_from("<I", data, at)
            start, at = at + 4, _skip(data, at + 4, kind)
            if at > len(data):
                break
            if kind == STRING:
                found[key] = _text(data, start)[0]
            elif key == TAGS:
                found[key] = " ".join(_texts(data, start))
            elif kind == ARRAY:
                (found[key],) = struct.unpack_from("<Q", data, start + 4)
            elif kind not in FRACTIONS:
                (found[key],) = struct.unpack_from(f"<{SCALARS[kind]}", data, start)
        else:
            for _ in range(min(tensors, MOST_NAMES) if count <= MOST_KEYS else 0):
                name, at = _text(data, at)
                (dimensions,) = struct.unpack_from("<I", data, at)
                names.append(name)
                at += 16 + 8 * dimensions
    except (struct.error, KeyError, OverflowError, RecursionError):
        pass  # the end of the data, or a damaged header, which is reported when the model loads
    return Peeked(found, tensors, tuple(names))


TAGS = "general.tags"
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
FRACTIONS = (6, 12)


def _text(data: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + size
    if end > len(data):
        raise struct.error
    return data[at + 8 : end].decode("utf-8", "replace"), end


def _texts(data: bytes, at: int) -> Iterator[str]:
    """Yield the strings of the array at `at`; none if it contains something else."""
    kind, count = struct.unpack_from("<IQ", data, at)
    at += 12
    for _ in range(count if kind == STRING else 0):
        text, at = _text(data, at)
        yield text


def _skip(data: bytes, at: int, kind: int) -> int:
    """Return where the value at `at` ends."""
    if kind == STRING:
        return _text(data, at)[1]
    if kind != ARRAY:
        return at + struct.calcsize(f"<{SCALARS[kind]}")
    kind, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if kind in SCALARS:
        return at + count * struct.calcsize(f"<{SCALARS[kind]}")
    for _ in range(count):
        at = _skip(data, at, kind)
    return at
