"""Which GGUF file of a directory is the model, and all of its parts.

What lies beside models and is none, and what is no language model, is told by `gateway_lm_gguf_kinds` and by names.
Reads names and the first keys of a header; imports nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway_lm_gguf_kinds import ADAPTER, DRAFT, MATRIX, NAMELESS, PROJECTOR, UNFINISHED, Other, kind_of

from gateway import ConfigError, distinct, opened, placeholder

Chosen = Callable[[str], bool]
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
PART_NAME = "NAME-{:05}-of-{:05}.gguf"
PEEK = 1 << 16  # bytes of a header in which its first keys lie
MOST_NAMES = 64  # of tensors, where the keys do not say what they are of
INCOMPLETE = re.compile(r"(?i)(?<![a-z0-9])incomplete(?![a-z0-9])")  # GPT4All has it in a name until all is there

# What a file beside a model is, by a word of its name, where its header is that of no whole language model.
NAMED = {
    "mmproj": PROJECTOR,
    "imatrix": MATRIX,
    "lora": ADAPTER,
    **dict.fromkeys("draft drafter mtp nextn eagle eagle2 eagle3 medusa speculator dflash".split(), DRAFT),
}


def find(place: Path, names: Collection[str] = (), chosen: Chosen | None = None) -> Path | None:
    """The GGUF file of a model in `place`, its first part when it has several; None where there is none.

    `names` are those of the model's directory: of several files, the one that is called so is meant. `chosen` says of
    each file whether the patterns of the weights choose it. Raises `ConfigError` when none of several is meant, or when
    a part is missing.
    """
    if not place.is_dir():
        return parts(place)[0] if place.suffix.lower() == ".gguf" else None
    files = _without_parts(place, [file for file in models(place, chosen) if not beside(file)])
    wanted = {name.casefold() for name in (*names, place.name)}
    called = _apart(file for file in files if model_name(file).casefold() in wanted)
    found = called if len(called) == 1 else _apart(file for file in files if not is_draft(file)) or _apart(files)
    if len(found) > 1:
        listed = ", ".join(file.name for file in found[:3]) + (" …" if len(found) > 3 else "")
        call = f"it {place.name}.gguf"
        if part := PART.fullmatch(found[0].name):
            call = f"all of its parts {place.name}-…-of-{part[3]}.gguf"
        here = f"- source: file://{found[0].name}, or call {call}"
        there = f"beside its source, allow_patterns: [{found[0].relative_to(place)}]"
        raise ConfigError(
            f"{place}: several GGUF files ({listed}); one directory holds one model: name the one to serve in "
            f"config.yaml, weights: {here if not names or place.name in names else there}"
        )
    for part in parts(found[0]) if found else ():
        if there := placeholder(part):
            raise ConfigError(f"{place}: {part.name} {there.what}: {there.fix}")
    if found and (unfinished := next((part for part in parts(found[0]) if has_gaps(part)), None)):
        raise ConfigError(f"{place}: {unfinished.name} is not finished: aria2 keeps what it lacks beside it")
    return found[0] if found else None


def _without_parts(place: Path, files: list[Path]) -> list[Path]:
    """Those that are no parts by other names than parts have. Raises `ConfigError` where all are that."""
    renamed = {file: said for file in files if (said := _renamed(file))}
    if whole := [file for file in files if file not in renamed]:
        return whole
    if renamed:
        calls = ", ".join(f"{file.name} {PART_NAME.format(*said)}" for file, said in renamed.items())
        rest = "; get those that are missing" if len(renamed) < max(count for _, count in renamed.values()) else ""
        what = f"renamed parts of a model ({', '.join(file.name for file in renamed)})"
        raise ConfigError(f"{place}: {what}: call {calls}, with one NAME for those that belong together{rest}")
    return files


def _renamed(file: Path) -> tuple[int, int] | None:
    """Which part of how many a file is by its header, where its name does not say it."""
    if PART.fullmatch(file.name):
        return None
    number, count = map(first_keys(file).said.get, ("split.no", "split.count"))
    return (number + 1, count) if isinstance(number, int) and isinstance(count, int) and count > 1 else None


def _apart(files: Iterable[Path]) -> list[Path]:
    """One name of each file, in their order: that of the file itself before those of links to it."""
    return sorted(distinct(sorted(files, key=Path.is_symlink)))


def models(place: Path, chosen: Chosen | None = None) -> list[Path]:
    """The GGUF files of a directory, of those in parts the first, whether it is there or not.

    Hidden ones aside, as with everything that is looked for in a directory and not named.
    """
    if chosen is None:
        files = list(place.iterdir())
    else:  # which may lie in a directory of a repository
        files = [file for file in place.rglob("*") if chosen(file.relative_to(place).as_posix())]
    found = (file for file in files if file.suffix.lower() == ".gguf" and not file.name.startswith("."))
    return sorted({first_part(file) for file in found if file.is_file()})


def say_others(place: Path, chosen: Chosen | None = None) -> None:
    """Raise `ConfigError` where a directory has GGUF files and no checkpoint, and none of them is a language model."""
    if not place.is_dir() or (place / "config.json").exists():
        return
    if others := list(map(_told, _apart(models(place, chosen)))):
        raise ConfigError(f"{place}: no GGUF file here is a language model: {'; '.join(others)}")


def say_passed_over(place: Path, served: Path | None, chosen: Chosen | None = None) -> str | None:
    """What the GGUF files are that lie beside the one, or beside the checkpoint, that is served."""
    if served is None and not (place / "config.json").exists():
        return None  # there is nothing that they lie beside: `say_others` tells them
    others = [_told(file) for file in _apart(models(place, chosen)) if not served or len(distinct([file, served])) > 1]
    return f"passed over beside {served.name if served else 'the checkpoint'}: {'; '.join(others)}" if others else None


def _told(file: Path) -> str:
    other = beside(file) or (DRAFT if is_draft(file) else _another(file))
    return f"{file.name} is {other.what}: {other.fix}"


def _another(file: Path) -> Other:
    if part := _renamed(file):
        return Other(f"part {part[0]} of {part[1]} of a model", f"call it {PART_NAME.format(*part)}")
    return Other("another model", "give it a directory of its own")


def has_gaps(file: Path) -> bool:
    """Whether aria2 is still writing the file, which has its size from the beginning."""
    return file.with_name(f"{file.name}.aria2").exists()


def model_name(file: Path) -> str:
    match = PART.fullmatch(file.name)
    return match[1] if match else file.stem


def first_part(file: Path) -> Path:
    match = PART.fullmatch(file.name)
    return file.with_name(f"{match[1]}-00001-of-{match[3]}{file.suffix}") if match else file


def parts(file: Path) -> list[Path]:
    """All files of the model that this file is, or is one part of. Raises `ConfigError` that names missing ones."""
    match = PART.fullmatch(file.name)
    if match is None or not (count := int(match[3])):
        return [file]
    found = [file.with_name(f"{match[1]}-{number:05}-of-{match[3]}{file.suffix}") for number in range(1, count + 1)]
    if missing := [part.name for part in found if not part.is_file()]:
        listed = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        is_or_are = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"{file.parent}: {listed} {is_or_are} missing; {model_name(file)} has {count} parts")
    return found


def beside(file: Path) -> Other | None:
    """What the file is when it is no language model of its own, None when it is one; what it says comes first."""
    if INCOMPLETE.search(file.name):
        return UNFINISHED
    peeked = first_keys(file)
    if kind := kind_of(peeked.said, peeked.tensors, peeked.names):
        return kind
    return None if _is_whole(peeked) else named(file) or (NAMELESS if peeked.is_nameless else None)


def _is_whole(peeked: Peeked) -> bool:
    """Whether it is a whole language model by its header: with words, and more tensors than layers."""
    said = peeked.said
    layers, tensors = said.get(f"{said.get('general.architecture')}.block_count"), said.get("split.tensors.count")
    if "tokenizer.ggml.model" not in said or "general.architecture" not in said:
        return False
    count = max(peeked.tensors, tensors if isinstance(tensors, int) else 0)
    return not isinstance(layers, int) or count >= layers


def named(file: Path) -> Other | None:
    """What the file is called, when that is something that lies beside models."""
    words = _words(file)
    return next((what for word, what in NAMED.items() if word in words), None)


def is_draft(file: Path) -> bool:
    """Whether the name says that a whole model is there to guess words for another, which no header says.

    Words that models have in their own names (Eagle, Medusa, MTP) do not: those drafts have headers that tell them.
    """
    return bool({"draft", "drafter"} & {*_words(file)})


def _words(file: Path) -> list[str]:
    return re.split(r"[^a-z0-9]+", file.stem.lower())


@dataclass(frozen=True, slots=True)
class Peeked:
    """The beginning of a header."""

    said: Mapping[str, str | int]  # the texts and whole numbers among its first keys, of arrays their lengths
    tensors: int = -1  # how many there are; -1 where that cannot be read
    names: tuple[str, ...] = ()  # of the first of them, where all keys could be read

    @property
    def is_nameless(self) -> bool:
        """Whether it has no architecture, as far as one can see, and is not the later part of what has one."""
        return bool(self.names) and not self.said.keys() & {"general.architecture", "split.count"}


def first_keys(file: Path) -> Peeked:
    """The first keys of the header, and the names of tensors behind them. Nothing of a file that cannot be read."""
    found: dict[str, str | int] = {}
    names: list[str] = []
    tensors = -1
    try:
        with opened(file) as weights:
            data = weights.read(PEEK)
        magic, _, count_of_tensors, count = struct.unpack_from("<4sIQQ", data)
        if magic == b"GGUF":
            tensors = count_of_tensors
        at = 24
        for _ in range(count if magic == b"GGUF" else 0):
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
            for _ in range(min(tensors, MOST_NAMES)):
                name, at = _text(data, at)
                (dimensions,) = struct.unpack_from("<I", data, at)
                names.append(name)
                at += 16 + 8 * dimensions
    except (OSError, struct.error, KeyError, OverflowError, RecursionError):
        pass  # the end of what was read, or a damaged header, which is told when the model loads
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
    """Those of the array that begins at `at`; none of an array of anything else."""
    kind, count = struct.unpack_from("<IQ", data, at)
    at += 12
    for _ in range(count if kind == STRING else 0):
        text, at = _text(data, at)
        yield text


def _skip(data: bytes, at: int, kind: int) -> int:
    """Where the value that begins at `at` ends."""
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
