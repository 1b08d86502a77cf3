"""What stands in the place of a file that did not come: a pointer of Git LFS, a page that a server sent, a text.

Looks at the beginnings of files whose names promise weights. A model of that name would be told by its library with a
word about its format, which helps nobody to get the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import ordinary

LONGEST_POINTER = 1024  # bytes, as Git LFS defines it
PEEK = 256  # bytes of a beginning
# What is never a text, so that any text by such a name is not the file; of `MIXED` some kinds are texts.
BINARY = frozenset(
    "ckpt engine gguf h5 hdf5 joblib keras mlmodel nemo npy npz onnx pdmodel pdparams pt pt2 pte pth safetensors sft "
    "skops tflite".split()
)
MIXED = frozenset("bin cbm dat model pb pickle pkl ubj weights xgb".split())
PAGE = re.compile(rb"(?i)\A[\s\xef\xbb\xbf]*(<!doctype html|<html\b|<\?xml[^>]*>\s*<error>|<error>)")
JSON = re.compile(rb'\A[\s\xef\xbb\xbf]*\{\s*"[\x20-\x7e]{4}')
TEXT = re.compile(rb"\A[\x20-\x7e\r\n\t]{9,}\Z")  # shorter ones may be anything
# How Hugging Face and GitHub answer without a page.
REFUSALS = re.compile(rb"\A((Entry|Repository) not found|404: Not Found|Invalid username or password|Access to model )")
AGAIN = "get the file again; where its server asks for a login, with one (hf auth login, a token)"


@dataclass(frozen=True, slots=True)
class Placeholder:
    """`what` follows the name of the file in a sentence."""

    what: str
    fix: str

    @property
    def is_pointer(self) -> bool:
        return self in (POINTER, ANNEX, XET)


POINTER = Placeholder("is a pointer of Git LFS and not the file", "git lfs pull")
ANNEX = Placeholder("is a pointer of git-annex and not the file", "git annex get")
XET = Placeholder("is a pointer of Xet and not the file", "get it with hf download, or with git-xet")
POINTERS = ((b"version https://git-lfs.", POINTER), (b"/annex/objects/", ANNEX), (b"# xet version", XET))
HTML = Placeholder("is a page of HTML or XML and not the file, as a server answers in its place", AGAIN)
OBJECT = Placeholder("is a JSON text and not the file, as a server answers in its place", AGAIN)


def placeholder(file: Path) -> Placeholder | None:
    """Return what stands in the place of a file with weights, for a plugin; None when it may be the file itself."""
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
        begins = "" if file.is_symlink() else f" (it begins {start!r})"  # a link may lead to anybody's file
        return Placeholder(f"is a text and not the file{begins}", AGAIN)
    return None


def placeholders(root: Path) -> Iterator[tuple[str, Placeholder]]:
    """Those among the files of the directory, and of the directories in it."""
    for pattern in ("*", "[!.]*/*"):
        for file in sorted(root.glob(pattern)):
            if found := placeholder(file):
                yield str(file.relative_to(root)), found
