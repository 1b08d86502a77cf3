"""Recognise files that were not downloaded: a Git LFS pointer, an error page of a server, or another text instead.

Reads the beginnings of files that should contain weights. A library would only complain about their format, which does
not help the user to get the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import ordinary

LONGEST_POINTER = 1024  # bytes, as Git LFS defines it
PEEK = 256  # bytes at the beginning
# These formats are never text, so any text in such a file is something else. Some formats in `MIXED` are text.
BINARY = frozenset(
    "ckpt engine gguf h5 hdf5 joblib keras mlmodel nemo npy npz onnx pdmodel pdparams pt pt2 pte pth safetensors sft "
    "skops tflite".split()
)
MIXED = frozenset("bin cbm dat model pb pickle pkl ubj weights xgb".split())
PAGE = re.compile(rb"(?i)\A[\s\xef\xbb\xbf]*(<!doctype html|<html\b|<\?xml[^>]*>\s*<error>|<error>)")
JSON = re.compile(rb'\A[\s\xef\xbb\xbf]*\{\s*"[\x20-\x7e]{4}')
TEXT = re.compile(rb"\A[\x20-\x7e\r\n\t]{9,}\Z")  # a shorter text may be anything
# How Hugging Face and GitHub answer without an HTML page.
REFUSALS = re.compile(rb"\A((Entry|Repository) not found|404: Not Found|Invalid username or password|Access to model )")
AGAIN = "download the file again; log in if its server requires it (hf auth login, a token)"


@dataclass(frozen=True, slots=True)
class Placeholder:
    """`what` follows the file name in a sentence."""

    what: str
    fix: str

    @property
    def is_pointer(self) -> bool:
        return self in (POINTER, ANNEX, XET)


POINTER = Placeholder("is a Git LFS pointer instead of the file", "git lfs pull")
ANNEX = Placeholder("is a git-annex pointer instead of the file", "git annex get")
XET = Placeholder("is a Xet pointer instead of the file", "get it with hf download, or with git-xet")
POINTERS = ((b"version https://git-lfs.", POINTER), (b"/annex/objects/", ANNEX), (b"# xet version", XET))
HTML = Placeholder("is an HTML or XML page of a server instead of the file", AGAIN)
OBJECT = Placeholder("is a JSON answer of a server instead of the file", AGAIN)


def placeholder(file: Path) -> Placeholder | None:
    """Return what replaces a file with weights, for a plugin; None if it may be the file itself."""
    suffix = file.suffix[1:].lower()
    try:
        is_small = file.stat().st_size < LONGEST_POINTER
        if not is_small and suffix not in BINARY | MIXED:
            return None
        with ordinary.opened(file) as opened:
            begin = opened.read(PEEK)
    except OSError:
        return None
    if is_small and (pointer := next((each for start, each in POINTERS if begin.startswith(start)), None)):
        return pointer
    if suffix not in BINARY | MIXED:
        return None
    if PAGE.match(begin):
        return HTML
    if suffix in BINARY and JSON.match(begin):
        return OBJECT
    if REFUSALS.match(begin) or (suffix in BINARY and TEXT.match(begin)):
        start = begin.split(b"\n")[0][:60].decode("utf-8", "replace").strip()
        begins = "" if file.is_symlink() else f" (it begins {start!r})"  # a link may lead to any file
        return Placeholder(f"is a text instead of the file{begins}", AGAIN)
    return None


def placeholders(root: Path) -> Iterator[tuple[str, Placeholder]]:
    """Yield the placeholders among the files of a directory and of its subdirectories."""
    for pattern in ("*", "[!.]*/*"):
        for file in sorted(root.glob(pattern)):
            if found := placeholder(file):
                yield str(file.relative_to(root)), found
