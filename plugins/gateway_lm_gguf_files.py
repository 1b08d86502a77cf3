"""Which GGUF file of a directory is the model, and all of its parts.

Projectors, drafts, importance matrices and adapters lie beside models and are none; encoders and models of images are
no language models. Reads names and the first keys of
a header; imports nothing.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Collection, Mapping
from pathlib import Path

from gateway import ConfigError

PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
LFS = b"version https://git-lfs."
PEEK = 1 << 16  # bytes of a header in which its first keys lie

# What a file beside a model is: by a word of its name, or by what its header says.
NAMED = {
    "mmproj": "a projector of images or sound",
    "imatrix": "an importance matrix",
    "lora": "a LoRA adapter",
    **dict.fromkeys("draft drafter mtp nextn eagle eagle2 eagle3 medusa".split(), "a draft model"),
}
# What a file of these architectures is instead of a language model.
OTHERS = {
    **dict.fromkeys(
        "bert nomic-bert nomic-bert-moe jina-bert-v2 jina-bert-v3 modern-bert neo-bert eurobert gemma-embedding"
        " llama-embed t5encoder".split(),
        "an encoder, which gives vectors and writes no text",
    ),
    **dict.fromkeys(["t5", "umt5"], "a model with an encoder and a decoder"),
    **dict.fromkeys(
        "flux sd1 sd3 sdxl aura lumina2 hidream qwen_image ltxv hyvid wan cosmos".split(), "a model of images"
    ),
    **dict.fromkeys(["whisper", "wavtokenizer-dec"], "a model of sound"),
}
SAID = {
    ("general.type", "mmproj"): NAMED["mmproj"],
    ("general.architecture", "clip"): NAMED["mmproj"],
    ("general.type", "imatrix"): NAMED["imatrix"],
    ("general.architecture", "eagle3"): NAMED["draft"],
    ("general.type", "adapter"): NAMED["lora"],
    ("general.type", "vocab"): "a vocabulary without a model",
}


def find(place: Path, names: Collection[str] = ()) -> Path | None:
    """The GGUF file of a model in `place`, its first part when it has several; None where there is none.

    `names` are those of the model's directory: of several files, the one that is called so is meant. Raises
    `ConfigError` when none of them is, or when a part is missing.
    """
    if not place.is_dir():
        return parts(place)[0] if place.suffix.lower() == ".gguf" else None
    files = [file for file in _files(place) if not beside(file)]
    files = [file for file in files if not named(file)] or files  # a model may be called so, where it is alone
    found = sorted({first_part(file) for file in files})
    if len(found) > 1:
        wanted = {name.casefold() for name in (*names, place.name)}
        called = [file for file in found if model_name(file).casefold() in wanted]
        if len(called) != 1:
            listed = ", ".join(file.name for file in found)
            raise ConfigError(
                f"{place}: several GGUF files ({listed}); one directory holds one model: name the one to serve in "
                f"config.yaml, weights: - source: file://{found[0].name}, or call it {place.name}.gguf"
            )
        found = called
    if found and (pointer := next((part for part in parts(found[0]) if is_pointer(part)), None)):
        raise ConfigError(f"{place}: {pointer.name} is a pointer of Git LFS and not the file: git lfs pull")
    if found and (unfinished := next((part for part in parts(found[0]) if has_gaps(part)), None)):
        raise ConfigError(f"{place}: {unfinished.name} is not finished: aria2 keeps what it lacks beside it")
    return found[0] if found else None


def _files(place: Path) -> list[Path]:
    """Hidden ones aside, as with everything that is looked for in a directory and not named."""
    found = (file for file in place.iterdir() if file.suffix.lower() == ".gguf" and not file.name.startswith("."))
    return sorted(file for file in found if file.is_file())


def is_pointer(file: Path) -> bool:
    """Whether Git LFS has left a few lines in the place of the file, as a clone without it does."""
    try:
        with file.open("rb") as opened:
            return opened.read(len(LFS)) == LFS
    except OSError:
        return False


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
        raise ConfigError(f"{file.parent}: {', '.join(missing)} is missing; {model_name(file)} has {count} parts")
    return found


def beside(file: Path) -> str | None:
    """What the file is when it is no model of its own, None when it is one. What it says of itself comes first."""
    said = first_keys(file)
    what = next((what for (key, value), what in SAID.items() if said.get(key) == value), None)
    what = what or OTHERS.get(said.get("general.architecture", ""))
    return what or (None if "tokenizer.ggml.model" in said else named(file))


def named(file: Path) -> str | None:
    """What the file is called, when that is something that lies beside models."""
    words = re.split(r"[^a-z0-9]+", file.stem.lower())
    return next((what for word, what in NAMED.items() if word in words), None)


def first_keys(file: Path) -> Mapping[str, str]:
    """The texts among the first keys of the header: what kind of file it is. None of a file that cannot be read."""
    found: dict[str, str] = {}
    try:
        with file.open("rb") as opened:
            data = opened.read(PEEK)
        magic, _, _, count = struct.unpack_from("<4sIQQ", data)
        at = 24
        for _ in range(count if magic == b"GGUF" else 0):
            key, at = _text(data, at)
            (kind,) = struct.unpack_from("<I", data, at)
            if kind == STRING:
                found[key], at = _text(data, at + 4)
            else:
                at = _skip(data, at + 4, kind)
    except (OSError, struct.error, KeyError, OverflowError, RecursionError):
        pass  # the end of what was read, or a damaged header, which is told when the model loads
    return found


STRING, ARRAY = 8, 9
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # kind of a value → bytes


def _text(data: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + size
    if end > len(data):
        raise struct.error
    return data[at + 8 : end].decode("utf-8", "replace"), end


def _skip(data: bytes, at: int, kind: int) -> int:
    """Where the value that begins at `at` ends."""
    if kind != ARRAY:
        return at + SIZES[kind]
    kind, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if kind in SIZES:
        return at + count * SIZES[kind]
    for _ in range(count):
        at = _text(data, at)[1] if kind == STRING else _skip(data, at, kind)
    return at
